"""The vault: data keys stay in-house and go to attested masters alone."""

from tempo.trust.vault.appraise import Appraiser
from tempo.trust.vault.attested import Machines, ThisMachine, UnsafeSimulated
from tempo.trust.vault.client import Evidence, KeyRefused, fetch
from tempo.trust.vault.rates import Rate
from tempo.trust.vault.root import PassphraseRoot, RootKey
from tempo.trust.vault.server import Server, ServeSettings
from tempo.trust.vault.state import Grant, Key, Policy, State
from tempo.trust.vault.store import Store

__all__ = [
    "Appraiser",
    "Evidence",
    "Grant",
    "Key",
    "KeyRefused",
    "Machines",
    "PassphraseRoot",
    "Policy",
    "Rate",
    "RootKey",
    "ServeSettings",
    "Server",
    "State",
    "Store",
    "ThisMachine",
    "UnsafeSimulated",
    "fetch",
]
