"""Everything that the harness takes from inside the library, in one place.

The rest of this folder knows its public functions, its reference and its metrics alone, and
test_patch.py the table of what is patched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from pixelnet_triton import DeviceProfile
from pixelnet_triton import Plan as Plan
from pixelnet_triton.calibration import Probe, fit
from pixelnet_triton.call import MODES as MODES
from pixelnet_triton.call import Backend, CallShape, LayerShape, Route
from pixelnet_triton.env_report import environment as environment
from pixelnet_triton.gpu import BACKEND as GPU
from pixelnet_triton.op import backend_for
from pixelnet_triton.op import forget_calls as forget_calls
from pixelnet_triton.planner import CostModel, chosen_plan, profile_of
from pixelnet_triton.planner.profiles import SHIPPED
from pixelnet_triton.selfcheck import source_commit as source_commit

from .results import Line
from .workloads import Case

H200 = SHIPPED["H200"]


def call_shape(case: Case, device: torch.device) -> CallShape:
    """What the planner sees of a case."""
    workload = case.workload
    last, image = workload.channels_last, workload.image_size
    layers = tuple(
        LayerShape(*layer, last or layer[0] == 1, exact=workload.pixels and layer[1:] == image)
        for layer in workload.layers
    )
    half = _planner(device)[0].multiplies(getattr(torch, workload.dtype))
    sizes = (workload.images, workload.all_points, workload.out_features, workload.itemsize)
    # `grid_sample` finds integer points exactly, because all strides are powers of two.
    single = workload.pixels
    return CallShape(layers, *sizes, workload.ragged, case.training, half, single=single)


def _planner(device: torch.device) -> tuple[Backend, DeviceProfile]:
    """What plans calls on that device; for a GPU that is not there, as on an H200."""
    if device.type == "cuda" and not torch.cuda.is_available():
        return GPU, H200
    backend = backend_for(device)
    return backend, profile_of(backend, device)


def plan_of(name: str, case: Case, device: torch.device) -> Plan:
    """The plan behind the name of one of the library's peers, behind an encoded plan, or behind one
    with its route (`route_names`)."""
    if ":" in name:
        plan = Plan.decode(name.partition("#")[0])
        return _routed(name, plan, case, device) if "#" in name else plan
    shape = call_shape(case, device)
    backend, profile = _planner(device)
    # Without its route, which a call finds by itself.
    return replace(chosen_plan(name, shape, backend, profile), route=None)


def _model(case: Case, device: torch.device) -> CostModel:
    return CostModel(call_shape(case, device), *_planner(device))


def _name(plan: Plan, route: Route) -> str:
    """mode:strategies#how maps are read/how their gradients are written."""
    return f"{plan.encode()}#{','.join(route.read)}/{','.join(route.write)}"


def route_names(plan: Plan, case: Case, device: torch.device) -> list[str]:
    """A name for each route of a plan, the one that the planner takes first."""
    model = _model(case, device)
    chosen = model.routed(replace(plan, route=None)).route
    routes = sorted(model.backend.routes(model.shape, plan), key=lambda route: route != chosen)
    return [_name(plan, route) for route in routes]


def _routed(name: str, plan: Plan, case: Case, device: torch.device) -> Plan:
    model = _model(case, device)
    for route in model.backend.routes(model.shape, plan):
        if _name(plan, route) == name:
            return replace(plan, route=route)
    raise ValueError(f"{name}: {case} has no such route")


def fitted(measured: Sequence[tuple[Case, str, float]]) -> DeviceProfile:
    """The H200's profile with the rates that fit best to routes that took so many seconds."""
    device = torch.device("cuda")
    probes = [
        Probe(call_shape(case, device), plan_of(name, case, device), seconds)
        for case, name, seconds in measured
    ]
    return fit(probes, GPU, H200)


def expected(plan: Plan, case: Case, device: torch.device) -> Line:
    """FLOPs that a plan executes in matrix products, the seconds that are predicted, and the
    profile that predicts them."""
    cost = _model(case, device)
    flops, seconds = cost.work(plan).total.flops, cost.seconds(plan)
    return {"flops": flops, "predicted": seconds, "profile": str(cost.profile)}
