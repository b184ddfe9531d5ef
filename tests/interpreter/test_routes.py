"""The GPU back end by itself: routes follow from plans, and every route computes the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from pixelnet_triton.call import (
    CallShape,
    LayerShape,
    Linear,
    Plan,
    Route,
    Sampling,
    Wanted,
    layer_geometry,
)
from pixelnet_triton.gpu import BACKEND
from pixelnet_triton.gpu.backend import load
from pixelnet_triton.gpu.routes import route
from pixelnet_triton.planner.profiles import SHIPPED

from ..planning import choose

SHAPE = CallShape((LayerShape(4, 5, 6), LayerShape(6, 3, 3)), 2, 14, 9)
GATHER, PRODUCT, ROWS = "gather", "project_product", "project_gather"
ALL = Wanted((True, True), True, True, True)


@pytest.mark.parametrize(
    ("layers", "mode", "forward", "backward"),
    [
        ((GATHER, GATHER), "two_step", "gather + linear", "gather + mm + scatter"),
        ((GATHER, GATHER), "one_pass", "fused_linear", "weight_gradient + feature_gradient"),
        ((GATHER, ROWS), "two_step", "gather + product", "gather + mm + scatter"),
        (
            (GATHER, PRODUCT),
            "one_pass",
            "fused_linear",
            "weight_gradient + feature_gradient + transposed_product",
        ),
        ((ROWS, PRODUCT), "one_pass", "product", "scatter + transposed_product"),
    ],
)
def test_a_plan_has_a_route(
    layers: tuple[str, str], mode: str, forward: str, backward: str
) -> None:
    chosen = route(SHAPE, Plan(layers, mode))
    assert (chosen.forward, chosen.backward) == (forward, backward)
    assert route(replace(SHAPE, training=False), Plan(layers, mode)).backward == ""


def test_ragged_points_have_no_interpolation_product() -> None:
    plan = Plan((GATHER, PRODUCT))
    ragged = replace(SHAPE, ragged=True)
    forced = replace(plan, route=route(SHAPE, plan))
    for asked in (plan, forced):
        chosen = choose(asked, ragged, SHIPPED["H200"])
        assert chosen.layers == (GATHER, ROWS)
        assert chosen.route is not None
        assert chosen.route.read == ("fused_linear", ROWS)
    assert PRODUCT not in BACKEND.strategies(ragged, 0)


def test_points_that_move_have_their_columns_written() -> None:
    chosen = route(replace(SHAPE, moving_points=True), Plan((GATHER, ROWS)))
    assert chosen.write == ("scatter", "collect")
    assert chosen.backward == "weight_gradient + mm + scatter + coordinate_gradient"


def test_work_is_that_of_the_route() -> None:
    """A route that is named is counted, not the one that its plan would lead to."""
    plan = Plan((GATHER, GATHER), "one_pass")
    other = replace(plan, mode="two_step")
    two_step = replace(plan, route=route(SHAPE, other))
    one_pass = replace(plan, route=route(SHAPE, plan))
    other = replace(other, route=two_step.route)
    assert BACKEND.work(SHAPE, two_step) == BACKEND.work(SHAPE, other)
    assert BACKEND.work(SHAPE, two_step) != BACKEND.work(SHAPE, one_pass)


def _call() -> tuple[Sampling, Linear, torch.Tensor]:
    maps = [torch.randn(2, 4, 5, 6), torch.randn(2, 6, 3, 3)]
    geometry = layer_geometry([(5, 6), (3, 3)], (10, 12))
    s = Sampling(maps, torch.rand(14, 2) * 10, None, geometry)
    return s, Linear(torch.randn(9, 10), torch.randn(9), None), torch.randn(14, 9)


@pytest.mark.parametrize("read", [("gather", "gather"), ("fused_linear", ROWS), (ROWS, PRODUCT)])
@pytest.mark.parametrize("in_order", [False, True])
def test_every_route_computes_the_same(
    read: tuple[str, str], in_order: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    s, head, grad = _call()
    # The plan says something else than the route, which decides.
    gather = Plan((GATHER, GATHER), "two_step")
    plan = replace(gather, route=route(SHAPE, gather))
    writes = {
        "gather": "scatter",
        "fused_linear": "feature_gradient",
        ROWS: "collect",
        PRODUCT: "transposed_product",
    }
    named = Route("", "", read, tuple([writes[way] for way in read]))
    usual = BACKEND.executor(SHAPE, s.geometry, plan)
    expected = usual.backward(s, head, grad, None, ALL)
    launches = _launches(monkeypatch)
    torch.use_deterministic_algorithms(in_order)
    forced = BACKEND.executor(SHAPE, s.geometry, replace(plan, route=named))
    value = forced.forward(s, head)
    assert ("gather" in launches) == ("gather" in read)
    torch.testing.assert_close(value, usual.forward(s, head))
    actual = forced.backward(s, head, grad, None, ALL)
    assert ("scatter_atomic" in launches) <= (not in_order)
    for ours, theirs in zip(
        [*actual.features, *actual[1:]], [*expected.features, *expected[1:]], strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def _launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is launched from here on, of gather and scatters, by name."""
    steps: Any = load()
    seen: list[str] = []
    for name in ("gather", "scatter_atomic", "scatter_sorted"):
        launcher = getattr(steps, name)

        def launch(*args: Any, name: str = name, launcher: Any = launcher) -> Any:
            seen.append(name)
            return launcher(*args)

        monkeypatch.setattr(steps, name, launch)
    return seen


@pytest.mark.parametrize("activation", ["relu", "gelu", None])
@pytest.mark.parametrize("mode", ["one_pass", "two_step"])
def test_activations_keep_nan(activation: str | None, mode: str) -> None:
    s, head, _ = _call()
    s.features[0][0] = float("nan")
    plan = Plan((GATHER, ROWS), mode)
    plan = replace(plan, route=route(SHAPE, plan))
    executor = BACKEND.executor(SHAPE, s.geometry, plan)
    value = executor.forward(s, head._replace(activation=activation))
    assert torch.isnan(value).all(dim=1).tolist() == [True] * 7 + [False] * 7
