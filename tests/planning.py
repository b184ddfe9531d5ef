"""Planning as the operator does it, for tests: the shape of a call, its plan, and forced routes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pixelnet_triton import DeviceProfile, Plan
from pixelnet_triton.call import Backend, CallShape, Options, Route, Sampling
from pixelnet_triton.cpu import routes
from pixelnet_triton.op.dispatch import backend_for, backend_named
from pixelnet_triton.op.prepare import prepare
from pixelnet_triton.op.shapes import shape_of
from pixelnet_triton.planner import CostModel, chosen_plan, plan_for

from .cases import Inputs

__all__ = ["choose", "forced_plan", "model", "shape_of_inputs", "used_plan"]

NOMINAL_SIZE = (8, 8)


def model(shape: CallShape, profile: DeviceProfile) -> CostModel:
    """The cost model for the back end that the profile is of."""
    return CostModel(shape, backend_named(profile.kind), profile)


def choose(asked: str | Plan, shape: CallShape, profile: DeviceProfile) -> Plan:
    """What is chosen for the back end that the profile is of."""
    return chosen_plan(asked, shape, backend_named(profile.kind), profile)


def used_plan(
    asked: str | Plan,
    features: Sequence[Tensor],
    points: int,
    out_features: int,
    *,
    ragged: bool = False,
    training: bool = True,
) -> Plan:
    """The plan of a call with P `points` (or of all images, where `ragged`), as things stand."""
    batch = features[0].shape[0]
    at = torch.rand((points, 2)) if ragged else torch.rand((batch, points // batch, 2))
    index = torch.zeros(points, dtype=torch.int64) if ragged else None
    weight = torch.empty(out_features, sum(f.shape[1] for f in features))
    backend, shape = _served(list(features), at, index, weight, training, False)
    return plan_for(asked, shape, backend, features[0].device)


def shape_of_inputs(inputs: Inputs, training: bool = True) -> tuple[Backend, CallShape]:
    """The back end and the shape of a test case."""
    moving = inputs.moving_points and inputs.points.is_floating_point()
    return _served(
        inputs.features,
        inputs.points,
        inputs.batch_index,
        inputs.weight,
        training,
        training and moving,
        inputs.case.image_size,
        **inputs.options,
    )


def _served(
    features: list[Tensor],
    points: Tensor,
    batch_index: Tensor | None,
    weight: Tensor | None,
    training: bool,
    moving_points: bool,
    image_size: tuple[int, int] = NOMINAL_SIZE,
    **options: object,
) -> tuple[Backend, CallShape]:
    asked = Options(image_size, **options)  # type: ignore[arg-type]
    call = prepare(features, points, batch_index, weight, None, asked)
    s = Sampling(features, points.reshape(-1, 2), batch_index, call.geometry)
    backend = backend_for(features[0].device)
    flags = {"training": training, "moving_points": moving_points, "may_keep": True}
    return backend, shape_of(s, weight, backend, **flags)


#: What a route prefers, by name: its ways, and words for reading and writing maps.
PREFERENCES = {
    "expression": ("expression", "autograd", ("sampled",), ()),
    "picking": ("expression", "autograd", ("picked",), ()),
    "grid_sample": ("grid_sample", "grid_sample", (), ()),
    "lists": ("lists", "lists", ("converted",), ("turned", "listed")),
    "cell-by-cell": ("lists", "lists", ("picked", "planes"), ("planes", "touched")),
    "one-by-one": ("lists", "lists", ("picked", "planes"), ("added",)),
}


def forced_plan(inputs: Inputs, name: str, training: bool = True) -> Plan | None:
    """All layers gathered by a route of PREFERENCES; None where it is not open to the case."""
    backend, shape = shape_of_inputs(inputs, training)
    plan = Plan(("gather",) * len(shape.layers), "two_step")
    forward, backward, reads, writes = PREFERENCES[name]
    for route in backend.routes(shape, plan):
        if (route.forward, route.backward) != (forward, backward if training else ""):
            continue
        if forward == "expression" and reads[0] not in route.read:
            continue
        if forward == "lists":
            layers = range(len(shape.layers))
            read = [_preferred(reads, routes.admissible_reads(shape, i)) for i in layers]
            write = [_preferred(writes, routes.admissible_writes(shape, i)) for i in layers]
            written = tuple(write) if training else ()
            route = Route(route.forward, route.backward, tuple(read), written)
        assert backend.fits(shape, plan, route)
        return replace(plan, route=route)
    return None


def _preferred(preferences: Sequence[str], words: Sequence[str]) -> str:
    return next((word for word in preferences if word in words), words[0])
