"""Does the vault give this machine a key? Prints the key's name, never the key. Run it on the master.

    python check_release.py ENDPOINT KEY [VERSION]      certificates: pki/trainer.pem, .key, ca.pem, ca.crl

Exit codes: 0 released, 1 refused (the vault's words), 3 not reached.
"""

import sys

from tempo.errors import OutsideError
from tempo.trust.vault import KeyRefused, ThisMachine, fetch
from tempo.wire import TlsFiles

endpoint, name, *version = sys.argv[1:]
tls = TlsFiles("pki/trainer.pem", "pki/trainer.key", "pki/ca.pem", "pki/ca.crl")
try:
    key = fetch(endpoint, tls, ThisMachine(), name, *map(int, version))
except KeyRefused as refused:
    sys.exit(f"refused: {refused}")
except OutsideError as error:
    print(f"not reached: {error}")
    sys.exit(3)
print(f"released: {name}, key {key.name}")
