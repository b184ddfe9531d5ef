"""The ways in which the CPU back end may compute one and the same call, each forced on every case.

Which of them a call takes depends on its size; test cases are small, so without force most would
go one way.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bench.memory import saved_storages
from pixelnet_triton import plan_hypercolumn, sparse_hypercolumn
from pixelnet_triton.call import CallShape, LayerShape, Options, Plan, Route
from pixelnet_triton.call.shape import layer_shape
from pixelnet_triton.cpu.backend import BACKEND
from pixelnet_triton.op.prepare import prepare
from pixelnet_triton.reference import sparse_hypercolumn as reference_hypercolumn

from .cases import CASES, DTYPE_CASES, Case, build, case_id
from .check import check_case, evaluate, upstream_gradient
from .plain import plain_hypercolumn
from .planning import PREFERENCES, forced_plan

# Large enough for points that are neither few nor in every cell, several strips of planes, and
# an image that ragged points leave out.
LARGER = [
    Case("wide", ((150, 20, 23), (40, 9, 7)), points=60, image_size=(40, 46)),
    Case("wide-int", ((33, 20, 23),), points=90, image_size=(20, 23), point_dtype=torch.int64),
    Case(
        "wide-ragged",
        ((150, 20, 23), (7, 3, 4)),
        batch=4,
        points=25,
        image_size=(40, 46),
        ragged=True,
    ),
    Case(
        "wide-last",
        ((150, 20, 23), (40, 9, 7)),
        points=60,
        image_size=(40, 46),
        layout="channels_last",
    ),
]
LISTS = ("lists", "lists")
ALL = [*CASES, *DTYPE_CASES, *LARGER, *(case.linear() for case in LARGER)]


@pytest.fixture(autouse=True)
def _cpu_only(device: torch.device) -> None:
    if device.type != "cpu":
        pytest.skip("about the CPU back end")


@pytest.mark.parametrize("name", PREFERENCES)
@pytest.mark.parametrize("case", ALL, ids=case_id)
def test_every_route_is_right(name: str, case: Case, device: torch.device) -> None:
    inputs = build(case, device)
    inputs.moving_points = False
    plan = forced_plan(inputs, name)
    if plan is None:
        pytest.skip("not open to such a call")
    for tensor in inputs.tensors().values():
        tensor.requires_grad_()
    assert plan_in_use(inputs.arguments(), plan).route == plan.route
    same_layout = name not in ("expression", "picking")
    check_case(case, device, moving_points=False, same_layout=same_layout, plan=plan)


@pytest.mark.parametrize("case", ALL, ids=case_id)
def test_points_get_their_gradient_by_grid_sample_too(case: Case, device: torch.device) -> None:
    inputs = build(case, device)
    plan = forced_plan(inputs, "grid_sample")
    if plan is None or not inputs.points.is_floating_point():
        pytest.skip("not open to such a call")
    check_case(case, device, plan=plan)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("coordinates", ["unit", "normalized"])
def test_points_of_any_dtype_by_grid_sample(coordinates: str, dtype: torch.dtype) -> None:
    """The far end of what counts, 1e9, is no number of half precision."""
    case = Case("dtypes", ((4, 6, 8), (3, 1, 1)), batch=1, points=9, padding_mode="zeros")
    inputs = build(replace(case, coordinates=coordinates))
    inputs.moving_points = False
    inputs.points = inputs.points.to(dtype)
    plan = forced_plan(inputs, "grid_sample")
    assert plan is not None
    value = sparse_hypercolumn(**inputs.arguments(plan=plan))
    single = sparse_hypercolumn(**inputs.arguments(plan=plan, points=inputs.points.float()))
    assert torch.equal(value, single)


@pytest.mark.parametrize("name", ["lists", "grid_sample"])
def test_a_point_on_the_border_does_not_move(name: str) -> None:
    """On the first and the last cell of a row, where coordinates begin to be clamped."""
    case = Case("border", ((4, 6, 8),), batch=1, points=4, coordinates="unit", align_corners=True)
    inputs = build(case)
    inputs.points = torch.tensor([[[0.0, 0.5], [1.0, 0.5], [0.5, 0.0], [0.5, 1.0]]])
    ramp = torch.arange(48.0).reshape(1, 1, 6, 8).expand(1, 4, 6, 8)
    inputs.features[0] = ramp.square().contiguous()  # with slopes everywhere
    plan = forced_plan(inputs, name)
    assert plan is not None
    assert plan.route is not None
    assert plan.route.backward == name
    grad = torch.ones(1, 4, 4)
    by_points = evaluate(sparse_hypercolumn, inputs, grad, plan=plan)["points"][0]
    still, moving = by_points.flatten()[[0, 2, 5, 7]], by_points.flatten()[[1, 3, 4, 6]]
    assert not still.any()
    assert moving.all()


@pytest.mark.parametrize("coordinates", ["pixel", "unit", "normalized"])
def test_aligned_corners_round_as_grid_sample_does(coordinates: str) -> None:
    """As exact as the plain expression: an image of few pixels multiplies what a grid is off by."""
    case = Case("corners", ((3, 1, 1), (2, 1, 9), (5, 7, 7), (4, 13, 5)), spread="outside")
    case = replace(case, image_size=(3, 5), align_corners=True, coordinates=coordinates)
    inputs = build(replace(case, padding_mode="zeros"))
    inputs.moving_points = False
    plan = forced_plan(inputs, "expression")
    assert plan is not None
    grad = upstream_gradient(inputs)
    exact = evaluate(reference_hypercolumn, inputs.double(), grad.double())
    plain = evaluate(plain_hypercolumn, inputs, grad)
    for name, result in evaluate(sparse_hypercolumn, inputs, grad, plan=plan).items():
        error = (result - exact[name]).square().mean().sqrt()
        assert error <= 1.2 * (plain[name] - exact[name]).square().mean().sqrt() + 1e-8, name


def plan_in_use(arguments: dict, plan: Plan | str = "auto") -> Plan:
    """The plan, with its route, that a call of these arguments is computed by."""
    names = ("features", "points", "batch_index", "weight", "bias")
    tensors = [arguments.get(name) for name in names]
    options = {k: v for k, v in arguments.items() if k not in names and k != "plan"}
    call = prepare(*tensors, Options(**options, plan=plan))  # type: ignore[arg-type]
    assert isinstance(call.plan, Plan)
    return call.plan


def test_every_way_is_forced_somewhere() -> None:
    """Otherwise a word of the route could be wrong without any case saying so."""
    seen: set[str] = set()
    for case in ALL:
        for name in PREFERENCES:
            inputs = build(case)
            inputs.moving_points = False
            plan = forced_plan(inputs, name)
            if plan is not None and plan.route is not None:
                route = plan.route
                seen |= {route.forward, route.backward, *route.read, *route.write}
    assert seen == {
        *("expression", "autograd", "grid_sample", "lists", "sampled"),
        *("rows", "picked", "planes", "converted"),
        *("added", "touched", "listed", "turned"),
    }


def test_a_route_that_does_not_fit_is_chosen_anew() -> None:
    inputs = build(Case("nearest", interpolation="nearest").linear())
    route = Route("grid_sample", "", ("sampled", "sampled"), ())
    plan = Plan(("gather", "gather"), "two_step", route)
    with torch.no_grad():
        used = plan_in_use(inputs.arguments(), plan)
    assert used.route is not None
    assert used.route.forward == "lists"
    planes = CallShape((LayerShape(8, 9, 9, channels_last=False),), 1, 50, 16)
    gather = Plan(("gather",), "two_step")
    listed = Route("lists", "lists", ("planes",), ("planes",))
    assert BACKEND.fits(planes, gather, listed)
    rows = replace(planes, layers=(LayerShape(8, 9, 9),))
    assert not BACKEND.fits(rows, gather, listed)


@pytest.mark.parametrize(("points", "keeps"), [(300, True), (3000, False)])
def test_small_calls_keep_their_hypercolumns_and_larger_ones_do_not(
    points: int, keeps: bool
) -> None:
    feature = torch.randn(1, 96, 16, 16, requires_grad=True)  # which need not be enlarged
    weight = torch.randn(16, 96, requires_grad=True)
    at = torch.randint(32, (1, points, 2))
    with saved_storages([feature, weight, at]) as saved:
        sparse_hypercolumn([feature], at, (32, 32), weight=weight)
    hypercolumns, grid = points * 96 * 4, points * 2 * 4
    assert sum(saved.values()) == (hypercolumns + grid if keeps else 0)
    assert hypercolumns <= 1 << 20 or not keeps


@pytest.mark.parametrize("points", range(2200, 2900, 35))
def test_what_is_kept_is_bounded_whatever_the_points_are_rounded_to(points: int) -> None:
    """Plans are made for points of three significant bits; a megabyte is a megabyte."""
    plan = plan_hypercolumn([(1, 96, 20, 20)], points, 8)
    assert plan.route is not None
    if plan.route.by_autograd:
        assert points * 96 <= 1 << 18


# What the planner prices is what the back end does: each of these was priced as a small call, or
# by another ratio of cells to corners, and computed otherwise.


def test_nearest_cells_are_priced_as_they_are_read() -> None:
    feature, at = torch.randn(1, 16, 20, 20), torch.rand(1, 100, 2) * 20
    bilinear = plan_hypercolumn([feature], 100, 8)
    nearest = plan_hypercolumn([feature], 100, 8, nearest=True)
    assert bilinear.route is not None
    assert bilinear.route.by_autograd
    arguments = {"features": [feature], "points": at, "image_size": (20, 20)}
    weight = torch.randn(8, 16, requires_grad=True)
    used = plan_in_use({**arguments, "weight": weight, "interpolation": "nearest"})
    assert used == nearest
    assert used.route is not None
    assert used.route.forward == "lists"


def test_points_that_want_a_gradient_are_priced_as_they_are_found() -> None:
    """By the sampling kernels as long as there are few channels, which lists read four times."""
    for channels, layout in ((2, torch.contiguous_format), (512, torch.channels_last)):
        feature = torch.randn(1, channels, 20, 20).contiguous(memory_format=layout)
        arguments = {"features": [feature], "image_size": (20, 20)}
        arguments["weight"] = torch.randn(8, channels)
        at = torch.rand(1, 100, 2)
        used = plan_in_use({**arguments, "points": (at * 20).requires_grad_()})
        assert used == plan_hypercolumn([feature], 100, 8, moving_points=True)
        assert used.route is not None
        assert used.route.backward == "lists"
        arguments |= {"points": at.requires_grad_(), "coordinates": "unit"}
        used = plan_in_use(arguments)
        assert used.route is not None
        assert used.route.backward == ("grid_sample" if channels == 2 else "lists")


def test_rows_are_written_and_priced_by_one_ratio() -> None:
    """At two cells a corner all cells of a float32 map are written; the price says so too."""
    shape = CallShape((LayerShape(256, 100, 100),), 1, 1250, 64, may_keep=False)
    plan = Plan(("gather",), "two_step")
    lists = next(r for r in BACKEND.routes(shape, plan) if r.backward == "lists")
    assert lists.write == ("listed",)
    sparse = replace(shape, points=400)
    lists = next(r for r in BACKEND.routes(sparse, plan) if r.backward == "lists")
    assert lists.write == ("touched",)


def test_a_crop_is_priced_as_the_copy_that_it_takes() -> None:
    whole = torch.randn(1, 64, 40, 40).contiguous(memory_format=torch.channels_last)
    crop = whole[:, :, 4:36, 4:36]
    streams = []
    for feature, word in ((crop, "converted"), (crop.clone(), "rows")):
        shape = CallShape((layer_shape(feature),), 1, 9000, 512)
        plan = Plan(("gather",), "two_step")
        lists = next(r for r in BACKEND.routes(shape, plan) if (r.forward, r.backward) == LISTS)
        assert lists.read == (word,)
        streams.append(BACKEND.work(shape, replace(plan, route=lists)).total.streams)
    assert streams[0] >= streams[1] + 2 * crop.nbytes


def test_small_calls_have_a_right_second_derivative_or_none(device: torch.device) -> None:
    case = Case("twice", ((2, 4, 5), (3, 2, 3)), points=6, image_size=(8, 10), dtype=torch.float64)
    inputs = build(case.linear(3), device)
    inputs.moving_points = False
    names, tensors = zip(*inputs.tensors().items(), strict=True)
    for tensor in tensors:
        tensor.requires_grad_()

    def function(*values: Tensor) -> Tensor:
        named = dict(zip(names, values, strict=True))
        features = [named[f"features[{i}]"] for i in range(2)]
        linear = {"weight": named["weight"], "bias": named["bias"]}
        return sparse_hypercolumn(**inputs.arguments(features=features, **linear))

    try:
        assert torch.autograd.gradgradcheck(function, tensors)
    except RuntimeError as error:  # up to some torch between 2.6 and 2.13
        assert "grid_sampler_2d_backward is not implemented" in str(error)  # noqa: PT017


def test_ragged_points_of_very_uneven_images(device: torch.device) -> None:
    """All but one lie in one image of ten: padding would be most of the work."""
    index = torch.full((40,), 3, device=device)
    index[17] = 8
    feature = torch.randn(10, 6, 5, 5, device=device, requires_grad=True)
    points = torch.randint(0, 5, (40, 2), device=device)
    value = sparse_hypercolumn([feature], points, (5, 5), batch_index=index)
    expected = feature[index, :, points[:, 1], points[:, 0]]
    torch.testing.assert_close(value, expected)
    upstream = torch.randn_like(value)
    gradients = [torch.autograd.grad(y, feature, upstream)[0] for y in (value, expected)]
    torch.testing.assert_close(*gradients)


def test_an_expression_picks_cells_of_maps_that_would_be_copied_alone() -> None:
    """Not of a view, which would be copied whole, nor where PyTorch's own bits are wanted, nor
    where their gradients would be summed in half precision."""
    between = CallShape((LayerShape(8, 50, 50), LayerShape(8, 9, 9)), 1, 20, 16, single=False)
    view = replace(between, layers=(replace(between.layers[0], dense=False),))
    plain = replace(between, single=True, layers=(LayerShape(8, 16, 32), LayerShape(8, 10, 10)))
    for shape, expected in (
        (between, {("sampled", "sampled"), ("picked", "picked")}),
        (replace(between, torch_coordinates=True), {("sampled", "sampled")}),
        (view, set()),
        (replace(between, itemsize=2), {("sampled", "sampled")}),
        (
            replace(between, itemsize=2, training=False),
            {("sampled", "sampled"), ("picked", "picked")},
        ),
        (plain, {("sampled", "sampled"), ("sampled", "picked")}),
    ):
        plan = Plan(("gather",) * len(shape.layers), "two_step")
        reads = {route.read for route in BACKEND.routes(shape, plan) if route.by_autograd}
        assert reads == expected, shape
