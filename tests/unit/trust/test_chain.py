"""Chains of certificates, rule by rule (tempo/trust/evidence/chain.py)."""

from __future__ import annotations

import pytest
from authorities import NOW, Holder, certify
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tempo.errors import RefusedError
from tempo.trust.evidence.chain import fingerprint, verify_chain

pytestmark = pytest.mark.security


def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def check(*holders: Holder):
    """The first one's chain through all, the last one trusted."""
    certificates = [holder.certificate for holder in holders]
    roots = frozenset({fingerprint(certificates[-1])})
    return verify_chain(certificates[0], certificates, roots, (), NOW, "step")


def refused(match: str, *holders: Holder) -> None:
    with pytest.raises(RefusedError, match=match) as error:
        check(*holders)
    assert error.value.step == "step"


@pytest.fixture
def root() -> Holder:
    return certify("Root", key(), ca=True)


def test_a_chain_that_holds(root) -> None:
    middle = certify("Middle", key(), root, ca=True)
    leaf = certify("Leaf", key(), middle)
    assert check(leaf, middle, root).root == fingerprint(root.certificate)


@pytest.mark.parametrize(("ca", "signs"), [(False, True), (True, False), (False, False)])
def test_an_issuer_that_may_not_issue(root, ca, signs) -> None:
    usage = x509.KeyUsage(True, *[False] * 4, signs, *[False] * 3)
    extensions = ((x509.BasicConstraints(ca, None), True), (usage, True))
    middle = certify("Middle", key(), root, extensions=extensions)
    refused("may not issue", certify("Leaf", key(), middle), middle, root)


@pytest.mark.parametrize("critical", [True, False])
def test_an_extension_that_nobody_knows(root, critical) -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    leaf = certify("Leaf", key(), root, extensions=((unknown, critical),))
    if critical:
        refused(r"critical extension 1\.2\.3\.4", leaf, root)
    else:
        check(leaf, root)


def test_a_root_alone_is_no_chain(root) -> None:
    refused("alone", root)


def test_a_root_that_did_not_sign_itself() -> None:
    other = certify("Root", key(), ca=True)
    false = certify("Root", key(), other, ca=True)  # bears the issuer's name, is signed by another key
    refused("signed itself", certify("Leaf", key(), false), false)


def test_a_chain_without_end(root) -> None:
    holders = [root]
    for number in range(6):
        holders.insert(0, certify(f"CA {number}", key(), holders[0], ca=True))
    refused("more than 6", certify("Leaf", key(), holders[0]), *holders)
