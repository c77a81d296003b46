"""Makes the owner's key pair: what is sealed to the public half, the private half alone opens.

python owner_key.py NAME      NAME.key stays in-house; NAME.pub goes where models and results are sealed
"""

import sys
from pathlib import Path

from tempo.trust.sealed import OwnerKey

made = OwnerKey.generate()
made.save(Path(f"{sys.argv[1]}.key"))
made.recipient.save(Path(f"{sys.argv[1]}.pub"))
print(f"{sys.argv[1]}.key and {sys.argv[1]}.pub: the key {made.name}")
