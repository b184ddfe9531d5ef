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
from pixelnet_triton.gpu.routes import open_routes
from pixelnet_triton.planner.profiles import SHIPPED

from ..planning import choose

SHAPE = CallShape((LayerShape(4, 5, 6), LayerShape(6, 3, 3)), 2, 14, 9)
GATHER, PROJECT = "gather", "project"
ONE_PASS, ROWS, BAND = "fused_linear", "project_rows", "project_band"
ALL = Wanted((True, True), True, True, True)


def route(shape: CallShape, plan: Plan) -> Route:
    """The first route of a plan."""
    return open_routes(shape, plan)[0]


@pytest.mark.parametrize(
    ("layers", "mode", "forward", "read"),
    [
        ((GATHER, GATHER), "two_step", "gather + linear", (GATHER, GATHER)),
        ((GATHER, GATHER), "one_pass", "fused_linear", ("fused_linear",) * 2),
        ((GATHER, PROJECT), "one_pass", "fused_linear + rows", (ONE_PASS, ROWS)),
        ((PROJECT, PROJECT), "one_pass", "rows", (ROWS, ROWS)),
        ((GATHER, PROJECT), "two_step", "gather + linear + rows", (GATHER, ROWS)),
    ],
)
def test_a_plan_has_a_route(
    layers: tuple[str, str], mode: str, forward: str, read: tuple[str, str]
) -> None:
    chosen = route(SHAPE, Plan(layers, mode))
    assert (chosen.forward, chosen.read) == (forward, read)
    assert route(replace(SHAPE, training=False), Plan(layers, mode)).backward == ""


def test_projected_layers_of_two_steps_have_several_ways() -> None:
    plan = Plan((GATHER, PROJECT), "two_step")
    hopper = replace(SHAPE, capability=90, itemsize=2, out_features=16)
    assert _ways(hopper, plan) == [BAND, ROWS]
    assert _ways(hopper, replace(plan, mode="one_pass")) == [ROWS]
    assert _ways(replace(hopper, out_features=4095), plan) == [ROWS]
    assert _ways(replace(hopper, itemsize=4), plan) == [ROWS]
    assert _ways(replace(hopper, ragged=True), plan) == [BAND, ROWS]
    assert _ways(replace(hopper, capability=80), plan) == [ROWS]
    large = replace(hopper, layers=(LayerShape(4, 5, 6), LayerShape(6, 100, 100)))
    assert _ways(large, plan) == [ROWS]


def _ways(shape: CallShape, plan: Plan) -> list[str]:
    return list(dict.fromkeys(way.read[1] for way in open_routes(shape, plan)))


def test_gradients_are_written_as_layers_are_read_or_as_cells_are_few() -> None:
    plan = Plan((GATHER, PROJECT), "two_step")
    # 30 and 9 cells an image, of two
    for points, written in (
        (1000, [("scatter", "collect"), ("collect", "collect")]),
        (40, [("scatter", "collect"), ("collect", "collect")]),
        (24, [("scatter", "collect"), ("scatter", "scatter")]),
        (10, [("scatter", "collect"), ("scatter", "scatter")]),
    ):
        ways = open_routes(replace(SHAPE, points=points), plan)
        assert list(dict.fromkeys(way.write for way in ways)) == written


@pytest.mark.parametrize(
    "read", [(ONE_PASS, GATHER), (BAND, ROWS), (ONE_PASS, BAND), (GATHER, "project_product")]
)
def test_routes_that_no_kernel_takes_do_not_fit(read: tuple[str, str]) -> None:
    """Then a plan finds one by itself."""
    shape = replace(SHAPE, capability=90, itemsize=2, out_features=16, training=False)
    plan = Plan((GATHER, PROJECT), "two_step", Route("", "", read, ()))
    assert not BACKEND.fits(shape, plan, plan.route)
    assert choose(plan, shape, SHIPPED["H200"]).route != plan.route


