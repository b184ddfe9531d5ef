"""Plans: what they are, what users see of them, and what a call makes of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pixelnet_triton import Plan, plan_hypercolumn, sparse_hypercolumn
from pixelnet_triton.call import PLAN_NAMES, Options
from pixelnet_triton.call.plan import MODES, STRATEGIES
from pixelnet_triton.call.shape import CallShape
from pixelnet_triton.op import forget_calls, prepare

from .cases import Case, build
from .check import check_case
from .planning import used_plan

VGG_WITH_CONV7 = ((64, 224), (128, 112), (256, 56), (512, 28), (512, 14), (4096, 7))


@pytest.fixture(autouse=True)
def _shipped_profiles_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[None]:
    monkeypatch.setenv("PIXELNET_TRITON_CACHE", str(tmp_path))
    monkeypatch.delenv("PIXELNET_TRITON_PROFILE", raising=False)
    forget_calls()
    yield
    forget_calls()


# The plan itself


def test_a_plan_survives_encoding() -> None:
    for layers in itertools.product(STRATEGIES, repeat=2):
        for mode in MODES:
            plan = Plan(layers, mode)
            assert Plan.decode(plan.encode()) == plan


def test_a_plan_cannot_be_changed() -> None:
    plan = plan_hypercolumn([(1, 8, 4, 4)], 10, 16)
    with pytest.raises(FrozenInstanceError):
        plan.mode = "one_pass"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        plan.estimate.shared = None  # type: ignore[misc, union-attr, assignment]


def test_the_estimate_does_not_count_in_comparisons() -> None:
    planned = plan_hypercolumn([(1, 8, 4, 4)], 10, 16, plan="gather")
    same = Plan(("gather",), planned.mode, planned.route)
    assert planned == same
    assert hash(planned) == hash(same)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((("guess",),), r"layers\[0\]='guess' is unknown; use one of"),
        ((("gather",), "twice"), r"mode='twice' is unknown; use one of"),
        (((),), "layers is empty; expected one strategy for each layer"),
    ],
)
def test_a_plan_of_unknown_words_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan(*arguments)


def test_a_word_is_no_route() -> None:
    with pytest.raises(TypeError, match="route='lists'; expected None, or the Route of a plan"):
        Plan(("gather",), route="lists")  # type: ignore[arg-type]


# What users see


def test_print_shows_every_layer_and_the_gain() -> None:
    shapes = [(5, channels, side, side) for channels, side in VGG_WITH_CONV7]
    plan = plan_hypercolumn(shapes, 2000, 4096, dtype=torch.bfloat16, profile="H200")
    estimate = plan.estimate
    assert estimate is not None
    assert estimate.seconds == pytest.approx(
        sum(x.seconds for x in estimate.layers) + estimate.shared.seconds
    )
    lines = str(plan).splitlines()
    for line, shape, strategy in zip(lines[2:8], shapes, plan.layers, strict=True):
        assert f"{shape[1]} @ {shape[2]} x {shape[3]}" in line
        assert strategy in line
    assert "10000 points on 5 images, 4096 outputs, half precision" in lines[0]
    assert "two_step" in lines[9]
    assert f"{estimate.gather_first / estimate.seconds:.2f}x over gather first" in lines[11]
    assert "NVIDIA H200 (measured" in lines[12]


def test_the_public_plan_is_the_one_in_use() -> None:
    maps = [torch.randn(2, 24, 20, 20), torch.randn(2, 200, 5, 5)]
    for training in (True, False):
        used = used_plan("auto", maps, 700, 64, training=training)
        assert plan_hypercolumn(maps, 350, 64, training=training) == used


@pytest.mark.parametrize("points", [10, 2000])
@pytest.mark.parametrize(("channels", "side"), [(32, 7), (64, 28), (256, 14)])
def test_the_public_plan_of_ragged_points_on_one_image(
    channels: int, side: int, points: int
) -> None:
    """To the CPU they are points like others; so a call sees them."""
    maps = [torch.empty(1, channels, side, side, requires_grad=True)]
    at, index = torch.zeros(points, 2).long(), torch.zeros(points).long()
    for outputs in (16, 1024):
        weight = torch.empty(outputs, channels, requires_grad=True)
        call = prepare.prepare(maps, at, index, weight, None, Options((112, 112)))
        assert plan_hypercolumn(maps, points, outputs, ragged=True) == call.plan


def test_numbers_of_numpy_are_numbers() -> None:
    shapes = [tuple(np.array([5, 8, 4, 4]))]
    plan = plan_hypercolumn(shapes, np.int64(10), np.int32(16))
    assert plan == plan_hypercolumn([(5, 8, 4, 4)], 10, 16)


def test_maps_of_several_kinds_are_planned_as_one_that_is_named() -> None:
    """As under autocast, or of maps that are moved before the call."""
    maps = [torch.zeros(1, 8, 4, 4), torch.zeros(1, 8, 4, 4, dtype=torch.float16, device="meta")]
    plan = plan_hypercolumn(maps, 10, 16, dtype=torch.bfloat16, device="cpu")
    assert "half precision" in str(plan)


ONE = torch.zeros(1, 8, 4, 4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"features_or_shapes": ONE}, TypeError, "features_or_shapes is a Tensor; .*in a list"),
        ({"features_or_shapes": {"a": ONE}}, TypeError, "features_or_shapes is a dict; expected a"),
        ({"features_or_shapes": None}, TypeError, "features_or_shapes is a NoneType"),
        ({"features_or_shapes": (m for m in [ONE])}, TypeError, "features_or_shapes is a gen"),
        (
            {"features_or_shapes": (5, 64, 56, 56)},
            ValueError,
            r"features_or_shapes\[0\] has shape 5; .*single map pass it in a list",
        ),
        (
            {"features_or_shapes": [(2, 8, 4, 4), (3, 8, 4, 4)]},
            ValueError,
            r"features_or_shapes\[1\] has batch size 3 but features_or_shapes\[0\] has 2",
        ),
        (
            {"features_or_shapes": [ONE, ONE.half()]},
            ValueError,
            r"features_or_shapes\[1\] has dtype torch.float16 but .*as dtype=",
        ),
        (
            {"features_or_shapes": [ONE, ONE.to("meta")]},
            ValueError,
            r"features_or_shapes\[1\] has device meta but .*as device=",
        ),
        (
            {"dtype": torch.float64, "profile": "H200"},
            TypeError,
            r"dtype=torch.float64, but the profile is of a GPU \(NVIDIA H200\)",
        ),
        ({"device": "cuda:99"}, ValueError, "device='cuda:99', but torch finds .*'H200'"),
        ({"profile": 5}, TypeError, "profile=5; expected a DeviceProfile"),
        ({"channels_last": "no"}, TypeError, "channels_last='no'; expected a bool"),
        ({"channels_last": 1}, TypeError, "channels_last=1; expected a bool"),
        ({"channels_last": [1]}, TypeError, r"channels_last=\[1\]; expected a bool, or a list"),
        ({"features_or_shapes": []}, TypeError, "features_or_shapes must hold at least one map"),
        (
            {"features_or_shapes": [(1, 8, 4, 4), torch.zeros(1, 8, 4, 4)]},
            TypeError,
            "tensors only or shapes",
        ),
        (
            {"features_or_shapes": [(8, 4, 4)]},
            ValueError,
            r"features_or_shapes\[0\] has shape \(8, 4, 4\)",
        ),
        ({"n_points": -1}, ValueError, "n_points=-1; expected an integer"),
        ({"out_features": 2.5}, ValueError, "out_features=2.5; expected an integer"),
        ({"dtype": torch.int32}, TypeError, "dtype=torch.int32; expected one of"),
        ({"plan": "best"}, ValueError, "plan='best' is unknown"),
        ({"plan": 3}, TypeError, "plan=3; expected a Plan"),
        ({"plan": Plan(("gather",) * 2)}, ValueError, "plan has strategies for 2 layers"),
        ({"channels_last": [True, True]}, ValueError, "channels_last has 2 entries"),
        ({"profile": "H9000"}, ValueError, "profile='H9000' is unknown; shipped are"),
    ],
)
def test_bad_arguments_are_named(arguments: Any, error: Any, message: str) -> None:
    good = {"features_or_shapes": [(1, 8, 4, 4)], "n_points": 10, "out_features": 16}
    with pytest.raises(error, match=message):
        plan_hypercolumn(**{**good, **arguments})


# Choosing for a call


def test_a_call_is_planned_once_for_both_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[tuple[str | Plan, bool]] = []
    plan_for = prepare.plan_for

    def recorded(asked: str | Plan, shape: CallShape, *args: Any) -> Plan:
        planned.append((asked, shape.training))
        return plan_for(asked, shape, *args)

    monkeypatch.setattr(prepare, "plan_for", recorded)
    maps = [torch.randn(2, 24, 12, 12), torch.randn(2, 40, 3, 3)]
    weight = torch.randn(16, 64, requires_grad=True)
    points = torch.rand(2, 6000, 2) * 24
    for _ in range(2):
        sparse_hypercolumn(maps, points, (24, 24), weight=weight).sum().backward()
    assert planned == [("auto", True)]
    with torch.no_grad():
        sparse_hypercolumn(maps, points, (24, 24), weight=weight)
    assert planned[1:] == [("auto", False)]


TWO_LAYERS = Case("plan", ((24, 9, 11), (40, 5, 6)), out_features=24, points=60)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layers", list(itertools.product(STRATEGIES, repeat=2)), ids="-".join)
def test_every_forced_plan_is_right(
    layers: tuple[str, ...], mode: str, device: torch.device
) -> None:
    check_case(TWO_LAYERS, device, plan=Plan(layers, mode))


@pytest.mark.parametrize("name", PLAN_NAMES)
def test_a_planned_plan_can_be_passed_on(name: str, device: torch.device) -> None:
    inputs = build(TWO_LAYERS, device)
    plan = plan_hypercolumn(inputs.features, TWO_LAYERS.points, 24, plan=name)
    check_case(TWO_LAYERS, device, plan=plan)


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("plan", ["gather", "project", "auto"])
def test_nothing_of_the_hypercolumns_is_kept(
    plan: str, activation: str | None, device: torch.device
) -> None:
    """The backward pass keeps inputs and the output, and next to nothing else."""
    maps = [torch.randn(2, 96, 20, 20, device=device), torch.randn(2, 160, 5, 5, device=device)]
    weight = torch.randn(32, 256, device=device, requires_grad=True)
    for feature in maps:
        feature.requires_grad_()
    points = torch.rand(2, 500, 2, device=device) * 40
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        y = sparse_hypercolumn(
            maps, points, (40, 40), weight=weight, activation=activation, plan=plan
        )
    for tensor in (*maps, weight, points, y):
        saved.pop(tensor.untyped_storage().data_ptr(), None)
    assert sum(saved.values()) == 0
    y.sum().backward()
    assert all(feature.grad is not None for feature in maps)
