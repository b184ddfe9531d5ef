"""No route of a CPU call is more than twice as far off as the best one.

But for points in PyTorch's own coordinates: there the route through its sampling kernels gives what
`grid_sample` gives, which in float32 knows a position to a part of the map's side only.

Every plan of a call (each layer gathered or projected) is computed by every route open to it, and
the value and all gradients are held against float64. Compared are root mean squares: the largest
deviation is that of one entry, and luck decides it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pixelnet_triton import Plan, sparse_hypercolumn
from pixelnet_triton.call import CallShape, Route
from pixelnet_triton.cpu import routes
from pixelnet_triton.cpu.backend import BACKEND
from pixelnet_triton.cpu.products import add_product
from pixelnet_triton.reference import sparse_hypercolumn as reference_hypercolumn

from .cases import Case, build, case_id
from .check import evaluate, upstream_gradient
from .plain import plain_hypercolumn
from .planning import shape_of_inputs

VGG = ((64, 28, 28), (128, 14, 14), (256, 7, 7), (64, 4, 4), (64, 2, 2))
RESNET = ((64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2))
PIXELS = {"image_size": (28, 28), "spread": "integer", "layout": "channels_last"}
CASES = [  # W1 to W5 in small, and sizes that nothing divides
    Case("W1", (VGG[0], VGG[2], VGG[4]), batch=1, points=150, out_features=256, **PIXELS),
    Case("W2", VGG, points=60, out_features=128, **PIXELS),
    Case("W3", (VGG[0], VGG[1], (1024, 1, 1)), points=60, out_features=128, **PIXELS),
    Case("W4", RESNET, batch=4, points=32, image_size=(64, 64), out_features=32),
    Case("W5", VGG[:4], points=150, out_features=32, **{**PIXELS, "spread": "inside"}),
    Case("odd", ((3, 7, 11), (129, 5, 3)), points=33, image_size=(31, 57), out_features=17),
    Case("many-points", ((40, 20, 23),), batch=1, points=1000, out_features=24),
    Case("columns", ((33, 20, 23), (7, 5, 4)), points=60, image_size=(20, 23)),
]
CASES += [replace(CASES[-3], name="odd-ragged", batch=3, ragged=True, padding_mode="zeros")]
TWICE = 2.0
#: Nobody is held to less than an eighth of a unit in the last place.
FLOOR = torch.finfo(torch.float32).eps / 8
Errors = dict[str, float]


def every_route(shape: CallShape) -> Iterator[Plan]:
    """All plans, with all their routes: by the words that suit each layer best, second best, ..."""
    layers = range(len(shape.layers))
    ways = ("gather", "project") if shape.out_features else ("gather",)
    for strategies in itertools.product(ways, repeat=len(shape.layers)):
        plan = Plan(strategies, "two_step")
        for route in BACKEND.routes(shape, plan):
            if route.by_autograd:
                yield replace(plan, route=route)
                continue
            open_words = [
                words(shape, i) if route.read[i] not in ("sampled", "projected") else ()
                for words in (routes.admissible_reads, routes.admissible_writes)
                for i in layers
            ]
            best = [*route.read, *route.write]
            for place in range(max(1, *map(len, open_words))):
                chosen = [
                    words[min(place, len(words) - 1)] if words else word
                    for words, word in zip(open_words, best, strict=True)
                ]
                read, write = tuple(chosen[: len(layers)]), tuple(chosen[len(layers) :])
                forced = Route(route.forward, route.backward, read, write, route.by_autograd)
                yield replace(plan, route=forced)


def name_of(plan: Plan) -> str:
    assert plan.route is not None
    route = plan.route
    letters = "".join(strategy[0] for strategy in plan.layers)
    words = f"{'+'.join(route.read)} > {'+'.join(route.write)}"
    return f"{letters} {route.forward}/{route.backward} {words}"


def errors(results: dict[str, Tensor], exact: dict[str, Tensor]) -> Errors:
    """Of each result the root mean square error, relative to the root mean square."""
    assert results.keys() == exact.keys()
    return {
        name: ((results[name] - right).square().mean() / right.square().mean()).sqrt().item()
        for name, right in exact.items()
    }


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_no_route_is_more_than_twice_as_far_off_as_the_best(
    case: Case, device: torch.device
) -> None:
    if device.type != "cpu":
        pytest.skip("about the CPU back end")
    inputs = build(replace(case, activation="relu") if case.out_features else case)
    inputs.moving_points = False
    grad = upstream_gradient(inputs)
    exact = evaluate(reference_hypercolumn, inputs.double(), grad.double())
    found = {
        name_of(plan): errors(evaluate(sparse_hypercolumn, inputs, grad, plan=plan), exact)
        for plan in every_route(shape_of_inputs(inputs)[1])
    }
    assert len(found) >= 2
    # An expression may compute in float64 and round once, which sums in float32 are not held to.
    bars = [found[name] for name in found if "expression" not in name]
    for result in ("value", *inputs.tensors()):
        limit = TWICE * max(FLOOR, min(e[result] for e in bars))
        worse = {name: e[result] for name, e in found.items() if not e[result] <= limit}
        assert not worse, f"{result}: more than {limit:.2g}: {worse}"


@pytest.mark.parametrize("coordinates", ["unit", "normalized"])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("padding_mode", ["border", "zeros"])
@pytest.mark.parametrize("way", ["grid_sample", "expression"])
def test_points_in_torch_coordinates_are_sampled_as_torch_samples_them(
    way: str, padding_mode: str, align_corners: bool, coordinates: str, device: torch.device
) -> None:
    if device.type != "cpu":
        pytest.skip("about the CPU back end")
    options = {"padding_mode": padding_mode, "align_corners": align_corners}
    case = Case("mask", ((1, 27, 31),), points=500, image_size=(108, 124), out_features=None)
    inputs = build(replace(case, coordinates=coordinates, **options))
    inputs.moving_points = way == "grid_sample"  # expressions leave them where they are
    shape = shape_of_inputs(inputs)[1]
    plan = next(p for p in every_route(shape) if p.route and p.route.forward == way)
    points = inputs.points.detach().requires_grad_(inputs.moving_points)
    feature = inputs.features[0].detach().requires_grad_()
    ours = sparse_hypercolumn([feature], points, (108, 124), plan=plan, **inputs.options)
    grid = 2 * points - 1 if coordinates == "unit" else points
    theirs = F.grid_sample(feature, grid[:, :, None], **options)[..., 0].mT
    assert torch.equal(ours, theirs)
    grad = torch.randn_like(ours)
    leaves = [feature, points] if inputs.moving_points else [feature]
    for mine, right in zip(
        *(torch.autograd.grad(y, leaves, grad) for y in (ours, theirs)), strict=True
    ):
        assert torch.equal(mine, right)


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("plan", ["auto", "gather", "project"])
@pytest.mark.parametrize("out_features", [2, 3, 11])
def test_long_sums_of_narrow_heads(
    out_features: int, plan: str, layout: str, device: torch.device
) -> None:
    """BLAS makes one sum of all channels, or cells, of few outputs."""
    if device.type != "cpu":
        pytest.skip("about the CPU back end")
    # "auto" takes an expression for the last.
    calls = [((6000, 6, 6), 400, 2), ((24, 56, 56), 3000, 2), ((2000, 8, 8), 20, 1)]
    for layer, points, batch in calls:
        case = Case("narrow", (layer,), batch, points, (8 * layer[1], 8 * layer[2]))
        case = replace(case, layout=layout, point_dtype=torch.int64)
        inputs = build(replace(case, out_features=out_features))
        inputs.moving_points = False
        grad = upstream_gradient(inputs)
        exact = evaluate(reference_hypercolumn, inputs.double(), grad.double())
        theirs = errors(evaluate(plain_hypercolumn, inputs, grad), exact)
        ours = errors(evaluate(sparse_hypercolumn, inputs, grad, plan=plan), exact)
        for result, error in ours.items():
            assert error <= TWICE * max(FLOOR, theirs[result]), (layer, points, result)


@pytest.mark.parametrize("onto", ["nothing", "a row", "itself"])
@pytest.mark.parametrize(("rows", "columns"), [(3, 24), (24, 3), (3, 3), (11, 24), (24, 11)])
def test_low_and_narrow_products(rows: int, columns: int, onto: str) -> None:
    """They are as exact as those of operands with rows and columns enough."""
    left, right = torch.randn(12544, 32).t(), torch.randn(12544, 32)
    row, out = torch.randn(32), torch.randn(32, 32)
    added = {"nothing": torch.zeros(32), "a row": row, "itself": out}[onto]
    exact = (left.double() @ right.double() + added)[:rows, :columns]
    limit = TWICE * (left @ right + added)[:rows, :columns].sub(exact).square().mean().sqrt()
    left, right, out = left[:rows], right[:, :columns], out[:rows, :columns]
    add_product(out, left, right, {"nothing": None, "a row": row[:columns], "itself": out}[onto])
    assert (out - exact).square().mean().sqrt() <= limit


def test_every_route_takes_part() -> None:
    seen: set[str] = set()
    for case in CASES:
        inputs = build(case)
        inputs.moving_points = False
        shape = shape_of_inputs(inputs)[1]
        for plan in every_route(shape):
            assert plan.route is not None
            assert BACKEND.fits(shape, plan, plan.route), name_of(plan)
            seen |= {plan.route.forward, *plan.route.read, *plan.route.write}
    # that is for PyTorch's coordinates, see above
    assert seen == routes.WORDS.keys() - {"grid_sample"}
