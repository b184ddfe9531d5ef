"""From the name of a plan and the shapes of a call to the plan itself.

Called for every forward and every backward pass, so the answer is kept by shape; nothing here
looks at values or waits for a device. Both passes of a call ask with the same key, so they get
the same plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ..call.plan import PLAN_NAMES, Plan
from ..call.profile import DeviceProfile
from ..call.shape import CallShape, LayerShape, bucket
from ..cpu.products import multiplies_half
from .cost import CostModel
from .profiles import SHIPPED
from .store import profile_for

__all__ = [
    "PLAN_NAMES",
    "forget_plans",
    "forward_only",
    "must_be_alike",
    "named_plan",
    "resolve_plan",
]

_FORWARD_ONLY = "-forward"


def resolve_plan(
    name: str,
    features: Sequence[Tensor],
    points: int,
    out_features: int,
    *,
    ragged: bool = False,
    kernels: bool = False,
    by_shape_alone: bool = False,
) -> Plan:
    """The plan that `name` (or an encoded plan) stands for at these shapes.

    `points` counts those of all images; `kernels`: the Triton kernels will compute, wherever the
    tensors are; `by_shape_alone`: leave out what was measured on this machine. A name from
    :func:`forward_only` leaves the backward pass out of account.
    """
    if ":" in name:
        return Plan.decode(name)
    first = features[0]
    return _resolve(
        name,
        tuple([f.shape for f in features]),
        tuple([f.stride(1) == 1 for f in features]),
        bucket(points),
        out_features,
        first.dtype,
        first.device,
        ragged,
        by_shape_alone or must_be_alike(),
        torch.get_num_threads(),
        kernels,
    )


def forward_only(name: str) -> str:
    """The name of the same plan where no gradient is wanted."""
    return name + _FORWARD_ONLY


def forget_plans() -> None:
    """Plan anew from here on, with the profiles that are there now."""
    _resolve.cache_clear()
    _profile.cache_clear()


def must_be_alike() -> bool:
    """Must two processes, or two runs, choose alike? Then nothing measured may enter."""
    return torch.are_deterministic_algorithms_enabled() or (
        torch.distributed.is_available() and torch.distributed.is_initialized()
    )


@lru_cache(maxsize=1024)
def _resolve(
    name: str,
    shapes: tuple[torch.Size, ...],
    channels_last: tuple[bool, ...],
    points: int,
    out_features: int,
    dtype: torch.dtype,
    device: torch.device,
    ragged: bool,
    same_everywhere: bool,
    threads: int,
    kernels: bool,
) -> Plan:
    layers = tuple(
        LayerShape(shape[1], shape[2], shape[3], last or shape[1] == 1)
        for shape, last in zip(shapes, channels_last, strict=True)
    )
    training = not name.endswith(_FORWARD_ONLY)
    name = name.removesuffix(_FORWARD_ONLY)
    call = CallShape(
        layers,
        shapes[0][0],
        points,
        out_features,
        dtype.itemsize,
        ragged,
        training,
        device.type == "cpu" and not kernels and multiplies_half(dtype),
    )
    return named_plan(name, call, _profile(device, same_everywhere, threads, kernels))


@lru_cache(maxsize=64)
def _profile(
    device: torch.device, same_everywhere: bool, threads: int, kernels: bool
) -> DeviceProfile:
    if device.type == "cpu" and kernels:  # kernels on the CPU: plan as for a GPU
        return SHIPPED["H200"]
    return profile_for(device, shipped_only=same_everywhere)


def named_plan(name: str, call: CallShape, profile: DeviceProfile) -> Plan:
    """The plan that `name` stands for: "auto" the cheapest, the others as they say."""
    model = CostModel(call, profile)
    if name == "auto":
        return model.cheapest()
    if name in ("gather", "project"):
        return model.cheapest_of_kind(name)
    if name in ("one_pass", "two_step"):
        return Plan(("gather",) * len(call.layers), name)
    raise ValueError(f"plan={name!r} is unknown; use one of {PLAN_NAMES}")
