"""`plan_hypercolumn` answers as `sparse_hypercolumn` does, whatever is known of the call."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from pixelnet_triton import Plan, plan_hypercolumn
from pixelnet_triton.call import Options
from pixelnet_triton.op.prepare import prepare


def random_question(rng: random.Random) -> tuple[dict[str, Any], dict[str, Any], list[Tensor]]:
    """Of one call: what `plan_hypercolumn` is told, arguments of the call, its maps."""
    side, batch = rng.choice((32, 56, 63, 224)), rng.choice((1, 1, 2, 4))
    per_cell = sorted(rng.choice((1, 2, 3, 4, 8, 16)) for _ in range(rng.randint(1, 4)))
    channels_last = rng.random() < 0.5
    dtype = rng.choice((torch.float32, torch.float32, torch.float64, torch.bfloat16))
    maps = []
    for stride in per_cell:
        size = (batch, rng.choice((3, 16, 64, 256)), *[-(-side // stride)] * 2)
        feature = torch.empty(size, dtype=dtype)
        if channels_last:
            feature = feature.contiguous(memory_format=torch.channels_last)
        maps.append(feature)
    ragged, moving = rng.random() < 0.3, rng.random() < 0.2
    coordinates = rng.choice(("pixel", "pixel", "unit", "normalized"))
    integers = coordinates == "pixel" and not moving and rng.random() < 0.5
    points_dtype = torch.int64 if integers else rng.choice((torch.float32, torch.float64))
    options: dict[str, Any] = {"image_size": (side, side), "coordinates": coordinates}
    if rng.random() < 0.3:
        options["strides"] = per_cell
    elif rng.random() < 0.3:
        options["align_corners"] = True
    count = rng.choice((5, 16, 200, 700, 3000))
    shape = (batch * count, 2) if ragged else (batch, count, 2)
    points = torch.zeros(shape, dtype=points_dtype, requires_grad=moving)
    training = moving or rng.random() < 0.5
    width = sum(feature.shape[1] for feature in maps)
    weight = torch.empty(rng.choice((4, 64, 256, 1024)), width, dtype=dtype, requires_grad=training)
    told = {
        "n_points": batch * count if ragged else count,
        "out_features": weight.shape[0],
        "plan": rng.choice(("auto", "auto", "gather", "project")),
        "ragged": ragged,
        "training": training,
        "moving_points": moving,
        "nearest": rng.random() < 0.1,
        "points_dtype": points_dtype,
        **options,
    }
    index = torch.zeros(batch * count, dtype=torch.int64) if ragged else None
    if told["nearest"]:
        options["interpolation"] = "nearest"
    asked = {"points": points, "batch_index": index, "weight": weight, "plan": told["plan"]}
    return told, asked | options, maps


def test_a_call_takes_the_plan_that_was_made_for_it(device: torch.device) -> None:
    """By whatever is known of the call; and the table is of the route that is taken."""
    if device.type != "cpu":
        pytest.skip("the routes of the CPU are the most")
    rng = random.Random(0)
    for _ in range(200):
        told, asked, maps = random_question(rng)
        planned = plan_hypercolumn(maps, **told)
        options = {k: v for k, v in asked.items() if k not in ("points", "batch_index", "weight")}
        call = prepare(
            maps, asked["points"], asked["batch_index"], asked["weight"], None, Options(**options)
        )
        assert isinstance(call.plan, Plan)
        assert (call.plan, call.plan.route) == (planned, planned.route), told
        assert planned.estimate is not None
        assert planned.estimate.route == f"cpu: {planned.route}"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"image_size": (0, 8)}, ValueError, r"image_size=\(0, 8\)"),
        ({"coordinates": "metres"}, ValueError, r"coordinates='metres' is unknown"),
        ({"strides": [1, 2]}, ValueError, r"strides=\(1, 2\); expected one entry"),
        ({"strides": [1], "align_corners": True}, ValueError, r"cannot be combined"),
        ({"points_dtype": torch.bool}, TypeError, r"points_dtype=torch.bool; expected a dtype"),
        (
            {"points_dtype": torch.int64, "moving_points": True},
            ValueError,
            r"points_dtype=torch.int64 with moving_points=True",
        ),
    ],
)
def test_what_cannot_be_of_a_call_is_refused(arguments: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        plan_hypercolumn([(1, 8, 4, 4)], 10, 16, **arguments)


def test_the_table_is_of_the_route_that_is_taken(device: torch.device) -> None:
    """A call of 71 points goes as one of 64 does, although it would keep more than is allowed."""
    if device.type != "cpu":
        pytest.skip("about the routes of the CPU")
    planned = plan_hypercolumn([(1, 3400, 14, 14)], 71, 256, channels_last=False, profile="cpu")
    assert planned.route is not None
    assert planned.route.by_autograd
    assert planned.estimate is not None
    assert planned.estimate.route == f"cpu: {planned.route}"
