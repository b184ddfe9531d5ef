"""Everything that the benchmarks take from inside the library, in one place.

The rest of this folder knows its public functions, its reference and its metrics alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from pixelnet_triton import Plan
from pixelnet_triton.call.shape import CallShape, LayerShape
from pixelnet_triton.cpu.products import multiplies_half
from pixelnet_triton.env_report import cpu_name, environment
from pixelnet_triton.planner import resolve_plan, work_cpu
from pixelnet_triton.planner.calibration import Probe, fit
from pixelnet_triton.planner.choose import forget_plans, named_plan
from pixelnet_triton.planner.cost import CostModel
from pixelnet_triton.planner.profiles import SHIPPED
from pixelnet_triton.planner.store import profile_for
from pixelnet_triton.selfcheck import source_commit

from .workloads import Workload

__all__ = [
    "Plan",
    "call_shape",
    "cpu_name",
    "environment",
    "fitted",
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
    """The plan behind the name of one of the library's peers, or behind an encoded plan."""
    if ":" in name:
        return Plan.decode(name)
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


def recorded_shape(fields: dict[str, Any]) -> CallShape:
    """A call shape from a line of results; old ones have another name for `half_products`."""
    fields = dict(fields)
    if "matrix_units" in fields:
        fields["half_products"] = fields.pop("matrix_units")
    layers = tuple(LayerShape(**layer) for layer in fields.pop("layers"))
    return CallShape(layers=layers, **fields)


def fitted(lines: Iterable[dict[str, Any]], threads: int) -> dict[str, Any]:
    """The profile nearest to lines of bench.planner_regret.

    By name, a plan that gathers all layers keeps nothing for its backward pass, which auto does in
    small calls; it counts with auto's time if that is what auto did, and in small calls only then.
    """
    probes = []
    for line in lines:
        call, measured = recorded_shape(line["call"]), dict(line["measured"])
        gather = Plan(("gather",) * len(call.layers), "two_step").encode()
        if line["chosen"] == gather:
            measured[gather] = line["auto"]
        elif work_cpu.way_of(call, all_gathered=True) is work_cpu.Way.KEPT:
            del measured[gather]
        probes += [Probe(call, Plan.decode(plan), time) for plan, time in measured.items()]
    return fit(probes, SHIPPED["cpu"].with_threads(threads)).as_dict()
