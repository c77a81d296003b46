"""What Winograd promises beyond being right: exact matrices, chunks that do not show, a known precision."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F

from tempo.errors import UsageError
from tempo.kernels import plain_images
from tempo.kernels.tiles import Matrix, of_inputs, of_outputs
from tempo.lowering import ConvShape, Winograd
from tempo.lowering.winograd import F2, F4, Transforms


@pytest.mark.parametrize("t", [F2, F4], ids=["F(2,3)", "F(4,3)"])
def test_matrices_are_exact(t: Transforms) -> None:
    """A^T [(G g) * (B^T d)] is the convolution, in rationals, for every pair of unit vectors g and d."""

    def exact(rows: Matrix) -> list[list[Fraction]]:
        return [[Fraction(v).limit_denominator(24) for v in row] for row in rows]

    b, g, a = exact(t.b), exact(t.g), exact(t.a)
    for pixel in range(t.m + 2):
        for tap in range(3):
            points = [g[p][tap] * b[p][pixel] for p in range(t.m + 2)]
            y = [sum(a[i][p] * points[p] for p in range(t.m + 2)) for i in range(t.m)]
            assert y == [1 if pixel == i + tap else 0 for i in range(t.m)]


@pytest.mark.parametrize("t", [F2, F4], ids=["F(2,3)", "F(4,3)"])
def test_chunks_do_not_show(t: Transforms, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut into one image, three (5 leaves a ragged last chunk) or all at once: the same tensors."""
    x, dy = torch.randn(5, 3, 11, 8).double(), torch.randn(5, 4, 9, 6).double()
    grid, points = (-(-9 // t.m), -(-6 // t.m)), (t.m + 2) ** 2
    per_image = points * grid[0] * grid[1]
    results = []
    for images in (1, 3, 100):
        monkeypatch.setattr(plain_images, "CHUNK", images * per_image * 4)
        there_and_back = []
        for image, tiles in ((x, of_inputs(t, grid, (0, 0))), (dy, of_outputs(t, grid))):
            out = image.new_empty(points, 5 * grid[0] * grid[1], image.shape[1])
            plain_images.to_points(image, tiles, out)
            back = torch.empty_like(image)
            plain_images.from_points(out, tiles, back)
            there_and_back += [out, back]
        results.append(there_and_back)
    for other in results[1:]:
        for ours, theirs in zip(results[0], other, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("t", "allowed", "too_good"), [(F2, 1e-5, 1e-8), (F4, 1e-4, 1e-6)], ids=["F2", "F4"])
def test_float32_error_relative_to_the_output(t: Transforms, allowed: float, too_good: float) -> None:
    """Largest error over the root mean square of y. Far below the band, the test would measure nothing."""
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(4, 64, 14, 14, generator=generator), torch.randn(64, 64, 3, 3, generator=generator)
    lowering = Winograd(ConvShape.of(x.shape, w.shape, padding=1), t)
    y = lowering.raise_y(torch.bmm(lowering.lower_x(x), lowering.lower_w(w).mT))
    exact = F.conv2d(x.double(), w.double(), padding=1)
    error = (y - exact).abs().max() / exact.square().mean().sqrt()
    assert too_good < error < allowed


def test_points_are_contiguous_in_the_operands_type() -> None:
    for dtype in (torch.float32, torch.float64):
        x = torch.randn(2, 5, 8, 8, dtype=dtype).to(memory_format=torch.channels_last)
        lowering = Winograd(ConvShape.of(x.shape, (3, 5, 3, 3), padding=1), F4)
        points = lowering.lower_x(x)
        assert (points.dtype, points.shape) == (dtype, (36, 8, 5))
        assert points.is_contiguous()
        assert lowering.lower_w(torch.randn(3, 5, 3, 3, dtype=dtype)).is_contiguous()


@pytest.mark.parametrize("options", [{"stride": 2}, {"dilation": 2}, {"groups": 2}], ids=str)
def test_refuses_what_it_cannot_lower(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="Winograd takes"):
        Winograd(ConvShape.of((1, 4, 9, 9), (4, 4 // options.get("groups", 1), 3, 3), **options), F2)
