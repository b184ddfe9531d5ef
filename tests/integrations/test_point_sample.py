"""The PointRend functions against detectron2's definitions, which are written out here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pixelnet_triton.integrations import (
    point_features,
    point_sample,
    point_sample_fine_grained_features,
)
from pixelnet_triton.integrations.export import export

from ..conftest import takes_float64
from ..tolerances import assert_close_to_reference
from .transcribed import Boxes, detectron2_fine_grained, detectron2_point_sample


def inputs(*grid: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A map of 2 images, and points of which some lie outside of it."""
    random = torch.Generator().manual_seed(seed)
    feature = torch.randn(2, 5, 6, 8, generator=random, dtype=torch.float64)
    points = 1.2 * torch.rand(2, *grid, 2, generator=random, dtype=torch.float64) - 0.1
    return feature.to(dtype), points.to(dtype)


def with_gradients(function: Any, *tensors: Tensor, **kwargs: Any) -> list[Tensor]:
    """The value, and the gradient of each tensor for a fixed upstream gradient."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    value = function(*leaves, **kwargs)
    random = torch.Generator().manual_seed(1)
    upstream = torch.randn(value.shape, generator=random, dtype=torch.float64).to(value.dtype)
    return [value.detach(), *torch.autograd.grad(value, leaves, upstream)]


GRIDS = [(40,), (5, 7)]
SAMPLING = [
    {},  # grid_sample's own defaults, without a warning
    {"align_corners": False},
    {"align_corners": True},
    {"align_corners": False, "padding_mode": "border"},
    {"align_corners": True, "padding_mode": "border"},
    {"align_corners": False, "mode": "nearest"},
    {"align_corners": False, "padding_mode": "reflection"},
    {"align_corners": True, "mode": "bicubic"},
]


@pytest.mark.parametrize("grid", GRIDS, ids=["list", "grid"])
@pytest.mark.parametrize("kwargs", SAMPLING, ids=str)
def test_is_grid_sample(kwargs: dict[str, Any], grid: tuple[int, ...]) -> None:
    """Value and both gradients; the plain expression sets the tolerance."""
    feature, points = inputs(*grid)
    definition = {"align_corners": False} | kwargs
    expected = with_gradients(
        detectron2_point_sample, feature.double(), points.double(), **definition
    )
    plain = with_gradients(detectron2_point_sample, feature, points, **definition)
    actual = with_gradients(point_sample, feature, points, **kwargs)
    for name, ours, theirs, exact in zip(
        ("value", "input", "coordinates"), actual, plain, expected, strict=True
    ):
        assert ours.dtype == theirs.dtype
        assert_close_to_reference(ours, exact, theirs, dtype=torch.float32, name=name)


@pytest.mark.parametrize("grid", GRIDS, ids=["list", "grid"])
def test_is_grid_sample_in_double_precision(grid: tuple[int, ...]) -> None:
    feature, points = inputs(*grid, dtype=torch.float64)
    if not takes_float64(feature.device):
        pytest.skip("float64 is computed on the CPU alone")
    expected = with_gradients(detectron2_point_sample, feature, points, align_corners=False)
    torch.testing.assert_close(with_gradients(point_sample, feature, points), expected)


def test_align_corners_may_be_positional_as_in_mmcv() -> None:
    feature, points = inputs(9)
    expected = detectron2_point_sample(feature, points, align_corners=True)
    torch.testing.assert_close(point_sample(feature, points, True), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_maps_keep_precise_positions(dtype: torch.dtype) -> None:
    """Pixel 1001 of 2048; bfloat16 coordinates would have eight bits for it."""
    ramp = (torch.arange(2048.0) % 2).to(dtype).reshape(1, 1, 1, -1)
    points = torch.tensor([[[1001.5 / 2048, 0.5], [1000.5 / 2048, 0.5]]])
    assert point_sample(ramp, points).flatten().tolist() == [1.0, 0.0]


def test_autocast_gives_the_dtype_of_grid_sample() -> None:
    feature, points = inputs(9)
    with torch.autocast("cpu", torch.bfloat16):
        expected = detectron2_point_sample(feature, points, align_corners=False)
        actual = point_sample(feature, points)
        half = point_sample(feature.bfloat16(), points)
        mixed = point_features([feature, feature.bfloat16()], points)
    assert actual.dtype == half.dtype == mixed.dtype == expected.dtype == torch.float32
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(half, expected, rtol=0.02, atol=0.02)  # the map itself was rounded
    torch.testing.assert_close(mixed[:, :5], expected)


@pytest.mark.filterwarnings("ignore:points is torch")  # half coordinates are imprecise
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_autocast_of_half_coordinates(dtype: torch.dtype) -> None:
    feature, points = (tensor.to(dtype) for tensor in inputs(9))
    with torch.autocast("cpu", torch.bfloat16):
        expected = detectron2_point_sample(feature, points, align_corners=False)
        assert point_sample(feature, points).dtype == expected.dtype
        assert point_sample(feature.float(), points).dtype == expected.dtype


def test_autocast_keeps_labels() -> None:
    """2 ** 24 + 1 is no number of float32."""
    labels, points = torch.full((2, 1, 4, 4), 2**24 + 1), torch.rand(2, 3, 2)
    with torch.autocast("cpu", torch.bfloat16):
        for value in (
            point_sample(labels, points, mode="nearest"),
            point_features([labels], points, mode="nearest"),
        ):
            assert value.dtype == torch.int64
            assert (value == 2**24 + 1).all()
        assert point_sample(labels > 0, points, mode="nearest").dtype == torch.bool


def test_no_points() -> None:
    feature, _ = inputs(1)
    assert point_sample(feature, torch.rand(2, 0, 2)).shape == (2, 5, 0)
    assert point_sample(feature, torch.rand(2, 3, 0, 2)).shape == (2, 5, 3, 0)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("grid", GRIDS, ids=["list", "grid"])
def test_features_of_a_list_of_maps(grid: tuple[int, ...], align_corners: bool) -> None:
    """`_get_fine_grained_point_feats` of mmsegmentation."""
    _, points = inputs(*grid)
    maps = [torch.randn(2, 3, 6, 8), torch.randn(2, 7, 3, 4), torch.randn(2, 1, 1, 1)]
    expected = torch.cat(
        [detectron2_point_sample(f, points, align_corners=align_corners) for f in maps], dim=1
    )
    torch.testing.assert_close(point_features(maps, points, align_corners), expected)


@pytest.mark.parametrize("count", [11, 0], ids=["points", "no-points"])
@pytest.mark.parametrize("counts", [[2, 0, 3], [0, 0, 0]], ids=["some", "none"])
@pytest.mark.parametrize("wrap", [Boxes, lambda tensor: tensor], ids=["Boxes", "tensors"])
def test_fine_grained_features_of_boxes(wrap: Any, counts: list[int], count: int) -> None:
    """Boxes of unequal number, images without any, and a map padded beyond its scale."""
    random = torch.Generator().manual_seed(0)
    maps = [
        torch.randn(3, 4, 13, 17, generator=random, requires_grad=True),
        torch.randn(3, 2, 7, 9, generator=random, requires_grad=True),
    ]
    scales = [1 / 4, 1 / 8]
    corners = torch.rand(sum(counts), 4, generator=random) * 30
    corners[:, 2:] += corners[:, :2] + 1
    boxes = [Boxes(b) for b in corners.split(counts)]
    points = torch.rand(sum(counts), count, 2, generator=random)
    expected, in_image = detectron2_fine_grained(maps, scales, boxes, points)
    actual, ours = point_sample_fine_grained_features(
        maps, scales, [wrap(b.tensor) for b in boxes], points
    )
    torch.testing.assert_close(ours, in_image)
    torch.testing.assert_close(actual, expected)
    upstream = torch.randn(expected.shape, generator=random)
    torch.testing.assert_close(
        torch.autograd.grad(actual, maps, upstream), torch.autograd.grad(expected, maps, upstream)
    )


class _FineGrained(nn.Module):
    def forward(self, maps: list[Tensor], boxes: list[Tensor], points: Tensor) -> Tensor:
        return point_sample_fine_grained_features(maps, [1 / 4, 1 / 8], boxes, points)[0]


def test_fine_grained_features_are_traced() -> None:
    """The number of boxes of each image is no value that a graph would have to read."""
    maps = [torch.randn(2, 4, 8, 8), torch.randn(2, 3, 4, 4)]
    boxes = [torch.tensor([[0.0, 0, 10, 10], [3, 3, 20, 20]]), torch.tensor([[1.0, 2, 13, 14]])]
    module, arguments = _FineGrained(), (maps, boxes, torch.rand(3, 5, 2))
    expected = module(*arguments)
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*arguments), expected)
    program = export(module, arguments)
    torch.testing.assert_close(program.module()(*arguments), expected)


BAD = [
    (lambda f, p: point_sample([f], p), TypeError, r"input is a list; .* point_features"),
    (lambda f, p: point_sample(f[0], p), ValueError, r"features\[0\] has shape \(5, 6, 8\)"),
    (lambda f, p: point_sample(f, p[0]), ValueError, r"point_coords has shape \(9, 2\); expected"),
    (lambda f, p: point_sample(f, p.long()), TypeError, "point_coords is torch.int64; .*floating"),
    (lambda f, p: point_sample(f, p.tolist()), TypeError, "point_coords is a list; expected a"),
    (lambda f, p: point_sample(f, p[:1]), ValueError, "points has shape .* hold 2 images"),
    (lambda f, p: point_sample(f, p, mode="area"), ValueError, "mode='area' is unknown; use one"),
    (lambda f, p: point_sample(f, p, padding_mode="wrap"), ValueError, "padding_mode='wrap' is un"),
    (lambda f, p: point_sample(f, p * float("nan")), ValueError, "coordinates must be finite"),
    (lambda f, p: point_features([f], p, mode="bicubic"), ValueError, "point_sample alone"),
    (lambda f, p: point_features(f, p), TypeError, r"features is a Tensor; expected a list"),
    (lambda f, p: point_features({"f": f}, p), TypeError, r"features is a dict; expected a list"),
    (lambda f, p: point_features((f for _ in "f"), p), TypeError, r"features is a generator"),
    (lambda f, p: point_features([None], p), TypeError, r"features\[0\] is a NoneType"),
    (lambda f, p: point_features([], p), ValueError, r"features is empty"),
]


@pytest.mark.parametrize("autocast", [False, True], ids=["", "autocast"])
@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[row[2][:30] for row in BAD])
def test_bad_calls(call: Any, error: type[Exception], message: str, autocast: bool) -> None:
    feature, points = inputs(9)
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
        pytest.raises(error, match=message),
    ):
        call(feature, points)


BAD_BOXES: list[tuple[dict[str, Any], str]] = [
    ({"features_list": {"p2": None}}, "features_list is a dict; .*list of maps"),
    ({"features_list": [None, None]}, r"features_list\[0\] is a NoneType; expected a torch"),
    ({"feature_scales": [0.25, 0]}, r"feature_scales\[1\]=0; expected a positive number"),
    ({"feature_scales": [0.25, "p3"]}, r"feature_scales\[1\]='p3'; expected a positive number"),
    ({"boxes": None}, "boxes is a NoneType; expected a list, one"),
    ({"point_coords": [[0.5, 0.5]]}, "point_coords is a list; expected a torch"),
    ({"feature_scales": [0.25]}, "feature_scales has 1 entries for 2 maps"),
    ({"boxes": [torch.zeros(2, 4)]}, "boxes has 1 entries but features_list holds 2 images"),
    ({"boxes": [torch.zeros(2, 4), torch.zeros(2, 5)]}, r"boxes\[1\] is \(2, 5\); expected"),
    ({"boxes": [None, torch.zeros(2, 4)]}, r"boxes\[0\] is NoneType; expected a tensor"),
    ({"point_coords": torch.rand(3, 5, 2)}, r"point_coords has shape \(3, 5, 2\); expected \(4, P"),
    ({"features_list": [], "feature_scales": []}, "features_list holds 0 images"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_BOXES, ids=[row[1][:30] for row in BAD_BOXES])
def test_bad_boxes(changes: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "features_list": [torch.randn(2, 3, 8, 8), torch.randn(2, 3, 4, 4)],
        "feature_scales": [1 / 4, 1 / 8],
        "boxes": [torch.zeros(2, 4), torch.zeros(2, 4)],
        "point_coords": torch.rand(4, 5, 2),
    }
    with pytest.raises((TypeError, ValueError), match=message):
        point_sample_fine_grained_features(**good | changes)


@pytest.mark.parametrize("size", [(16, 16), (12, 20)], ids=["square", "oblong"])
def test_many_points_of_one_channel_are_the_bits_of_grid_sample(size: tuple[int, int]) -> None:
    """Mask2Former's loss: one mask an image, thousands of points. The grid is exact, or 2 p - 1."""
    masks, points = torch.randn(40, 1, *size), 1.2 * torch.rand(40, 12544, 2) - 0.1
    expected = with_gradients(detectron2_point_sample, masks, points, align_corners=False)
    actual = with_gradients(point_sample, masks, points)
    assert torch.equal(actual[0], expected[0])
    assert_close_to_reference(
        actual[1],
        with_gradients(
            detectron2_point_sample, masks.double(), points.double(), align_corners=False
        )[1],
        expected[1],
        dtype=torch.float32,
        name="masks",
    )
