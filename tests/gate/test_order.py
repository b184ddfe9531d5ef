"""Points in order, and the runs that kernels walk: exact, whatever the points."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pixelnet_triton.call import Sampling, layer_geometry

from .conftest import needs_kernels

pytestmark = needs_kernels
pytest.importorskip("triton")

from pixelnet_triton.kernels import order as order_module  # noqa: E402
from pixelnet_triton.kernels.band import band  # noqa: E402
from pixelnet_triton.kernels.order import Order, order_points  # noqa: E402
from pixelnet_triton.kernels.ruler import ruler_of, windows_of  # noqa: E402

SIZES = ((20, 26), (5, 7), (1, 1))
IMAGE = (40, 52)
NAN = float("nan")


def _points(kind: str, batch: int, count: int) -> Tensor:
    random = torch.Generator().manual_seed(3)
    points = torch.rand((batch * count, 2), generator=random) * torch.tensor([60.0, 50.0]) - 5
    if kind == "pixels":
        return points.clamp(0, 39).long()
    if kind == "one row":
        points[:, 1] = 17.25
    if kind == "reversed":
        points[:, 1] = torch.arange(len(points), 0, -1) * 39.0 / len(points)
    if kind == "far":
        points[::3] *= 1e30
    if kind == "not finite":
        points[1, 1], points[2, 0], points[4, 1] = NAN, float("inf"), -float("inf")
    return points


def _sampling(points: Tensor, batch: int, index: Tensor | None, device: torch.device) -> Sampling:
    maps = [torch.zeros(batch, 4, *size, device=device) for size in SIZES]
    geometry = layer_geometry(SIZES, IMAGE)
    return Sampling(maps, points.to(device), None if index is None else index.to(device), geometry)


def _bins(order: Order, points: Tensor) -> Tensor:
    scale, offset, bins = order.ruler
    y = torch.where(points.isfinite().all(1), points[:, 1].float(), 0.0)
    return (y * scale + offset).clamp(0, bins - 1).int()


@pytest.mark.parametrize("kind", ["floats", "pixels", "one row", "reversed", "far", "not finite"])
@pytest.mark.parametrize("count", [1, 40, 300])
@pytest.mark.parametrize("way", ["counted", "sorted", "ragged"])
def test_the_order_is_stable_and_by_image_and_bin(
    kind: str, count: int, way: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "not finite" and count == 1:
        pytest.skip("a case of five points")
    batch = 3
    points = _points(kind, batch, count)
    index = torch.arange(batch).repeat_interleave(count)
    if way == "ragged":
        index = index[torch.randperm(len(index), generator=torch.Generator().manual_seed(1))]
    if way == "sorted":
        monkeypatch.setattr(order_module, "MOST_COUNTED", 0)
    s = _sampling(points, batch, index if way == "ragged" else None, device)
    order = order_points(s)
    place, points = order.place.cpu(), points.cpu()
    key = index * order.ruler.spaces + _bins(order, points)
    assert torch.equal(place, torch.sort(key, stable=True).indices)
    assert torch.equal(order.xy.cpu().nan_to_num(7.0), points.float()[place].nan_to_num(7.0))
    if way == "ragged":
        assert order.image is not None
        assert torch.equal(order.image.cpu(), index[place])
    starts = order.starts.cpu()
    numbers = torch.arange(batch * order.ruler.spaces, dtype=key.dtype)
    assert torch.equal(starts.flatten(), torch.searchsorted(key[place], numbers))


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("options", [{}, {"align_corners": True}, {"interpolation": "nearest"}])
@pytest.mark.parametrize("image", [(40, 52), (1, 1), (333, 5)])
def test_a_window_holds_all_that_touch_its_rows(
    image: tuple[int, int], options: dict[str, Any], whole: bool
) -> None:
    sizes = (image, (20, 26), (7, 7), (1, 3), (64, 2))
    geometry = layer_geometry(sizes, image, **options)
    ruler = ruler_of(sizes, geometry.affine)
    random = torch.Generator().manual_seed(5)
    y = torch.rand(4000, generator=random) * image[0] * 1.4 - 0.2 * image[0]
    if whole:
        y = y.round().long()
    maps = [torch.zeros(1, 1, *size) for size in sizes]
    s = Sampling(maps, torch.stack([y, y], 1), None, geometry)
    bins = (y.float() * ruler.scale + ruler.offset).clamp(0, ruler.bins - 1).floor()
    windows = windows_of(s, ruler)
    for (rows, _), affine, window in zip(sizes, geometry.affine, windows, strict=True):
        t = (y.float() * affine[2] + affine[3]).clamp(0, rows - 1)
        for row in range(rows):
            near = (t - row).abs()
            touched = near < 1 if geometry.bilinear else near <= 0.5
            low, high = row * window.scale + window.low, row * window.scale + window.high
            inside = (bins >= math.floor(low)) & (bins <= math.floor(high))
            # Rows at the rim take all that lies beyond, as the kernel has it.
            if row not in (0, rows - 1):
                assert (inside | ~touched).all()


def test_whole_pixels_of_a_full_map_have_one_bin_a_row() -> None:
    s = _sampling(_points("pixels", 1, 9), 1, None, torch.device("cpu"))
    s = s._replace(geometry=layer_geometry([(40, 52)], IMAGE), features=[torch.zeros(1, 1, 40, 52)])
    ruler = ruler_of(s.sizes, s.geometry.affine)
    (window,) = windows_of(s, ruler)
    for row in range(40):
        low, high = row * window.scale + window.low, row * window.scale + window.high
        assert math.floor(low) == math.floor(high) == int(row * ruler.scale + ruler.offset)


def test_interpolation_knows_nothing_of_tf32(device: torch.device) -> None:
    """PyTorch's switches are for products."""
    s = _sampling(_points("random", 2, 40), 2, None, device)
    order = order_points(s)
    rows = torch.randn(80, 12, generator=torch.Generator().manual_seed(0)).to(device)
    sums = []
    for precision in ("highest", "high"):
        torch.set_float32_matmul_precision(precision)
        try:
            again = s._replace(features=[torch.empty_like(m) for m in s.features])
            band(rows, [0, 4, 8], again, order)
        finally:
            torch.set_float32_matmul_precision("highest")
        sums.append(again.features)
    for single, other in zip(*sums, strict=True):
        assert torch.equal(single, other)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy's, in the interpreter
