"""The native lowering passes against their plain twins, each map against its adjoint, on ragged sizes.

Bounds: a result of n terms in floating point is off by at most n eps times the sum of its terms' magnitudes
(twice that between two orders of summing), and the twin on absolute values gives that sum.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tempo.kernels import (
    Tiles,
    Windows,
    from_points,
    from_rows,
    from_windows,
    native_images,
    plain_images,
    to_points,
    to_rows,
    to_windows,
)
from tempo.kernels.native import SETS, Native
from tempo.kernels.tiles import F2, F4, of_inputs, of_outputs

few = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def available() -> list[Native]:
    found = []
    for name in SETS:
        try:
            found.append(Native(name))
        except OSError:
            continue
    return found


NATIVES = available()
needs_native = pytest.mark.skipif(not NATIVES, reason="the native passes were not built")
natives = st.sampled_from(NATIVES) if NATIVES else st.none()
dtypes = st.sampled_from([torch.float32, torch.float64])
layouts = st.sampled_from(["planes", "channels last", "sliced", "stepped", "transposed", "expanded"])
threads = st.integers(1, 2)
seeds = st.integers(0, 99)


def image_in(layout: str, shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    """An image in memory of some kind; what lies around a sliced one is NaN."""
    t = torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    match layout:
        case "channels last":
            return t.contiguous(memory_format=torch.channels_last)
        case "sliced":
            around = torch.full([n + 3 for n in shape], torch.nan, dtype=dtype)
            inside = around[1:-2, 1:-2, 1:-2, 1:-2]
            return inside.copy_(t)
        case "stepped":
            around = torch.full([2 * n for n in shape], torch.nan, dtype=dtype)
            return around[::2, ::2, ::2, ::2].copy_(t)
        case "transposed":
            return t.transpose(0, 3).contiguous().transpose(0, 3)
        case "expanded":
            return t[:, :1, :1].expand(shape)
        case _:
            return t


def fenced(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Contiguous memory for a result, and the whole that it lies in, filled with a mark."""
    size = torch.Size(shape).numel()
    whole = torch.full((size + 64,), 12345.0, dtype=dtype)
    return whole[32 : 32 + size].view(shape), whole


def unharmed(whole: Tensor) -> bool:
    return bool((whole[:32] == 12345).all() and (whole[-32:] == 12345).all())


def within(ours: Tensor, twin: Tensor, magnitude: Tensor, terms: int) -> bool:
    return bool(((ours - twin).abs() <= 2 * terms * torch.finfo(twin.dtype).eps * magnitude).all())


