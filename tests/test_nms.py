"""Non-maximum suppression: ridges at all angles and places, what it keeps, and what it is for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("scipy")

from scipy import ndimage

from pixelnet_triton.metrics import boundary_counts, edge_nms
from pixelnet_triton.metrics.boundary_scores import best_counts, boundary_scores, stacked

SIZE = 64


def ridge(degrees: float, offset: float, sigma: float = 2.0) -> tuple[Tensor, Tensor]:
    """A straight Gaussian ridge, its normal at an angle, and each pixel's distance to its crest."""
    y, x = torch.meshgrid(*[torch.arange(SIZE, dtype=torch.float64)] * 2, indexing="ij")
    angle, centre = math.radians(degrees), (SIZE - 1) / 2
    distance = (x - centre) * math.cos(angle) + (y - centre) * math.sin(angle) - offset
    return torch.exp(-(distance**2) / (2 * sigma**2)), distance.abs()


@pytest.mark.parametrize("offset", [0.0, 0.3, 0.5])
@pytest.mark.parametrize("degrees", range(0, 180, 15))
def test_the_crest_of_a_ridge_is_kept(degrees: int, offset: float) -> None:
    """Every pixel nearest to the crest stays, and nothing that is more than a pixel away."""
    soft, distance = ridge(degrees, offset)
    kept = edge_nms(soft, border=0, tolerance=1.0 + 1e-9)
    inside = torch.zeros_like(soft, dtype=torch.bool)
    inside[6:-6, 6:-6] = True  # the orientation is less certain where the filters are mirrored
    lit = (kept > 0) & (soft > 0.01) & inside
    assert distance[lit].max() <= 1.0
    # Along the axis nearer to the ridge's direction, each line of pixels crosses it once.
    steep = 45 < degrees < 135
    crossings = lit.any(0 if steep else 1)[14:-14]
    assert crossings.all(), f"{int((~crossings).sum())} gaps"
    assert (lit.sum(0 if steep else 1)[14:-14] <= 2).all()


def test_values_on_the_crest_are_those_of_the_smoothed_map() -> None:
    soft, _ = ridge(0, 0.5)
    kept = edge_nms(soft, border=0)
    row = soft[32].numpy()
    smoothed = np.convolve(row, [0.25, 0.5, 0.25], mode="same")
    on = kept[32].numpy() > 0
    assert on[32]
    np.testing.assert_allclose(kept[32].numpy()[on][1:-1], smoothed[on][1:-1], rtol=1e-12)
    unsmoothed = edge_nms(soft, smoothing=0, border=0)[32]
    assert unsmoothed[32] == soft[32, 32]


def by_the_definition(edges: np.ndarray, radius: int = 1, tolerance: float = 1.01) -> np.ndarray:
    """The docstring's formulas in NumPy and SciPy, step by step; without the border."""

    def triangle(values: np.ndarray, r: int) -> np.ndarray:
        kernel = np.array([*range(1, r + 2), *range(r, 0, -1)]) / (r + 1) ** 2
        rows = ndimage.convolve1d(values, kernel, axis=0, mode="reflect")
        return ndimage.convolve1d(rows, kernel, axis=1, mode="reflect")

    smooth = triangle(edges, 1)
    s_y, s_x = np.gradient(triangle(smooth, 4))
    s_xy, s_xx = np.gradient(s_x)
    s_yy = np.gradient(s_y, axis=0)
    theta = np.arctan(s_yy * np.where(s_xy > 0, -1, 1) / (s_xx + 1e-5)) % np.pi
    height, width = edges.shape
    y, x = np.mgrid[:height, :width].astype(float)
    crest = np.ones(edges.shape, bool)
    for d in (d for d in range(-radius, radius + 1) if d != 0):
        at_y = np.clip(y + d * np.sin(theta), 0, height - 1.001)
        at_x = np.clip(x + d * np.cos(theta), 0, width - 1.001)
        crest &= tolerance * smooth >= ndimage.map_coordinates(smooth, [at_y, at_x], order=1)
    return np.where(crest, smooth, 0)