def test_bad_gradients_stay_with_the_cells_that_see_them(device: torch.device) -> None:
    points = _points("pixels", 2, 40)
    s = _sampling(points, 2, None, device)
    s = s._replace(features=[torch.full_like(m, NAN) for m in s.features])
    order = order_points(s)
    rows = torch.randn(80, 12, generator=torch.Generator().manual_seed(0))
    rows[5, 3], rows[50, 6] = NAN, float("inf")
    band(rows.to(device)[order.place], [0, 4, 8], s, order)
    good = torch.nan_to_num(rows, 0.0, 0.0, 0.0)
    again = s._replace(features=[torch.empty_like(m) for m in s.features])
    band(good.to(device)[order.place], [0, 4, 8], again, order)
    for layer, (bad, clean) in enumerate(zip(s.features, again.features, strict=True)):
        wrong = ~bad.isfinite()
        assert wrong.any() == (layer < 2)
        torch.testing.assert_close(bad[~wrong], clean[~wrong])
        for point, column in ((5, 3), (50, 6)):
            image, channel = point // 40, column - 4 * layer
            if not 0 <= channel < 4:
                continue
            seen = wrong[image, channel].nonzero().cpu().float()
            affine = s.geometry.affine[layer]
            t = points[point].flip(0).float() * torch.tensor([affine[2], affine[0]])
            t = t + torch.tensor([affine[3], affine[1]])
            t = torch.minimum(t.clamp(min=0), torch.tensor(SIZES[layer]) - 1.0)
            assert ((seen - t).abs() < 1).all()
            assert not wrong[1 - image, channel].any()


def test_outermost_rows_take_what_lies_beyond_them(device: torch.device) -> None:
    """Of a map that covers a part of the image: with border padding all weights add up to 1."""
    sizes, image = ((320, 3), (70, 3)), (320, 12)
    geometry = layer_geometry(sizes, image, strides=[(1, 4), (4, 4)])
    random = torch.Generator().manual_seed(0)
    points = torch.rand((90, 2), generator=random) * torch.tensor([12.0, 330.0]) - 5
    rows = torch.randn(90, 4, generator=random)
    maps = [torch.full((1, 4, *size), NAN, device=device) for size in sizes]
    s = Sampling(maps, points.to(device), None, geometry)
    order = order_points(s)
    band(rows.to(device)[order.place], None, s, order)
    for summed in maps:
        torch.testing.assert_close(summed.sum((0, 2, 3)).cpu(), rows.sum(0))


def test_the_same_bits_at_every_call(device: torch.device) -> None:
    points = _points("floats", 2, 300)
    s = _sampling(points, 2, None, device)
    rows = torch.randn(600, 12, generator=torch.Generator().manual_seed(0)).to(device)
    found = []
    for _ in range(3):
        order = order_points(s)
        targets = s._replace(features=[torch.empty_like(m) for m in s.features])
        band(rows[order.place], [0, 4, 8], targets, order)
        found.append(torch.cat([m.flatten() for m in targets.features]))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