@st.composite
def tilings(draw: st.DrawFn) -> tuple[tuple[int, int, int, int], Tiles]:
    """Sizes and tiles as convolutions have them: padding before, ragged edges after."""
    f = draw(st.sampled_from([F2, F4]))
    batch, channels = draw(st.integers(0, 3)), draw(st.integers(1, 70))
    before = (draw(st.integers(0, 2)), draw(st.integers(0, 2)))
    if draw(st.booleans()):
        size = (draw(st.integers(3, 19)), draw(st.integers(3, 23)))
        outs = [n + lo + draw(st.integers(0, 2)) - 2 for n, lo in zip(size, before, strict=True)]
        tiles = of_inputs(f, (-(-outs[0] // f.m), -(-outs[1] // f.m)), before)
    else:
        size = (draw(st.integers(1, 19)), draw(st.integers(1, 23)))
        tiles = of_outputs(f, (-(-size[0] // f.m), -(-size[1] // f.m)))
    return (batch, channels, *size), tiles


def absolute(tiles: Tiles) -> Tiles:
    matrix = tuple(tuple(abs(v) for v in row) for row in tiles.matrix)
    return Tiles(matrix, tiles.m, tiles.grid, tiles.before)


def points_shape(shape: tuple[int, ...], tiles: Tiles) -> tuple[int, int, int]:
    return tiles.points**2, shape[0] * tiles.grid[0] * tiles.grid[1], shape[1]


@needs_native
@few
@given(case=tilings(), native=natives, dtype=dtypes, layout=layouts, count=threads, seed=seeds)
def test_points_and_back_are_the_twins(case, native, dtype, layout, count, seed) -> None:
    shape, tiles = case
    image = image_in(layout, shape, dtype, seed)
    ours, whole = fenced(points_shape(shape, tiles), dtype)
    twin, magnitude = torch.empty_like(ours), torch.empty_like(ours)
    tiles.check(image, ours)
    native_images.tiles_pass(native.images.to_points, image, ours, tiles, count)
    plain_images.to_points(image, tiles, twin)
    plain_images.to_points(image.abs(), absolute(tiles), magnitude)
    assert unharmed(whole)
    assert within(ours, twin, magnitude, 36)

    points = torch.randn(ours.shape, dtype=dtype, generator=torch.Generator().manual_seed(seed + 1))
    back, whole = fenced(shape, dtype)
    twin, magnitude = torch.empty_like(back), torch.empty_like(back)
    native_images.tiles_pass(native.images.from_points, back, points, tiles, count)
    plain_images.from_points(points, tiles, twin)
    plain_images.from_points(points.abs(), absolute(tiles), magnitude)
    assert unharmed(whole)
    assert within(back, twin, magnitude, 4 * 36)


@st.composite
def windowings(draw: st.DrawFn) -> tuple[tuple[int, int, int, int], Windows]:
    groups, channels = draw(st.integers(1, 3)), draw(st.integers(1, 70))
    kernel, stride, dilation, before, size, grid = [], [], [], [], [], []
    for _ in range(2):
        kernel.append(draw(st.integers(1, 4)))
        stride.append(draw(st.integers(1, 3)))
        dilation.append(draw(st.integers(1, 2)))
        before.append(draw(st.integers(0, 3)))
        seen = dilation[-1] * (kernel[-1] - 1) + 1
        size.append(draw(st.integers(max(1, seen - before[-1]), seen + 14)))
        after = draw(st.integers(0, 3))
        grid.append((size[-1] + before[-1] + after - seen) // stride[-1] + 1)
    pairs = [(a, b) for a, b in (kernel, stride, dilation, before, grid)]
    return (draw(st.integers(0, 3)), groups * channels, *size), Windows(*pairs, groups)


def rows_shape(shape: tuple[int, ...], windows: Windows) -> tuple[int, int, int]:
    k = windows.kernel[0] * windows.kernel[1] * (shape[1] // windows.groups)
    return windows.groups, shape[0] * windows.grid[0] * windows.grid[1], k


@needs_native
@few
@given(
    case=windowings(), native=natives, dtype=dtypes, layout=layouts, count=threads, seed=st.integers(0, 99)
)
def test_windows_and_back_are_the_twins(case, native, dtype, layout, count, seed) -> None:
    shape, windows = case
    image = image_in(layout, shape, dtype, seed)
    ours, whole = fenced(rows_shape(shape, windows), dtype)
    twin = torch.empty_like(ours)
    windows.check(image, ours)
    native_images.windows_pass(native.images.to_windows, image, ours, windows, count)
    plain_images.to_windows(image, windows, twin)
    assert unharmed(whole)
    assert torch.equal(ours, twin)

    rows = torch.randn(ours.shape, dtype=dtype, generator=torch.Generator().manual_seed(seed + 1))
    back, whole = fenced(shape, dtype)
    twin, magnitude = torch.empty_like(back), torch.empty_like(back)
    native_images.windows_pass(native.images.from_windows, back, rows, windows, count)
    plain_images.from_windows(rows, windows, twin)
    plain_images.from_windows(rows.abs(), windows, magnitude)
    assert unharmed(whole)
    assert within(back, twin, magnitude, windows.kernel[0] * windows.kernel[1])


@needs_native
@few
@given(
    sizes=st.tuples(st.integers(0, 3), st.integers(1, 70), st.integers(1, 19), st.integers(1, 40)),
    groups=st.integers(1, 3),
    native=natives,
    dtype=dtypes,
    layout=layouts,
    count=threads,
)
def test_rows_and_back_are_the_twins(sizes, groups, native, dtype, layout, count) -> None:
    batch, channels, height, width = sizes
    shape = (batch, groups * channels, height, width)
    image = image_in(layout, shape, dtype, 0)
    rows, whole = fenced((groups, batch * height * width, channels), dtype)
    twin = torch.empty_like(rows)
    native_images.rows_pass(native.images.to_rows, image, rows, count)
    plain_images.to_rows(image, twin)
    assert unharmed(whole)
    assert torch.equal(rows, twin)
    back, whole = fenced(shape, dtype)
    native_images.rows_pass(native.images.from_rows, back, rows, count)
    assert unharmed(whole)
    assert torch.equal(back, image)
    other = torch.empty_like(back)
    plain_images.from_rows(rows, other)
    assert torch.equal(other, image)


@few
@given(case=tilings(), layout=layouts)
def test_points_and_their_adjoint(case, layout) -> None:
    """<A x, Y> = <x, A^T Y>."""
    shape, tiles = case
    x = image_in(layout, shape, torch.float64, 0)
    there, back = x.new_empty(points_shape(shape, tiles)), x.new_empty(shape)
    y = torch.randn(there.shape, dtype=there.dtype)
    to_points(x, tiles, there)
    from_points(y, tiles, back)
    close(there, y, x, back)


@few
@given(case=windowings(), layout=layouts)
def test_windows_and_their_adjoint(case, layout) -> None:
    shape, windows = case
    x = image_in(layout, shape, torch.float64, 0)
    there, back = x.new_empty(rows_shape(shape, windows)), x.new_empty(shape)
    y = torch.randn(there.shape, dtype=there.dtype)
    to_windows(x, windows, there)
    from_windows(y, windows, back)
    close(there, y, x, back)


def close(there: Tensor, y: Tensor, x: Tensor, back: Tensor) -> None:
    scale = there.norm() * y.norm() + x.norm() * back.norm()
    assert abs((there * y).sum() - (x * back).sum()) <= 1e-13 * scale


@needs_native
@pytest.mark.parametrize("native", NATIVES, ids=lambda n: n.name)
@pytest.mark.parametrize("layout", ["channels last", "sliced", "stepped", "transposed"])
def test_the_way_back_ends_in_any_memory(native: Native, layout: str) -> None:
    """Into an image of other strides: the same numbers, and nothing beside it is written."""
    shape = (2, 37, 10, 9)
    tiles = of_inputs(F4, (3, 3), (1, 1))
    windows = Windows((3, 3), (2, 2), (1, 1), (1, 1), (5, 5), 1)
    points, rows = torch.randn(points_shape(shape, tiles)), torch.randn(rows_shape(shape, windows))
    pixels = torch.randn(1, 180, 37)

    def results(back: Tensor) -> list[Tensor]:
        native_images.tiles_pass(native.images.from_points, back, points, tiles, 2)
        found = [back.clone()]
        native_images.windows_pass(native.images.from_windows, back, rows, windows, 2)
        found.append(back.clone())
        native_images.rows_pass(native.images.from_rows, back, pixels, 2)
        return [*found, back.clone()]

    other = image_in(layout, shape, torch.float32, 0)
    for ours, same in zip(results(torch.empty(shape)), results(other), strict=True):
        assert torch.equal(ours, same)
    whole = torch.empty(0).set_(other.untyped_storage())
    assert other.isfinite().all()
    assert int(whole.isnan().sum()) == whole.numel() - other.numel()


@needs_native
@pytest.mark.parametrize("native", NATIVES, ids=lambda n: n.name)
@pytest.mark.parametrize("shape", [(1, 40, 57, 61), (2, 70, 41, 33), (3, 16, 64, 64)], ids=str)
def test_threads_do_not_show(native: Native, shape: tuple[int, int, int, int]) -> None:
    """Bit for bit, also where one image is cut into strips."""
    grid4 = (-(-shape[2] // 4), -(-shape[3] // 4))
    windows = Windows((3, 3), (2, 1), (1, 2), (1, 2), ((shape[2] - 1) // 2 + 1, shape[3]), 2)
    image = image_in("planes", shape, torch.float32, 0)
    results = []
    for count in (1, 2, 3):
        got = []
        for tiles in (of_inputs(F4, grid4, (1, 1)), of_outputs(F4, grid4)):
            points, back = image.new_empty(points_shape(shape, tiles)), torch.empty_like(image)
            native_images.tiles_pass(native.images.to_points, image, points, tiles, count)
            native_images.tiles_pass(native.images.from_points, back, points, tiles, count)
            got += [points, back]
        rows, back = image.new_empty(rows_shape(shape, windows)), torch.empty_like(image)
        native_images.windows_pass(native.images.to_windows, image, rows, windows, count)
        native_images.windows_pass(native.images.from_windows, back, rows, windows, count)
        pixels = image.new_empty(2, shape[0] * shape[2] * shape[3], shape[1] // 2)
        native_images.rows_pass(native.images.to_rows, image, pixels, count)
        results.append([*got, rows, back, pixels])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_the_bound_sees_an_error_just_outside_it() -> None:
    twin, magnitude = torch.tensor([1.0]), torch.tensor([3.0])
    eps = torch.finfo(torch.float32).eps
    assert within(twin + 2 * 36 * eps * 3, twin, magnitude, 36)
    assert not within(twin + 2 * 37 * eps * 3, twin, magnitude, 36)


def test_sizes_that_do_not_fit_are_refused() -> None:
    x, tiles = torch.randn(2, 3, 8, 8), of_inputs(F4, (2, 2), (1, 1))
    windows = Windows((3, 3), (1, 1), (1, 1), (1, 1), (8, 8), 1)
    points, rows = torch.empty(36, 8, 3), torch.empty(1, 128, 27)
    to_points(x, tiles, points)
    to_windows(x, windows, rows)
    for refused in (
        lambda: to_points(torch.randn(2, 3, 8, 12), tiles, points),
        lambda: to_points(x, tiles, torch.empty(36, 8, 4)),
        lambda: to_points(x, tiles, points.double()),
        lambda: to_points(x, tiles, torch.empty(36, 3, 8).mT),
        lambda: from_points(points[:, :4], tiles, x),
        lambda: from_points(points, of_inputs(F4, (2, 2), (-1, 0)), x),
        lambda: to_windows(x, windows, torch.empty(1, 128, 9)),
        lambda: from_windows(rows, Windows((3, 3), (0, 1), (1, 1), (1, 1), (8, 8), 1), x),
        lambda: to_rows(x, torch.empty(1, 128, 4)),
        lambda: from_rows(torch.empty(2, 128, 3), x),
    ):
        with pytest.raises(ValueError):
            refused()
