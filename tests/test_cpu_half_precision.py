"""Half precision on the CPU, with and without matrix units: both are forced, whatever CPU this is.

Without the units products of bfloat16 are exact to no fewer bits, only slower, so the path that
uses them can be tested anywhere. The cases here are large enough for sums over several products.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.memory import saved_storages
from pixelnet_triton import Plan, plan_hypercolumn, sparse_hypercolumn
from pixelnet_triton.call import CallShape
from pixelnet_triton.call.shape import layer_shape
from pixelnet_triton.cpu import products, routes
from pixelnet_triton.cpu.backend import BACKEND
from pixelnet_triton.op import forget_calls

from .cases import CASES, Case, case_id
from .check import check_case

HALVES = [torch.float16, torch.bfloat16]
PLANS = ["auto", "gather", "project"]


@pytest.fixture(params=[True, False], ids=["units", "no-units"])
def units(request: Any, monkeypatch: pytest.MonkeyPatch, device: torch.device) -> Iterator[bool]:
    if device.type != "cpu":
        pytest.skip("about the CPU back end")
    monkeypatch.setattr(products, "_has_matrix_units", lambda: request.param)
    forget_calls()
    yield request.param
    forget_calls()


# Two images, a part of the points each, and 1,200 outputs in several blocks.
LARGE = Case(
    "large",
    ((20, 12, 9), (70, 5, 6), (33, 3, 2)),
    points=2500,
    image_size=(48, 36),
    out_features=1200,
)
LARGER = [
    LARGE,
    replace(LARGE, name="large-last", layout="channels_last", activation="gelu"),
    replace(LARGE, name="large-one-image", batch=1, points=2000, padding_mode="zeros"),
    replace(LARGE, name="large-ragged", ragged=True, points=3000, out_features=700),
]
MIXED = Plan(("project", "gather", "project"), "two_step")
TWO_RUNS = Plan(("gather", "project", "gather"), "two_step")


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_small_cases(units: bool, case: Case, plan: str, device: torch.device) -> None:
    check_case(case.linear().with_dtype(torch.bfloat16), device, plan=plan)


@pytest.mark.parametrize(
    "plan",
    ["gather", "project", MIXED, TWO_RUNS],
    ids=["gather", "project", "mixed", "two-runs"],
)
@pytest.mark.parametrize("case", LARGER, ids=case_id)
def test_sums_over_several_products(
    units: bool, case: Case, plan: str | Plan, device: torch.device
) -> None:
    check_case(case.with_dtype(torch.bfloat16), device, plan=plan, moving_points=False)


def test_points_move_where_products_are_in_half_precision(
    units: bool, device: torch.device
) -> None:
    check_case(LARGER[2].with_dtype(torch.bfloat16), device, plan=MIXED)


def test_operands_of_products(units: bool) -> None:
    assert products.product_dtype(torch.float64) == torch.float64
    assert products.product_dtype(torch.float32) == torch.float32
    assert products.product_dtype(torch.float16) == torch.float32
    assert products.product_dtype(torch.bfloat16) == (torch.bfloat16 if units else torch.float32)


def test_the_planner_knows_of_matrix_units(units: bool) -> None:
    shapes, points, width = [(1, 512, 28, 28)], 2000, 4096
    plans = {
        dtype: plan_hypercolumn(shapes, points, width, dtype=dtype, profile="cpu")
        for dtype in (torch.float32, torch.bfloat16)
    }
    seconds = {dtype: plan.estimate.seconds for dtype, plan in plans.items() if plan.estimate}
    faster = seconds[torch.float32] / seconds[torch.bfloat16]
    assert (faster > 1.5) is units


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_small_calls_keep_a_bounded_conversion(
    units: bool, dtype: torch.dtype, device: torch.device
) -> None:
    """At most 4 MB of maps and weights converted as a whole are kept, next to hypercolumns."""
    points = torch.randint(64, (1, 50, 2))
    wide = 1 << 14  # whose weights need no conversion with matrix units
    for side, width, keeps in (
        (64, 8, True),
        (128, 8, False),
        (16, wide, units and dtype == torch.bfloat16),
    ):
        weight = torch.randn(width, 128).to(dtype).requires_grad_()
        maps = [torch.randn(1, 128, side, side).to(dtype).requires_grad_()]
        plan = _expression(maps[0], width, units and dtype == torch.bfloat16)
        assert (plan is not None) is keeps
        with saved_storages([*maps, weight, points]) as saved:
            sparse_hypercolumn(maps, points, (64, 64), weight=weight, plan=plan or "auto")
        total = sum(saved.values())
        assert total > 0 if keeps else total < 1 << 17  # cells that are picked have their numbers
        assert total <= routes.KEPT_CONVERTED + 4 * routes.KEPT_VALUES


def _expression(feature: torch.Tensor, width: int, multiplies: bool) -> Plan | None:
    """The plan of 50 points that keeps the map it converts, where that is within bounds."""
    layers = (layer_shape(feature),)
    shape = CallShape(layers, 1, 50, width, feature.element_size(), half_products=multiplies)
    gather = Plan(("gather",), "two_step")
    routed = [replace(gather, route=route) for route in BACKEND.routes(shape, gather)]
    sampled = (plan for plan in routed if plan.route and plan.route.read == ("sampled",))
    return next(sampled, None)
