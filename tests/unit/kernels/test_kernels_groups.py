"""A survey of many groups is the surveys of each: ragged or of one size, strided, with probes of their own or
common ones."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tempo.kernels import Sums, contract, norms, project, survey
from tempo.kernels.native import SETS, Native

few = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16


def available():
    found = []
    for name in SETS:
        try:
            Native(name)
        except OSError:
            continue
        found.append(name)
    return found


every_pass = pytest.mark.parametrize("name", [*available(), "plain"])
WIDTHS = st.one_of(st.integers(0, 20), st.sampled_from([31, 63, 64, 65, 129]))


@st.composite
def grouped(draw):
    """(a, rows or None, the group's matrices in float64, generator)."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    width, dtype = draw(WIDTHS), draw(st.sampled_from([F32, F64, BF16]))
    if draw(st.booleans()):
        rows = draw(st.lists(st.integers(0, 40), max_size=6))
        a = torch.randn(sum(rows), width + 3, dtype=F64, generator=generator).to(dtype)[:, 3:]
        return a, rows, [part.double() for part in a.split(rows)], generator
    groups, each = draw(st.integers(0, 6)), draw(st.integers(0, 40))
    shape = {
        "in a row": (groups, each, width),
        "side by side": (each, groups, width),
        "columns": (groups, width, each),
    }
    layout = draw(st.sampled_from(sorted(shape)))
    a = torch.randn(*shape[layout], dtype=F64, generator=generator).to(dtype)
    a = a.transpose(0, 1) if layout == "side by side" else a.mT if layout == "columns" else a
    return a, None, list(a.double()), generator


def near(ours, exact, magnitudes, terms):
    assert ours.dtype == F64
    assert ours.shape == exact.shape
    assert bool(((ours - exact).abs() <= 2 * (terms + 2) * 2.0**-53 * magnitudes).all())


@every_pass
@few
@given(
    grouped(),
    st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans(), st.integers(0, 4)), max_size=4),
    st.sampled_from([1, 2]),
)
def test_groups_are_surveyed_each_by_itself(serve, name, case, asked, threads):
    a, rows, parts, generator = case
    counts, width = [len(part) for part in parts], a.shape[-1]
    along, down = [], []
    for is_down, squared, common, probes in asked:
        common &= not is_down or len(set(counts)) == 1
        length = (counts[0] if common else sum(counts)) if is_down else width
        shape = (length, probes) if is_down or common else (len(counts), length, probes)
        (down if is_down else along).append(Sums(torch.randn(shape, dtype=F64, generator=generator), squared))
    with serve(name, threads):
        found = survey(a, along, down, rows=rows)
    assert found.norms.shape == (sum(counts) * bool(along),)
    assert found.squares.shape == (len(counts) * bool(down), width)
    first = 0
    for g, part in enumerate(parts):
        here = slice(first, first + len(part))
        first += len(part)
        for sums, out in zip(along, found.along, strict=True):
            of, v = part.square() if sums.squared else part, sums.probes
            v = v if v.ndim == 2 else v[g]
            near(out[here], of @ v, of.abs() @ v.abs(), width)
        for sums, out in zip(down, found.down, strict=True):
            of, q = part.square() if sums.squared else part, sums.probes
            q = q if len(q) != sum(counts) else q[here]
            near(out[g], of.mT @ q, of.abs().mT @ q.abs(), len(part))
        if along:
            exact = part.square().sum(1).sqrt()
            near(found.norms[here], exact, exact, width)
        if down:
            near(found.squares[g], part.square().sum(0), part.square().sum(0), len(part))


@every_pass
@pytest.mark.parametrize("threads", [1, 2])
def test_groups_of_many_pieces_beside_groups_of_one(serve, name, threads):
    """A thread's sums go to the group that they are of, also where another thread has a part of it."""
    g = torch.Generator().manual_seed(0)
    rows, width = [3, 2500, 0, 700, 1, 1800], 300
    a = torch.randn(sum(rows), width, generator=g)
    v, q = (
        torch.randn(len(rows), width, 2, dtype=F64, generator=g),
        torch.randn(sum(rows), 2, dtype=F64, generator=g),
    )
    for _ in range(5):
        with serve(name, threads):
            found = survey(a, [Sums(v)], [Sums(q)], rows=rows)
        first = 0
        for i, part in enumerate(a.double().split(rows)):
            here = slice(first, first + len(part))
            first += len(part)
            near(found.along[0][here], part @ v[i], part.abs() @ v[i].abs(), width)
            near(found.down[0][i], part.mT @ q[here], part.abs().mT @ q[here].abs(), len(part))
            near(found.squares[i], part.square().sum(0), part.square().sum(0), len(part))


@pytest.mark.parametrize(
    ("shape", "rows", "along", "down"),
    [
        ((4, 3), [2, 1], None, None),  # rows that are in no group
        ((4, 3), [5, -1], None, None),
        ((2, 2, 3), [2, 2], None, None),  # told twice
        ((4, 3), [1, 3], (1, 3, 2), None),  # probes of another number of groups
        ((4, 3), [1, 3], (2, 4, 2), None),
        ((4, 3), [1, 3], None, (3, 2)),  # groups of two sizes have no common rows
        ((4, 3), [2, 2], None, (3, 2)),
        ((4, 3), [2, 2], None, (2, 2, 2)),
    ],
)
def test_what_does_not_fit_is_refused(shape, rows, along, down):
    a = torch.ones(shape)
    with pytest.raises(ValueError, match=r"rows|probes"):
        survey(
            a,
            [] if along is None else [Sums(torch.ones(along, dtype=F64))],
            [] if down is None else [Sums(torch.ones(down, dtype=F64))],
            rows=rows,
        )


def test_one_matrix_is_one_matrix():
    a, v = torch.ones(2, 4, 3), torch.ones(3, 1, dtype=F64)
    assert norms(a).shape == (8,)
    for of in (lambda: project(a, v), lambda: contract(a, torch.ones(4, 1, dtype=F64))):
        with pytest.raises(ValueError, match="a matrix of"):
            of()
