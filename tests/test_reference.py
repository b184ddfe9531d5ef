"""The reference is the judge of everything else, so it is held against other judges here."""

from __future__ import annotations

import doctest
import importlib
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pixelnet_triton.reference import (
    dense_hypercolumn,
    dense_linear,
    layer_positions,
    masked_dense_linear,
    sparse_hypercolumn,
)

SIZES = [(7, 13), (4, 6), (1, 5), (1, 1)]
IMAGE = (15, 27)


def maps(*sizes: tuple[int, int], batch: int = 2, channels: int = 3) -> list[Tensor]:
    return [torch.randn(batch, channels, *size, dtype=torch.float64) for size in sizes]


def all_pixels(image_size: tuple[int, int], batch: int) -> Tensor:
    """(B, H * W, 2) of (x, y), row by row."""
    height, width = image_size
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(1, -1, 2).expand(batch, -1, -1)


def as_image(rows: Tensor, image_size: tuple[int, int]) -> Tensor:
    """(B, H * W, C) -> (B, C, H, W)"""
    return rows.transpose(1, 2).unflatten(2, image_size)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("padding_mode", ["border", "zeros"])
@pytest.mark.parametrize("align_corners", [False, True], ids=["edges", "corners"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_is_grid_sample_in_normalized_coordinates(
    size: tuple[int, int], align_corners: bool, padding_mode: str, mode: str
) -> None:
    feature = maps(size)[0].requires_grad_()
    points = (3 * torch.rand(2, 50, 2, dtype=torch.float64) - 1.5).requires_grad_()
    expected = F.grid_sample(feature, points[:, None], mode, padding_mode, align_corners)
    actual = sparse_hypercolumn(
        [feature],
        points,
        IMAGE,
        interpolation=mode,
        padding_mode=padding_mode,
        align_corners=align_corners,
        coordinates="normalized",
    )
    torch.testing.assert_close(actual, expected[:, :, 0].transpose(1, 2))

    grad = torch.randn_like(actual)
    wanted = (feature, points)
    expected_grads = torch.autograd.grad(expected[:, :, 0].transpose(1, 2), wanted, grad)
    grads = torch.autograd.grad(actual, wanted, grad, allow_unused=True, materialize_grads=True)
    for ours, theirs in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("padding_mode", ["border", "zeros"])
def test_derivative_at_cell_centres_and_borders_is_grid_samples(padding_mode: str) -> None:
    # Positions with an exact binary form, so that both programs see the very same steps.
    feature = maps((4, 4))[0][:1]
    x, y = torch.meshgrid(*2 * [torch.arange(-1.0, 5.0, 0.5, dtype=torch.float64)], indexing="ij")
    pixels = torch.stack([x, y], dim=-1).reshape(1, -1, 2).requires_grad_()
    grid = (2 * pixels + 1) / 4 - 1
    grad = torch.randn(1, pixels.shape[1], 3, dtype=torch.float64)
    expected = F.grid_sample(feature, grid[:, None], "bilinear", padding_mode, False)
    (expected_grad,) = torch.autograd.grad(expected[:, :, 0].transpose(1, 2), pixels, grad)
    actual = sparse_hypercolumn([feature], pixels, (4, 4), padding_mode=padding_mode)
    (actual_grad,) = torch.autograd.grad(actual, pixels, grad)
    torch.testing.assert_close(actual_grad, expected_grad)
    assert (actual_grad != 0).any()


@pytest.mark.parametrize("align_corners", [False, True], ids=["edges", "corners"])
@pytest.mark.parametrize("image_size", [(15, 27), (8, 12), (3, 2)], ids=str)
def test_is_interpolate_at_every_pixel(image_size: tuple[int, int], align_corners: bool) -> None:
    features = maps(*SIZES)
    rows = sparse_hypercolumn(
        features, all_pixels(image_size, 2), image_size, align_corners=align_corners
    )
    expected = torch.cat(
        [
            F.interpolate(f, image_size, mode="bilinear", align_corners=align_corners)
            for f in features
        ],
        dim=1,
    )
    torch.testing.assert_close(as_image(rows, image_size), expected)


@pytest.mark.parametrize("stride", [1, 2, 4, 8, 16, 32])
def test_is_the_authors_layer_on_a_padded_canvas(stride: int) -> None:
    """(x - (s - 1) / 2) / s, clamped to the map, written out for a single channel.

    The canvas is padded to a multiple of the stride: the map is no exact fraction of the image.
    """
    height, width = 45, 70
    rows, columns = math.ceil(height / stride), math.ceil(width / stride)
    feature = maps((rows, columns), batch=1, channels=1)[0]
    values = feature[0, 0].tolist()

    def along(x: int, cells: int) -> tuple[int, int, float]:
        t = (x - (stride - 1) / 2) / stride
        t = min(max(t, 0.0), cells - 1.0)
        first = math.floor(t)
        return first, min(first + 1, cells - 1), t - first

    points = [[x, y] for y in (0, 1, 17, height - 1) for x in (0, 1, 2, 33, width - 2, width - 1)]
    expected = []
    for x, y in points:
        left, right, fx = along(x, columns)
        top, bottom, fy = along(y, rows)
        upper = (1 - fx) * values[top][left] + fx * values[top][right]
        lower = (1 - fx) * values[bottom][left] + fx * values[bottom][right]
        expected.append((1 - fy) * upper + fy * lower)
    actual = sparse_hypercolumn(
        [feature], torch.tensor([points]), (height, width), strides=[stride]
    )
    torch.testing.assert_close(actual[0, :, 0], torch.tensor(expected, dtype=torch.float64))


OPTIONS: dict[str, dict[str, Any]] = {
    "ratio": {},
    "corners": {"align_corners": True},
    "zeros": {"padding_mode": "zeros"},
    "corners-zeros": {"align_corners": True, "padding_mode": "zeros"},
    "strides": {"strides": [2, (4, 5.0), 16, 30]},
    "strides-zeros": {"strides": [2, (4, 5.0), 16, 30], "padding_mode": "zeros"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_dense_definition_agrees_with_the_sparse_one(options: dict[str, Any]) -> None:
    features = maps(*SIZES)
    weight, bias = torch.randn(5, 12, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    everywhere = all_pixels(IMAGE, 2)

    rows = sparse_hypercolumn(features, everywhere, IMAGE, **options)
    torch.testing.assert_close(dense_hypercolumn(features, IMAGE, **options), as_image(rows, IMAGE))

    layer = {"weight": weight, "bias": bias, "activation": "relu"}
    rows = sparse_hypercolumn(features, everywhere, IMAGE, **layer, **options)
    torch.testing.assert_close(
        dense_linear(features, IMAGE, **layer, **options), as_image(rows, IMAGE)
    )

    sampled = torch.randint(15, (2, 20, 2))
    torch.testing.assert_close(
        masked_dense_linear(features, sampled, IMAGE, **layer, **options),
        sparse_hypercolumn(features, sampled, IMAGE, **layer, **options),
    )


def test_interpolation_matrices_are_interpolate_where_both_apply() -> None:
    features = maps((8, 14), (4, 7))
    torch.testing.assert_close(
        dense_hypercolumn(features, (16, 28), strides=[2, 4]),
        dense_hypercolumn(features, (16, 28)),
    )


@pytest.mark.parametrize("align_corners", [False, True], ids=["edges", "corners"])
def test_coordinate_conventions_name_the_same_places(align_corners: bool) -> None:
    height, width = IMAGE
    share = torch.rand(40, 2, dtype=torch.float64)
    size = torch.tensor([width, height], dtype=torch.float64)
    pixels = share * (size - 1) if align_corners else share * size - 0.5
    named = {"pixel": pixels, "unit": share, "normalized": 2 * share - 1}
    positions = {
        convention: layer_positions(
            points, SIZES, IMAGE, align_corners=align_corners, coordinates=convention
        )
        for convention, points in named.items()
    }
    torch.testing.assert_close(positions["unit"], positions["pixel"])
    torch.testing.assert_close(positions["normalized"], positions["pixel"])


def test_ragged_points_are_the_uniform_ones_in_any_order() -> None:
    features, points = maps(*SIZES), 15 * torch.rand(2, 9, 2, dtype=torch.float64)
    order = torch.randperm(18)
    image = torch.arange(2, dtype=torch.int32).repeat_interleave(9)
    ragged = sparse_hypercolumn(
        features, points.reshape(-1, 2)[order], IMAGE, batch_index=image[order]
    )
    uniform = sparse_hypercolumn(features, points, IMAGE)
    torch.testing.assert_close(ragged, uniform.flatten(0, 1)[order], rtol=0, atol=0)


@pytest.mark.parametrize("far", [-1e30, 1e30], ids=["low", "high"])
def test_far_away_points(far: float) -> None:
    feature = maps((4, 6), batch=1)[0]
    points = torch.tensor([[[far, far]]])
    corner = feature[0, :, 0, 0] if far < 0 else feature[0, :, -1, -1]
    for mode in ("bilinear", "nearest"):
        border = sparse_hypercolumn([feature], points, (8, 12), interpolation=mode)
        zeros = sparse_hypercolumn(
            [feature], points, (8, 12), interpolation=mode, padding_mode="zeros"
        )
        torch.testing.assert_close(border[0, 0], corner)
        assert torch.equal(zeros[0, 0], torch.zeros(3, dtype=torch.float64))


def test_gradients_of_every_order_by_finite_differences() -> None:
    features = [f[:, :2].clone().requires_grad_() for f in maps((3, 4), (2, 2), batch=1)]
    points = torch.tensor([[[0.3, 1.7], [3.1, 2.2]]], dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)

    def call(points: Tensor, weight: Tensor, bias: Tensor, *features: Tensor) -> Tensor:
        return sparse_hypercolumn(
            features, points, (6, 8), weight=weight, bias=bias, activation="gelu"
        )

    assert torch.autograd.gradcheck(call, (points, weight, bias, *features))
    assert torch.autograd.gradgradcheck(call, (points, weight, bias, *features))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_rounded_once_at_the_end(dtype: torch.dtype) -> None:
    features = [f.to(dtype) for f in maps(*SIZES)]
    weight = torch.randn(5, 12).to(dtype)
    points = 15 * torch.rand(2, 9, 2)
    actual = sparse_hypercolumn(features, points, IMAGE, weight=weight)
    single = sparse_hypercolumn([f.float() for f in features], points, IMAGE, weight=weight.float())
    assert actual.dtype == dtype
    assert torch.equal(actual, single.to(dtype))


@pytest.mark.parametrize("module", ["hypercolumn", "dense"])
def test_examples_in_the_docstrings(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"pixelnet_triton.reference.{module}"))
    assert result.attempted > 0
    assert result.failed == 0
