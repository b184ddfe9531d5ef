"""The cost model as a pure function, and what it chooses."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from typing import Any

import pytest

from pixelnet_triton import Plan
from pixelnet_triton.call.plan import MODES, STRATEGIES
from pixelnet_triton.call.route import Route
from pixelnet_triton.call.shape import CallShape, LayerShape
from pixelnet_triton.planner.profiles import SHIPPED

from .planning import choose
from .planning import model as model_of

VGG = ((64, 224), (128, 112), (256, 56), (512, 28), (512, 14))
RESNET = ((256, 128), (512, 64), (1024, 32), (2048, 16))
WORKLOADS = {  # layers, images, points per image, outputs
    "W1": ((VGG[0], VGG[2], VGG[4]), 1, 2000, 4096),
    "W2": (VGG, 5, 2000, 4096),
    "W3": ((*VGG, (4096, 7)), 5, 2000, 4096),
    "W4": (RESNET, 16, 2048, 256),
    "W5": (VGG, 5, 2000, 256),
}
PROFILES = {"cpu": SHIPPED["cpu"].with_threads(2), "H200": SHIPPED["H200"]}


def workload(name: str, itemsize: int = 4, training: bool = True) -> CallShape:
    layers, batch, points, width = WORKLOADS[name]
    shapes = tuple(LayerShape(channels, side, side) for channels, side in layers)
    return CallShape(shapes, batch, batch * points, width, itemsize, training=training)


def random_call(source: random.Random) -> CallShape:
    layers = tuple(
        LayerShape(
            source.choice((3, 64, 512)),
            source.choice((1, 7, 40)),
            source.choice((5, 16, 100)),
            source.random() < 0.5,
        )
        for _ in range(source.randint(1, 4))
    )
    return CallShape(
        layers,
        source.choice((1, 4)),
        source.choice((8, 400, 20000)),
        source.choice((8, 256, 4096)),
        source.choice((2, 4)),
        source.random() < 0.3,
        source.random() < 0.5,
    )


def strategies_of(plan: Plan) -> str:
    return "".join([strategy[0] for strategy in plan.layers])


def test_flops_are_those_of_the_algebra() -> None:
    """The backward pass of W3 falls from 912 to about 182 GFLOP."""
    model = model_of(workload("W3", 2), SHIPPED["H200"])
    forward = model_of(workload("W3", 2, training=False), SHIPPED["H200"])
    gather = Plan(("gather",) * 6, "two_step")

    def backward(*write: str) -> float:
        routes = [Route("", "", gather.layers, words) for words in (write, ())]
        both, before = (replace(gather, route=route) for route in routes)
        return (model.work(both).total.flops - forward.work(before).total.flops) / 1e9

    before = replace(gather, route=Route("", "", gather.layers, ()))
    assert forward.work(before).total.flops == 2 * 10000 * 5568 * 4096
    assert backward(*["scatter"] * 6) == pytest.approx(912, rel=0.002)
    assert backward(*["scatter"] * 4, *["collect"] * 2) == pytest.approx(182, rel=0.03)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_more_work_never_costs_less(profile: Any) -> None:
    """Within one path: small calls, and maps that have to be converted, take others."""
    source = random.Random(0)
    for _ in range(100):
        layers = tuple(LayerShape(source.choice((16, 256)), 7, 20) for _ in range(3))
        call = CallShape(layers, 2, source.choice((4000, 90000)), source.choice((8, 300, 4096)))
        first, *others = call.layers
        larger = [
            replace(call, points=2 * call.points),
            replace(call, out_features=2 * call.out_features),
            replace(call, batch=2 * call.batch),
            replace(call, layers=(replace(first, channels=2 * first.channels), *others)),
            replace(call, layers=(replace(first, rows=2 * first.rows), *others)),
        ]
        model, inference = (model_of(replace(call, training=t), profile) for t in (True, False))
        for mode in model.backend.modes:
            plan = Plan(tuple(source.choices(STRATEGIES, k=len(layers))), mode)
            assert model.seconds(plan) > inference.seconds(plan)
            for other in larger:
                assert model_of(other, profile).seconds(plan) >= model.seconds(plan)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_auto_is_the_cheapest_of_all_plans(profile: Any) -> None:
    source = random.Random(1)
    for _ in range(60):
        model = model_of(random_call(source), profile)
        choices = itertools.product(STRATEGIES, repeat=len(model.shape.layers))
        every = [Plan(layers, mode) for layers in choices for mode in model.backend.modes]
        least = min(model.seconds(plan) for plan in every)
        assert model.seconds(model.cheapest()) == pytest.approx(least, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "expected", "mode"),
    [
        ("W1", "ggg", "two_step"),
        ("W2", "gggpp", "two_step"),
        ("W3", "gggppp", "two_step"),
        ("W4", "ggpp", "two_step"),
        ("W5", "ggggg", "two_step"),
    ],
)
def test_known_choices_on_a_gpu(name: str, expected: str, mode: str) -> None:
    plan = choose("auto", workload(name, 2, training=False), SHIPPED["H200"])
    assert (strategies_of(plan), plan.mode) == (expected, mode)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("W1", "ggp"), ("W2", "gggpp"), ("W3", "gggppp"), ("W4", "ggpp"), ("W5", "gggpp")],
)
def test_known_choices_on_the_cpu(name: str, expected: str) -> None:
    """The fastest plans as measured (docs/planner-measurements.md)."""
    plan = choose("auto", workload(name), PROFILES["cpu"])
    assert (strategies_of(plan), plan.mode) == (expected, "two_step")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("width", [64, 512, 4096])
def test_the_rule_of_thumb_on_the_cpu(width: int, threads: int) -> None:
    """Project where C (1 - cells / P) is well above 12; gather where cells far outnumber points.

    In between a narrow layer may go either way: 1024 @ 56 x 56, 4,000 points on two images, 64
    outputs took 31 ms gathered and 24 projected, with 1.6 cells a point.
    """
    profile = SHIPPED["cpu"].with_threads(threads)
    for channels, side in itertools.product((64, 256, 1024), (7, 14, 28, 56, 112)):
        call = CallShape((LayerShape(channels, side, side),), 2, 4000, width)
        plan = choose("auto", call, profile)
        saved = channels * (1 - 2 * side**2 / 4000)
        if saved > 40 or 2 * side**2 > 2 * 4000:
            assert strategies_of(plan) == ("p" if saved > 0 else "g"), (channels, side)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("channels", "side"), [(6, 14), (8, 7), (8, 14), (10, 7), (10, 14)])
def test_what_projecting_saves_of_thin_layers_is_not_worth_it(
    channels: int, side: int, threads: int
) -> None:
    """C (1 - cells / P) is below 12 here; were products four times slower, it would be worth it."""
    call = CallShape((LayerShape(channels, side, side),), 2, 4000, 4096)
    profile = SHIPPED["cpu"].with_threads(threads)
    assert strategies_of(choose("auto", call, profile)) == "g"
    slower = replace(profile, dense_flops_32=profile.dense_flops_32 / 4)
    assert strategies_of(choose("auto", call, slower)) == "p"


def test_without_a_weight_there_is_nothing_to_project() -> None:
    call = replace(workload("W4", 2), out_features=0)
    for profile in SHIPPED.values():
        for asked in ("auto", "project", Plan(("project",) * 4, "one_pass")):
            assert strategies_of(choose(asked, call, profile)) == "gggg"


def test_names_mean_what_they_say() -> None:
    call = workload("W4", 2)
    for profile in SHIPPED.values():
        assert choose("gather", call, profile).projected == []
        assert choose("project", call, profile).gathered == []
        for mode in MODES:
            plan = choose(mode, call, profile)
            assert plan.layers == ("gather",) * 4
            assert plan.mode == ("two_step" if profile.kind == "cpu" else mode)
    with pytest.raises(ValueError, match="plan='best' is unknown; use one of"):
        choose("best", call, SHIPPED["cpu"])
