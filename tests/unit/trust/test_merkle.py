"""RFC 6962's tree: its published vectors, every proof of every small tree, and every proof bent."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tempo.errors import TamperedError
from tempo.trust.ledger.merkle import (
    Frontier,
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_hash,
)

#: Leaves and roots of the test suite of certificate-transparency (RFC 6962's reference implementation).
LEAVES = [
    bytes.fromhex(h)
    for h in [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ]
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def hashes(n):
    return [leaf_hash(bytes([i])) for i in range(n)]


def recursive_root(leaves):
    """The definition, word for word."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_hash(recursive_root(leaves[:k]), recursive_root(leaves[k:]))


def test_published_roots():
    leaves = [leaf_hash(data) for data in LEAVES]
    assert [root_hash(leaves[: n + 1]).hex() for n in range(8)] == ROOTS


@pytest.mark.parametrize("n", range(70))
def test_the_frontier_is_the_definition(n):
    assert root_hash(hashes(n)) == recursive_root(hashes(n))


def test_extending_leaves_the_old_frontier_alone():
    old = Frontier()
    for leaf in hashes(5):
        old.append(leaf)
    before = old.root()
    assert old.extended(leaf_hash(b"x")).root() != before
    assert (old.size, old.root()) == (5, before)


@pytest.mark.parametrize("n", range(1, 20))
def test_every_inclusion_proof(n):
    leaves = hashes(n)
    for i, leaf in enumerate(leaves):
        check_inclusion(leaf, i, n, inclusion_proof(leaves, i), root_hash(leaves))


@pytest.mark.parametrize("n", range(1, 20))
def test_every_consistency_proof(n):
    leaves = hashes(n)
    for old in range(1, n + 1):
        proof = consistency_proof(leaves, old)
        check_consistency(old, root_hash(leaves[:old]), n, root_hash(leaves), proof)


@given(st.integers(1, 40), st.data())
def test_a_bent_inclusion_proof_is_refused(n, data):
    leaves = hashes(n)
    i = data.draw(st.integers(0, n - 1))
    proof, root = inclusion_proof(leaves, i), root_hash(leaves)
    bent = data.draw(st.sampled_from(["leaf", "index", "size", "shorter", "longer", "hash", "root"]))
    args = [leaves[i], i, n, list(proof), root]
    if bent == "leaf":
        args[0] = leaf_hash(b"other")
    elif bent == "index":
        args[1] = data.draw(st.integers(-2, n + 2).filter(lambda j: j != i))
    elif bent == "size":
        # Another size may have the same path; then root and path alone decide, and both are right.
        args[2] = i
    elif bent == "shorter":
        if not proof:
            return
        args[3] = proof[:-1]
    elif bent == "longer":
        args[3] = [*proof, leaf_hash(b"more")]
    elif bent == "hash":
        if not proof:
            return
        at = data.draw(st.integers(0, len(proof) - 1))
        args[3][at] = leaf_hash(b"other")
    else:
        args[4] = leaf_hash(b"other")
    with pytest.raises(TamperedError):
        check_inclusion(*args)


@given(st.integers(2, 40), st.data())
def test_a_rewritten_past_is_refused(n, data):
    leaves = hashes(n)
    old = data.draw(st.integers(1, n - 1))
    altered = data.draw(st.integers(0, old - 1))
    forged = list(leaves)
    forged[altered] = leaf_hash(b"other")
    proof = consistency_proof(forged, old)
    with pytest.raises(TamperedError):
        check_consistency(old, root_hash(leaves[:old]), n, root_hash(forged), proof)


def test_two_histories_of_one_size_are_a_fork():
    with pytest.raises(TamperedError, match="fork"):
        check_consistency(3, root_hash(hashes(3)), 3, leaf_hash(b"other"), [])


def test_a_shorter_log_extends_nothing():
    with pytest.raises(TamperedError):
        check_consistency(4, root_hash(hashes(4)), 3, root_hash(hashes(3)), [])
