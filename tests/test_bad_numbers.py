"""A number that is not finite stays with the points, or the cells, that see it: on every CPU route.

A point sees the cells that it gives a weight other than 0: at a cell's centre, or clamped onto one,
that cell alone; outside a map with zero padding none. tests/gate asks the same of a GPU.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pixelnet_triton import Plan, sparse_hypercolumn

from .cases import Case, Inputs
from .planning import PREFERENCES, forced_plan

ROWS, COLUMNS = 8, 4  # at which `grid_sample` finds all positions exactly
CHANNELS = 5
# What PyTorch's sampling kernels compute multiplies the cell after a centre by 0.
KERNELS = ("expression", "grid_sample")
BAD = {"nan": torch.nan, "inf": torch.inf, "-inf": -torch.inf}
LAYOUTS = [torch.contiguous_format, torch.channels_last]

routes = pytest.mark.parametrize("route", [*PREFERENCES, "project"])
paddings = pytest.mark.parametrize("padding_mode", ["border", "zeros"])
layouts = pytest.mark.parametrize("layout", LAYOUTS, ids=["planes", "rows"])
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


@pytest.fixture(autouse=True)
def _cpu_only(device: torch.device) -> None:
    if device.type != "cpu":
        pytest.skip("about the routes of the CPU")


def positions(cells: int, padding_mode: str, route: str) -> Tensor:
    """Along one axis, in cells: on centres, between them and outside."""
    last = cells - 1.0
    t = [-3, -2, -1, -0.5, 0, 0.25, 1, 2, last - 1, last - 0.5, last, last + 0.5, last + 1, 2e9]
    if route in KERNELS:
        t = [at for at in t if not _next_is_read(at, last, padding_mode)]
    return torch.tensor(t, dtype=torch.float64)


def _next_is_read(t: float, last: float, padding_mode: str) -> bool:
    """By PyTorch's kernels, though the position meets a cell's centre."""
    if padding_mode == "border":
        t = min(max(t, 0), last)
    return t == int(t) and 0 <= t + 1 <= last


def weights(t: Tensor, cells: int, padding_mode: str) -> Tensor:
    """Of every cell for each position, (n, cells)."""
    t = t.clamp(0, cells - 1) if padding_mode == "border" else t
    return (1 - (t[:, None] - torch.arange(cells)).abs()).clamp_min(0)


class Call:
    """Points at all pairs of positions, on both of two images.

    features: two maps alike. seen (P, ROWS, COLUMNS): which cells a point sees.
    """

    def __init__(
        self,
        route: str,
        padding_mode: str,
        layout: torch.memory_format,
        dtype: torch.dtype,
    ) -> None:
        y = positions(ROWS, padding_mode, route)
        x = positions(COLUMNS, padding_mode, route)
        down, across = weights(y, ROWS, padding_mode), weights(x, COLUMNS, padding_mode)
        self.seen = (down[:, None, :, None] * across[None, :, None]).flatten(0, 1) != 0
        points = torch.cartesian_prod(y, x).flip(-1)
        options: dict[str, Any] = {"padding_mode": padding_mode}
        if route == "grid_sample":
            points = (points + 0.5) / torch.tensor([COLUMNS, ROWS])
            options["coordinates"] = "unit"
        self.route, self.options = route, options
        self.points = points.to(torch.float64).expand(2, -1, -1).contiguous()
        shape = (2, CHANNELS, ROWS, COLUMNS)
        self.features = [torch.rand(shape, dtype=dtype).to(memory_format=layout) for _ in "ab"]
        self.weight = torch.eye(2 * CHANNELS, dtype=dtype)  # each channel by itself

    def run(self, linear: bool) -> Tensor:
        """(2, P, channels), by the route."""
        weight = self.weight if linear else None
        plan: Plan | str | None = "project"
        if self.route != "project":
            case = Case("bad", batch=2, points=self.points.shape[1], image_size=(ROWS, COLUMNS))
            inputs = Inputs(case, self.features, self.points, weight, None, None, self.options)
            inputs.moving_points = False
            plan = forced_plan(inputs, self.route, self.features[0].requires_grad)
        if plan is None:
            pytest.skip("not open to such a call")
        return sparse_hypercolumn(
            self.features, self.points, (ROWS, COLUMNS), weight=weight, plan=plan, **self.options
        )


@routes
@paddings
@layouts
@dtypes
@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
def test_a_bad_cell_reaches_the_points_that_see_it(
    value: float,
    dtype: torch.dtype,
    layout: torch.memory_format,
    padding_mode: str,
    route: str,
) -> None:
    call = Call(route, padding_mode, layout, dtype)
    linear = route == "project"
    good = call.run(linear)
    assert good.isfinite().all()
    for row, column in ((0, 0), (3, 1), (ROWS - 2, COLUMNS - 2), (ROWS - 1, COLUMNS - 1)):
        cell = call.features[1][1, 2, row, column]
        before = cell.clone()
        cell.fill_(value)
        actual = call.run(linear)
        cell.copy_(before)
        expected = torch.zeros(good.shape, dtype=torch.bool)
        expected[1, :, CHANNELS + 2] = call.seen[:, row, column]
        if linear:  # a cell's channels times the weight, 0 in part
            expected |= expected.any(-1, keepdim=True)
        assert torch.equal(~actual.isfinite(), expected)
        assert torch.equal(actual[~expected], good[~expected])
        if padding_mode == "border" and not linear:  # what is infinite remains so
            bad = torch.full_like(actual[expected], value)
            torch.testing.assert_close(actual[expected], bad, rtol=0, atol=0, equal_nan=True)


@routes
@paddings
@layouts
@dtypes
@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
def test_a_bad_gradient_reaches_the_cells_that_are_seen(
    value: float,
    dtype: torch.dtype,
    layout: torch.memory_format,
    padding_mode: str,
    route: str,
) -> None:
    call = Call(route, padding_mode, layout, dtype)
    for feature in call.features:
        feature.requires_grad_()
    linear = route == "project"
    values = call.run(linear)
    grad = torch.rand_like(values)
    for point in range(0, len(call.seen), 5):
        grad_of_bad = grad.clone()
        grad_of_bad[1, point, CHANNELS + 2] = value
        kept = grad_of_bad.clone()
        gradients = torch.autograd.grad(values, call.features, grad_of_bad, retain_graph=True)
        torch.testing.assert_close(grad_of_bad, kept, rtol=0, atol=0, equal_nan=True)
        expected = torch.zeros(call.features[0].shape, dtype=torch.bool)
        expected[1, 2] = call.seen[point]
        if linear:
            expected |= expected.any(1, keepdim=True)
        else:
            assert gradients[0].isfinite().all()
        assert torch.equal(~gradients[1].isfinite(), expected)


@pytest.mark.parametrize("count", [1, 20, 4000, 20_000])
@pytest.mark.parametrize("plan", ["auto", "gather", "project"])
def test_a_pixel_clamped_onto_the_last_column_is_finite_among_any_number(
    plan: str, count: int
) -> None:
    """Pixel 63 lies beyond the centre of the last cell of four pixels; its neighbour is bad."""
    feature = torch.rand(1, 64, 16, 16)
    feature[0, 0, 7, 14] = torch.inf
    points = torch.full((1, count, 2), 5)
    points[0, 0] = torch.tensor([63, 30])
    weight = torch.rand(8, 64)
    value = sparse_hypercolumn([feature], points, (64, 64), weight=weight, plan=plan)
    assert value.isfinite().all()


@pytest.mark.parametrize("plan", ["gather", "project"])
@paddings
@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
def test_points_that_move_see_no_more_in_the_gradient_of_a_map(
    value: float, padding_mode: str, plan: str
) -> None:
    """Slopes at a centre are of the next cell too; weights are not."""
    call = Call(plan, padding_mode, torch.contiguous_format, torch.float32)
    feature, points = call.features[0].requires_grad_(), call.points.requires_grad_()
    weight = torch.eye(CHANNELS)
    out = sparse_hypercolumn(
        [feature], points, (ROWS, COLUMNS), weight=weight, plan=plan, padding_mode=padding_mode
    )
    for point in range(0, len(call.seen), 7):
        grad = torch.ones_like(out)
        grad[1, point, 2] = value
        by_map, _ = torch.autograd.grad(out, (feature, points), grad, retain_graph=True)
        expected = torch.zeros_like(by_map, dtype=torch.bool)
        expected[1, :] = call.seen[point]
        assert torch.equal(~by_map.isfinite(), expected)


@pytest.mark.parametrize("plan", ["gather", "project"])
@pytest.mark.parametrize("t", [-1.0, COLUMNS - 1.0, COLUMNS + 0.5])
def test_a_clamped_point_has_no_slope_towards_a_bad_cell(t: float, plan: str) -> None:
    feature = torch.rand(1, CHANNELS, ROWS, COLUMNS)
    feature[:, :, :, 1:-1] = torch.inf
    points = torch.tensor([[[t, 2.5]]], requires_grad=True)
    weight = torch.ones(2, CHANNELS)
    value = sparse_hypercolumn([feature], points, (ROWS, COLUMNS), weight=weight, plan=plan)
    (gradient,) = torch.autograd.grad(value.sum(), points)
    assert value.isfinite().all()
    assert gradient.isfinite().all()
    assert gradient[0, 0, 0] == 0


@pytest.mark.parametrize("plan", ["gather", "project"])
@pytest.mark.parametrize("points", [1, 3000])
def test_outside_of_one_map_and_inside_of_another(plan: str, points: int) -> None:
    """The infinite border of the fine map, which the point does not see, is not multiplied by 0."""
    fine, coarse = torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 2, 2)
    fine[0, 0, 0, 0] = float("inf")
    at, weight = torch.full((1, points, 2), -6.0), torch.ones(1, 2)
    options: dict[str, Any] = {"weight": weight, "padding_mode": "zeros"}
    value = sparse_hypercolumn([fine, coarse], at, (32, 32), plan=plan, **options)
    expected = sparse_hypercolumn([torch.zeros_like(fine), coarse], at, (32, 32), **options)
    torch.testing.assert_close(value, expected)
    assert value.any()
