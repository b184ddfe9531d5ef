"""One case, measured: a workload, forward or training, by several peers side by side."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from pixelnet_triton.planner.cost import CostModel
from pixelnet_triton.planner.store import profile_for

from .accuracy import Expected, check, expected_results
from .inputs import Inputs, make_inputs, rotated
from .memory import peak_bytes, saved_storages
from .peers import Peer, names_for, peers_for, plan_of, prepare
from .planning import call_shape
from .timing import Samples, graph_seconds, interleaved
from .workloads import Workload

__all__ = ["Case", "Figures", "measure_case"]


@dataclass(frozen=True)
class Case:
    """A workload in one direction."""

    workload: Workload
    training: bool

    @property
    def direction(self) -> str:
        """For tables: with the backward pass, or without."""
        return "training" if self.training else "forward"

    def __str__(self) -> str:
        return f"{self.workload.name}-{self.direction}"

    def peers(self, device: torch.device) -> list[str]:
        """Names of the peers it is measured with."""
        return names_for(self.workload, self.training, device)


@dataclass(frozen=True)
class Figures:
    """What came of one peer. `problem`: why it was not timed."""

    line: dict[str, Any]
    samples: list[float]
    problem: str = ""


def measure_case(case: Case, names: list[str], device: torch.device) -> dict[str, Figures]:
    """Check, then time, then measure the memory of the peers of these names."""
    workload, training = case.workload, case.training
    peers = {p.name: p for p in peers_for(names, workload, training, device)}
    inputs = make_inputs(workload, device).requires_grad_(training)
    with torch.set_grad_enabled(training):
        errors, problems = _checked(peers, expected_results(inputs, training), training)
        copies = [copy.requires_grad_(training) for copy in rotated(inputs)]
        memory = {}
        for name in [name for name in peers if name not in problems]:
            try:
                memory[name] = _memory(peers[name], inputs, training, device)
            except torch.OutOfMemoryError:
                problems[name] = "out of memory"
        calls: dict[str, list[Callable[[], object]]] = {
            name: [prepare(peer, copy).once(training) for copy in copies]
            for name, peer in peers.items()
            if name not in problems
        }
        samples = interleaved(calls, device)
        graphs = {name: graph_seconds(own[0], device) for name, own in calls.items()}
    del calls, copies, inputs
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()  # the next case has other sizes
    found = {}
    for name, peer in peers.items():
        line: dict[str, Any] = {**_identity(case, name), "error": errors.get(name)}
        if name in problems:
            found[name] = Figures({**line, "problem": problems[name]}, [], problems[name])
            continue
        line |= samples[name].summary() | memory[name]
        line |= {"graph": graphs[name], "host": samples[name].host or None}
        line |= _work(peer, case, device, samples[name])
        found[name] = Figures(line, samples[name].warm)
    return found


def _checked(
    peers: dict[str, Peer], expected: Expected, training: bool
) -> tuple[dict[str, float], dict[str, str]]:
    """Relative errors, and the problems of those that shall not be timed."""
    errors, problems = {}, {}
    for name, peer in peers.items():
        try:
            errors[name], allowed = check(peer, expected, training)
        except torch.OutOfMemoryError:
            problems[name] = "out of memory"
            torch.cuda.empty_cache()
            continue
        if not errors[name] <= allowed:
            problems[name] = f"wrong: relative error {errors[name]:.2g}, allowed {allowed:.2g}"
    return errors, problems


def _memory(peer: Peer, inputs: Inputs, training: bool, device: torch.device) -> dict[str, int]:
    """Peak beyond the inputs; in training also what is kept for the backward pass."""
    call = prepare(peer, inputs)
    own = [*inputs.leaves().values(), *call.leaves.values(), inputs.points]
    with saved_storages(own) as saved:
        peak = peak_bytes(call.once(training), device)
    return {"peak_bytes": peak, **({"saved_bytes": sum(saved.values())} if training else {})}


def _identity(case: Case, name: str) -> dict[str, Any]:
    """Which figure this is, with every size, so that a line can be read by itself."""
    workload = case.workload
    return {
        "case": workload.name,
        "family": workload.family,
        "value": workload.value,
        "direction": case.direction,
        "peer": name,
        "scaled": workload.scaled,
        "sizes": workload.sizes(),
        "layers": workload.layers,
        "image_size": workload.image_size,
        "images": workload.images,
        "points": workload.points,
        "out_features": workload.out_features,
        "dtype": workload.dtype,
        "channels_last": workload.channels_last,
    }


def _work(peer: Peer, case: Case, device: torch.device, samples: Samples) -> dict[str, Any]:
    """Executed FLOPs and compulsory bytes, also per second; for the library the plan, predicted."""
    flops, moved = peer.work(case.workload, case.training, device)
    median = samples.summary()["median"]
    line: dict[str, Any] = {
        "flops": flops,
        "bytes": moved,
        "flops_per_second": flops / median,
        "bytes_per_second": moved / median,
    }
    if peer.own:
        profile = profile_for(device)
        plan = plan_of(peer.name, case.workload, case.training, device)
        model = CostModel(call_shape(case.workload, case.training, device), profile)
        line |= {
            "plan": plan.encode(),
            "predicted": model.seconds(plan),
            "profile": str(profile),
        }
    return line