@pytest.mark.parametrize("options", [{}, {"radius": 3}, {"tolerance": 1.0}, {"tolerance": 1.2}])
@pytest.mark.parametrize("sigma", [1.0, 2.5])
def test_every_constant_is_the_toolboxs(sigma: float, options: dict) -> None:
    """Maps of no regularity: radii, signs and the 1e-5 decide which pixels are crests."""
    noise = np.random.default_rng(0).random((50, 70))
    edges = ndimage.gaussian_filter(noise, sigma)
    edges = (edges - edges.min()) / np.ptp(edges)
    expected = by_the_definition(edges, **options)
    assert 0.05 < (expected > 0).mean() < 0.95
    actual = edge_nms(torch.from_numpy(edges), border=0, **options).numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-12)
    faded = edge_nms(torch.from_numpy(edges), **options).numpy()
    np.testing.assert_allclose(faded[5:-5, 5:-5], expected[5:-5, 5:-5], atol=1e-12)


def test_the_border_fades() -> None:
    flat = torch.ones(20, 30)
    faded = edge_nms(flat)
    expected = torch.tensor([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    torch.testing.assert_close(faded[10, :6], expected)
    torch.testing.assert_close(faded[10].flip(0)[:6], expected)
    torch.testing.assert_close(faded[:6, 15], expected)
    torch.testing.assert_close(edge_nms(flat, border=0), flat)
    assert edge_nms(torch.ones(2, 3), border=5).shape == (2, 3)  # of at most half the size


def test_batches_types_and_layouts() -> None:
    maps = torch.stack([ridge(angle, 0.2)[0] for angle in (20, 70, 110, 160)]).view(
        2, 2, SIZE, SIZE
    )
    batched = edge_nms(maps)
    for i in range(2):
        for j in range(2):
            torch.testing.assert_close(batched[i, j], edge_nms(maps[i, j]), rtol=0, atol=0)
    torch.testing.assert_close(batched, edge_nms(maps.to(memory_format=torch.channels_last)))
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        half = edge_nms(maps.to(dtype))
        assert half.dtype == dtype
        assert 0.9 < ((half > 0.5) == (batched > 0.5)).double().mean() <= 1


def test_it_raises_ods_of_a_blurry_map() -> None:
    """Waves eight pixels apart, ever stronger to the right: one threshold for all of them either
    misses crests on the left or joins them on the right."""
    y, x = np.mgrid[:120, :160]
    phase = (y + 6 * np.sin(x / 20)) % 8 - 4
    blurry = np.exp(-(phase**2) / 32) * (0.3 + 0.7 * x / 160)
    truth = np.abs(phase) <= 0.5
    ods = {}
    for name, soft in (("raw", blurry), ("nms", edge_nms(torch.from_numpy(blurry)).numpy())):
        counts = stacked(boundary_counts(soft, [truth], 19))
        scores = boundary_scores(np.arange(1, 20) / 20, counts, best_counts(counts))
        ods[name] = scores["ods"].item()
    assert ods["nms"] > ods["raw"] + 0.1, ods


@pytest.mark.parametrize(
    ("edges", "options", "error", "message"),
    [
        (np.ones((8, 8)), {}, TypeError, "edges is ndarray; expected a floating"),
        (torch.ones(8, 8, dtype=torch.uint8), {}, TypeError, "edges is torch.uint8"),
        (torch.ones(8), {}, ValueError, r"edges has shape \(8,\)"),
        (torch.ones(8, 1), {}, ValueError, r"edges has shape \(8, 1\)"),
        (torch.ones(8, 8) / 0, {}, ValueError, "edges is NaN or infinite at 64 of 64 pixels"),
        (ridge(20, 0)[0].log() * torch.nan, {}, ValueError, r"of 4096 pixels.*nan_to_num"),
        (torch.ones(8, 8), {"tolerance": math.nan}, ValueError, "tolerance=nan; expected at least"),
        (torch.ones(8, 8), {"radius": 0}, ValueError, "radius=0; expected at least 1"),
        (torch.ones(8, 8), {"tolerance": 0.9}, ValueError, "tolerance=0.9"),
        (torch.ones(8, 8), {"border": -1}, ValueError, "border=-1"),
        (torch.ones(8, 8), {"smoothing": -1}, ValueError, "smoothing=-1"),
    ],
)
def test_bad_input(edges: Tensor, options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        edge_nms(edges, **options)
