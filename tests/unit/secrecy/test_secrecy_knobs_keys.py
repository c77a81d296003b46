"""What the knobs of mixing add is as secret as keys, and keys are spent as without them."""

import copy
import pickle

import pytest
from test_secrecy_knobs import ALL, parameter, step
from test_secrecy_sent import House, key_of, randn

from tempo.errors import KeySpentError
from tempo.secrecy.rows import Selection
from tempo.secrecy.scheme import scheme_from
from tempo.secrecy.seal import Added, FeatureKey, RowKey


@pytest.mark.security
def test_nothing_of_it_is_printed_or_pickled():
    """A cover, what is added and what was taken are as secret as a key."""
    with House(hardening=ALL) as house:
        _, ticket = house.forward(randn(256, 80, seed=1), parameter())
        z = ticket.cover.directions(ticket.weight.key, randn(1, 256, 80))
        u = ticket.kept[0].key.draws(z.shape[2], z.dtype)
        hidden = [ticket.cover, ticket.weight.taken, Added(u, z, house.engine.desk.pool)]
    for each in hidden:
        assert repr(each) == f"{type(each).__name__}(hidden)"
        for leave in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="never leaves its process"):
                leave(each)


# ---- what stays as it was --------------------------------------------------------------------------


@pytest.mark.security
def test_keys_are_spent_all_the_same():
    with House(hardening=ALL) as house:
        step(house, randn(256, 80, seed=1), parameter(), randn(256, 96, seed=3))
        assert len(house.spy.tensors) == 3
        assert house.stats.count("deflated_w") == 1
    scheme = scheme_from(
        "mixing", spread=2.0, chunk=128, smallest=1, rounds=2, row_rounds=2, block=64, hardening=ALL
    )
    key = key_of(0)
    weight, rows = FeatureKey(key, scheme, (0,), groups=1, k=64, n=64), RowKey(key, scheme, (0,), (64,))
    t, where = randn(1, 64, 64), Selection.everything(1, 64)
    rows.seal_x(rows.bases(), weight.b, t, where)
    with pytest.raises(KeySpentError):
        rows.seal_x(rows.bases(), weight.b, t, where)