@pytest.mark.parametrize(
    ("version", "served"),
    [("3.3.1", False), ("3.4.0", True), ("3.10.0+git1a2b", True), ("4.0.0", True)],
)
def test_versions_of_triton(version: str, served: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triton.__version__", version)
    reasons = BACKEND.unserved(SHAPE)
    assert reasons == [] if served else f"{version} is installed" in reasons[0]


def test_points_that_move_have_their_columns_written() -> None:
    chosen = route(replace(SHAPE, moving_points=True), Plan((GATHER, PROJECT)))
    assert chosen.write == ("scatter", "scatter")


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


READS = [(GATHER, GATHER), (ONE_PASS, ONE_PASS), (ONE_PASS, ROWS), (GATHER, ROWS), (ROWS, ROWS)]


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("write", [("scatter", "collect"), ("collect", "collect")])
@pytest.mark.parametrize("moving", [False, True])
def test_every_route_computes_the_same(
    read: tuple[str, str], write: tuple[str, str], moving: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    s, head, grad = _call()
    # The plan says something else than the route, which decides.
    gather = Plan((GATHER, GATHER), "two_step")
    plan = replace(gather, route=route(SHAPE, gather))
    usual = BACKEND.executor(SHAPE, s.geometry, plan)
    expected = usual.backward(s, head, grad, None, ALL)
    launches = _launches(monkeypatch)
    forced = BACKEND.executor(SHAPE, s.geometry, replace(plan, route=Route("", "", read, write)))
    value = forced.forward(s, head)
    assert ("gather" in launches) == (GATHER in read)
    torch.testing.assert_close(value, usual.forward(s, head))
    actual = forced.backward(s, head, grad, None, ALL._replace(points=moving))
    if not moving:
        expected = expected._replace(points=None)
    for ours, theirs in zip(
        [*actual.features, *actual[1:]], [*expected.features, *expected[1:]], strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_layers_of_one_word_need_not_be_neighbours() -> None:
    maps = [torch.randn(2, c, *size) for c, size in ((4, (5, 6)), (6, (3, 3)), (5, (2, 4)))]
    geometry = layer_geometry([m.shape[2:] for m in maps], (10, 12))
    s = Sampling(maps, torch.rand(14, 2) * 10, None, geometry)
    head, grad = Linear(torch.randn(9, 15), None, None), torch.randn(14, 9)
    results = []
    for read, write in (
        ((GATHER,) * 3, ("scatter",) * 3),
        ((GATHER, ROWS, GATHER), ("scatter", "collect", "scatter")),
        ((ONE_PASS, ROWS, ONE_PASS), ("scatter", "collect", "scatter")),
    ):
        plan = Plan((GATHER,) * 3, "two_step", Route("", "", read, write))
        executor = BACKEND.executor(SHAPE, geometry, plan)
        gradients = executor.backward(s, head, grad, None, Wanted((True,) * 3, False, True, False))
        results.append([executor.forward(s, head), *gradients.features, gradients.weight])
    torch.testing.assert_close(results[1], results[0])


def _launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Gathers of the forward pass from here on, by name."""
    steps: Any = load()
    seen: list[str] = []

    def noting(launcher: Any) -> Any:
        def launch(*args: Any) -> Any:
            seen.append("gather")
            return launcher(*args)

        return launch

    for name in ("gather", "gather_like"):
        monkeypatch.setattr(steps, name, noting(getattr(steps, name)))
    return seen


@pytest.mark.parametrize("activation", ["relu", "gelu", None])
@pytest.mark.parametrize("mode", ["one_pass", "two_step"])
def test_activations_keep_nan(activation: str | None, mode: str) -> None:
    s, head, _ = _call()
    s.features[0][0] = float("nan")
    plan = Plan((GATHER, PROJECT), mode)
    plan = replace(plan, route=route(SHAPE, plan))
    executor = BACKEND.executor(SHAPE, s.geometry, plan)
    value = executor.forward(s, head._replace(activation=activation))
    assert torch.isnan(value).all(dim=1).tolist() == [True] * 7 + [False] * 7


def test_an_epilogue_that_loses_nan_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a library of products may have it, whose documentation does not say."""
    s, head, _ = _call()
    s.features[0][0] = float("nan")
    taken: list[torch.Size] = []

    def lossy(bias: torch.Tensor, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        taken.append(rows.shape)
        return torch.addmm(bias, rows, weight).nan_to_num(0.0).relu()

    monkeypatch.setattr(load(), "_KEEPS_NAN", {})
    monkeypatch.setattr(torch, "_addmm_activation", lossy)
    plan = Plan((GATHER, GATHER), "two_step", Route("", "", (GATHER, GATHER), ()))
    for _ in range(2):
        executor = BACKEND.executor(replace(SHAPE, training=False), s.geometry, plan)
        value = executor.forward(s, head._replace(activation="relu"))
        assert torch.isnan(value).all(dim=1).tolist() == [True] * 7 + [False] * 7
    assert len(taken) == 1
