"""From what a caller asks for and the shape of a call to the plan itself, with its route.

The answer is kept by shape; nothing here looks at values or waits for a device. Both passes of a
call ask the same question, so they get the same plan.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import torch

from ..call import PLAN_NAMES, Backend, CallShape, DeviceProfile, Plan
from ..tools.alike import must_be_alike
from .cost import CostModel, open_strategies
from .profiles import SHIPPED
from .store import profile_for

__all__ = ["chosen_plan", "forget_plans", "may_keep", "plan_for", "profile_of"]


def plan_for(asked: str | Plan, shape: CallShape, backend: Backend, device: torch.device) -> Plan:
    """The plan for calls of that shape, by the profile of the device as things stand."""
    return _kept(asked, shape, backend, device, must_be_alike(), torch.get_num_threads())


def forget_plans() -> None:
    """Plan anew from here on, with the profiles that are there now."""
    _kept.cache_clear()
    _searched.cache_clear()
    _profile.cache_clear()


@lru_cache(maxsize=1024)
def _kept(
    asked: str | Plan,
    shape: CallShape,
    backend: Backend,
    device: torch.device,
    alike: bool,
    threads: int,
) -> Plan:
    return chosen_plan(asked, shape, backend, _profile(backend.name, device, alike, threads))


@lru_cache(maxsize=64)
def _profile(name: str, device: torch.device, alike: bool, threads: int) -> DeviceProfile:
    if name == "gpu" and device.type == "cpu":  # kernels in the interpreter: plan as for a GPU
        return SHIPPED["H200"]
    return profile_for(device, shipped_only=alike)


def profile_of(backend: Backend, device: torch.device) -> DeviceProfile:
    """The profile that calls on that device are planned with, as things stand."""
    return _profile(backend.name, device, must_be_alike(), torch.get_num_threads())


def chosen_plan(
    asked: str | Plan, shape: CallShape, backend: Backend, profile: DeviceProfile
) -> Plan:
    """What `asked` stands for: "auto" the cheapest, other names as they say, a plan itself.

    A plan that is given obeys what there is: without a weight nothing is projected, and of a mode
    that the back end does not have it takes its usual one.
    """
    shape = replace(shape, may_keep=shape.may_keep and may_keep(asked))
    if isinstance(asked, Plan):
        plan = _admitted(asked, shape, backend)
    else:
        plan = _searched(asked, shape.rounded(), backend, profile)
    return CostModel(shape, backend, profile).routed(plan)


@lru_cache(maxsize=1024)
def _searched(asked: str, shape: CallShape, backend: Backend, profile: DeviceProfile) -> Plan:
    """The plan but for its route, for all calls that round to that shape: a search takes
    milliseconds, and in training on images of all sizes every call would have its own. Routes
    depend on the very sizes: whether a map has to be enlarged, whether bands fit."""
    model = CostModel(shape, backend, profile)
    if asked == "auto":
        return model.cheapest()
    if asked in ("gather", "project"):
        return model.cheapest_of_kind(asked)
    if asked in ("one_pass", "two_step"):
        return _admitted(Plan(("gather",) * len(shape.layers), asked), shape, backend)
    raise ValueError(f"plan={asked!r} is unknown; use one of {PLAN_NAMES}")


def may_keep(asked: str | Plan) -> bool:
    """May autograd keep what it needs of such a plan? A plan that is named keeps nothing."""
    if isinstance(asked, Plan):
        return asked.route is not None and asked.route.by_autograd
    return asked == "auto"


def _admitted(plan: Plan, shape: CallShape, backend: Backend) -> Plan:
    known = open_strategies(shape)
    layers = tuple([strategy if strategy in known else known[0] for strategy in plan.layers])
    mode = plan.mode if plan.mode in backend.modes else backend.modes[0]
    return Plan(layers, mode, plan.route)
