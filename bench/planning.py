"""Everything that the benchmarks take from inside the library, in one place.

The rest of this folder knows its public functions, its reference and its metrics alone.
"""

from __future__ import annotations

import torch

from pixelnet_triton import Plan
from pixelnet_triton.call.shape import CallShape, LayerShape
from pixelnet_triton.cpu.products import multiplies_half
from pixelnet_triton.env_report import cpu_name, environment
from pixelnet_triton.planner import resolve_plan
from pixelnet_triton.planner.choose import forget_plans, named_plan
from pixelnet_triton.planner.cost import CostModel
from pixelnet_triton.planner.store import profile_for
from pixelnet_triton.selfcheck import source_commit

from .workloads import Workload

__all__ = [
    "Plan",
    "call_shape",
    "cpu_name",
    "environment",
    "forget_plans",
    "plan_of",
    "planned_flops",
    "predicted",
    "resolve_plan",
    "source_commit",
]


def call_shape(workload: Workload, training: bool, device: torch.device) -> CallShape:
    """What the planner sees of a workload."""
    on_cpu = device.type == "cpu"
    last, image = workload.channels_last, workload.image_size
    layers = tuple(
        LayerShape(*layer, last or layer[0] == 1, exact=workload.pixels and layer[1:] == image)
        for layer in workload.layers
    )
    return CallShape(
        layers,
        workload.images,
        workload.all_points,
        workload.out_features,
        workload.itemsize,
        ragged=workload.ragged,
        training=training,
        half_products=not on_cpu or multiplies_half(getattr(torch, workload.dtype)),
    )


def plan_of(name: str, workload: Workload, training: bool, device: torch.device) -> Plan:
    """The plan behind the name of one of the library's own rows."""
    shape = call_shape(workload, training, device)
    if name.startswith("project_"):
        model = CostModel(shape, profile_for(device))
        offered = [model.strategies(i) for i in range(len(workload.layers))]
        # Interpolation as a product is offered for coarse maps; gathered rows always are.
        strategies = tuple(name if name in s else "project_gather" for s in offered)
        return Plan(strategies, model.modes[-1])
    return named_plan(name, shape, profile_for(device))


def planned_flops(plan: Plan, workload: Workload, training: bool, device: torch.device) -> float:
    """FLOPs that a plan executes in matrix products."""
    model = CostModel(call_shape(workload, training, device), profile_for(device))
    return model.work(plan).flops


def predicted(
    plan: Plan, workload: Workload, training: bool, device: torch.device
) -> tuple[float, str]:
    """Seconds that the planner expects, and the profile that says so."""
    profile = profile_for(device)
    return CostModel(call_shape(workload, training, device), profile).seconds(plan), str(profile)
