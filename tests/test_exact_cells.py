"""What needs no interpolation: a cell whose centre a point meets, and points far outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pixelnet_triton import sparse_hypercolumn
from pixelnet_triton.call.geometry import layer_geometry
from pixelnet_triton.integrations.export import plain_sparse_hypercolumn
from pixelnet_triton.reference import sparse_hypercolumn as reference_hypercolumn

from .cases import Case, Inputs
from .planning import PREFERENCES, forced_plan

Function = Callable[..., Tensor]


@pytest.fixture(autouse=True)
def _cpu_only(device: torch.device) -> None:
    if device.type != "cpu":
        pytest.skip("about the routes of the CPU")


def exported(features: Any, points: Tensor, size: tuple[int, int], **options: Any) -> Tensor:
    """What a call becomes in an exported program."""
    sizes = [tuple(feature.shape[2:]) for feature in features]
    flat = layer_geometry(sizes, size, **options).flat()
    padding = options.get("padding_mode", "border")
    settings = (flat, "bilinear", padding, None, "auto", False, False)
    rows = plain_sparse_hypercolumn(points.flatten(0, 1), None, None, None, features, *settings)
    return rows.unflatten(0, points.shape[:2])


def by_route(name: str) -> Function:
    """The call with all layers gathered by a route of PREFERENCES."""

    def call(features: Any, points: Tensor, size: tuple[int, int], **options: Any) -> Tensor:
        case = Case("forced", batch=len(points), image_size=size)
        inputs = Inputs(case, features, points, None, None, None, options)
        inputs.moving_points = points.requires_grad
        training = points.requires_grad or any(f.requires_grad for f in features)
        plan = forced_plan(inputs, name, training)
        if plan is None:
            pytest.skip("not open to such a call")
        return sparse_hypercolumn(features, points, size, plan=plan, **options)

    return call


FUNCTIONS = {
    "auto": sparse_hypercolumn,
    **{name: by_route(name) for name in PREFERENCES},
    "exported": exported,
    "reference": reference_hypercolumn,
}
functions = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)

# A map as fine as the image and others of even, odd and fractional strides, at the coordinates of
# the centres of their cells. 1733 is no power of two: `grid_sample` misses most of its pixels.
SIZE = (3, 1733)
CENTRES = {
    "full": ((3, 1733), 1, lambda cell: cell),
    "stride-3": ((1, 577), 3, lambda cell: 3 * cell + 1),
    "stride-14": ((1, 123), 14, lambda cell: 14 * cell + 6.5),
    "stride-2": ((2, 866), 2, lambda cell: 2 * cell + 0.5),
    "upsampled": ((6, 3466), 0.5, lambda cell: cell / 2 - 0.25),
}


@functions
@pytest.mark.parametrize("padding_mode", ["border", "zeros"])
@pytest.mark.parametrize("channels", [1, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", CENTRES)
def test_a_cell_is_its_value_bit_for_bit(
    name: str, dtype: torch.dtype, channels: int, padding_mode: str, function: Function
) -> None:
    (height, width), stride, centre = CENTRES[name]
    # large and small cells side by side: a thousandth of a neighbour is no rounding error
    ids = torch.randint(0, 2, (1, channels, height, width)) * 100_000 + torch.rand(height, width)
    feature = ids.to(dtype).requires_grad_()
    cells = torch.stack([torch.randint(0, n, (300,)) for n in (width, height)], -1)
    points = centre(cells)[None]  # integers remain such
    strides = {"strides": [stride], "padding_mode": padding_mode}
    value = function([feature], points, SIZE, **strides)[0]
    assert torch.equal(value, feature[0, :, cells[:, 1], cells[:, 0]].T)
    # and all of the gradient goes to those cells
    (gradient,) = torch.autograd.grad(value.sum(), feature)
    counts = torch.zeros(height, width).index_put_(
        (cells[:, 1], cells[:, 0]), torch.ones(300), accumulate=True
    )
    assert torch.equal(gradient, counts.to(dtype).expand_as(gradient))


@functions
def test_cells_are_met_among_points_that_meet_none(function: Function) -> None:
    features = [
        (torch.rand(2, c, *hw) * 1e5).requires_grad_() for c, hw in ((5, (9, 11)), (3, (3, 4)))
    ]
    between = torch.rand(2, 6, 2) * 8 + 0.25
    met = torch.tensor([[3.0, 4.0], [10.0, 8.0], [0.0, 0.0], [4.0, 1.0]]).expand(2, -1, -1)
    points = torch.cat([between, met, between + 0.5], 1)
    value = function(features, points, (9, 11), strides=[1, 3])
    cells = met[0].long()
    expected = features[0][:, :, cells[:, 1], cells[:, 0]].transpose(1, 2)
    assert torch.equal(value[:, 6:10, :5], expected)
    assert torch.equal(value[:, 9, 5:], features[1][:, :, 0, 1])
    doubles = [feature.double() for feature in features]
    right = reference_hypercolumn(doubles, points, (9, 11), strides=[1, 3])
    torch.testing.assert_close(value.double(), right, rtol=1e-5, atol=1)


@functions
@pytest.mark.parametrize("padding_mode", ["border", "zeros"])
@pytest.mark.parametrize("coordinates", ["pixel", "unit", "normalized"])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("far", [1e6, 1e30, 3.3e38, 1e300])
def test_far_points_are_the_border_or_nothing(
    far: float, align_corners: bool, coordinates: str, padding_mode: str, function: Function
) -> None:
    """Of an image one pixel high, too, where corners aligned give a scale of 0: inf * 0 is NaN."""
    dtype = torch.float64 if far > 1e38 else torch.float32
    signs = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [1.0, 1.0], [0.0, -1.0]], dtype=dtype)
    options = {
        "padding_mode": padding_mode,
        "coordinates": coordinates,
        "align_corners": align_corners,
    }
    results = []
    for distance in (far, 1e4):
        features = [torch.rand(1, 2, 1, 5, generator=torch.Generator().manual_seed(0))]
        features.append(features[0].repeat(1, 1, 3, 1))
        tensors = [f.requires_grad_() for f in features]
        value = function(features, (signs * distance)[None], (1, 5), **options)
        results.append((value, *torch.autograd.grad(value.sum(), tensors)))
    for result, expected in zip(*results, strict=True):
        assert torch.equal(result, expected)
    if padding_mode == "zeros" and not align_corners:
        assert torch.equal(results[0][0], torch.zeros(1, 4, 4))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@functions
def test_outside_is_nothing_even_beside_infinite_cells(
    function: Function, layout: torch.memory_format
) -> None:
    """0 times infinity would be NaN."""
    feature = torch.full((2, 3, 5, 6), torch.inf).to(memory_format=layout).requires_grad_()
    points = torch.tensor([[-2.0, 1.0], [9.0, 9.0], [-1.5, 3e9]]).expand(2, -1, -1)
    value = function([feature], points, (5, 6), padding_mode="zeros")
    assert torch.equal(value, torch.zeros(2, 3, 3))


@pytest.mark.parametrize("padding_mode", ["border", "zeros"])
@pytest.mark.parametrize("function", [sparse_hypercolumn, reference_hypercolumn])
def test_far_points_do_not_move_the_value(padding_mode: str, function: Function) -> None:
    points = torch.tensor([[[3e38, -3e38], [-1e300, 1e300], [1e30, 0.5]]], dtype=torch.float64)
    points.requires_grad_()
    value = function([torch.rand(1, 2, 4, 5)], points, (4, 5), padding_mode=padding_mode)
    (gradient,) = torch.autograd.grad(value.sum(), points)
    assert torch.equal(gradient[0, :2], torch.zeros(2, 2, dtype=torch.float64))
    assert float(gradient[0, 2, 0]) == 0
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["lists", "grid_sample"])
@pytest.mark.parametrize("padding_mode", ["border", "zeros"])
def test_on_a_step_the_derivative_is_that_to_the_right(name: str, padding_mode: str) -> None:
    """Of points on a row, on a column or on both; and 0 on the border itself."""
    options = {"strides": [1, 3], "padding_mode": padding_mode}
    cells = torch.randint(-1, 57, (1, 60, 2)).double()
    share = torch.rand(1, 60, 2, dtype=torch.float64)
    points = torch.where(torch.randint(0, 2, (1, 60, 2)) > 0, cells, cells + share).float()
    features = [torch.rand(1, 5, 57, 57), torch.rand(1, 3, 19, 19)]
    gradients = []
    for function, dtype in (
        (by_route(name), torch.float32),
        (reference_hypercolumn, torch.float64),
    ):
        at = points.to(dtype).requires_grad_()
        value = function([f.to(dtype) for f in features], at, (57, 57), **options)
        gradients.append(torch.autograd.grad(value.sum(), at)[0])
    torch.testing.assert_close(gradients[0].double(), gradients[1], rtol=1e-4, atol=1e-4)
