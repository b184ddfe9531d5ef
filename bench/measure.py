"""One case, measured: a workload, forward or training, by several peers side by side."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from .accuracy import check, expected_results, full_float32
from .inputs import Inputs, make_inputs, rotated
from .memory import peak_bytes, saved_storages
from .peers import Peer, names_for, peers_for, prepare
from .planning import plan_of, predicted
from .timing import COLD_BYTES, Samples, graph_seconds, interleaved
from .workloads import Workload


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
    samples: Samples = field(default_factory=Samples)
    problem: str = ""


@dataclass(frozen=True)
class Ready:
    """A peer that was checked: what is known of it, and its call on each copy of the inputs."""

    peer: Peer
    line: dict[str, Any]
    calls: list[Callable[[], object]]
    problem: str = ""


class Preparation:
    """The inputs of a case and its expected results; peers are checked on them, once each."""

    def __init__(
        self, case: Case, device: torch.device, memory: bool = True, strict: bool = True
    ) -> None:
        self.case, self.device, self._memory, self._strict = case, device, memory, strict
        inputs = make_inputs(case.workload, device).requires_grad_(case.training)
        with torch.set_grad_enabled(case.training), full_float32():
            self._expected = expected_results(inputs, case.training)
        self._copies = [copy.requires_grad_(case.training) for copy in rotated(inputs)]
        self._ready: dict[str, Ready] = {}

    def ready(self, name: str) -> Ready:
        """The peer of this name, checked, and with its memory measured.

        Raises:
            AssertionError: a plan of the library is wrong.
        """
        if name not in self._ready:
            with torch.set_grad_enabled(self.case.training):
                self._ready[name] = self._examine(name)
        return self._ready[name]

    def _examine(self, name: str) -> Ready:
        case, training = self.case, self.case.training
        (peer,) = peers_for([name], case.workload, training, self.device)
        line = _identity(case, name)
        try:
            with full_float32():
                line["error"], allowed = check(peer, self._expected, training, self._strict)
            if not line["error"] <= allowed:
                problem = f"wrong: relative error {line['error']:.2g}, allowed {allowed:.2g}"
                return Ready(peer, {**line, "problem": problem}, [], problem)
            if self._memory:
                line |= _memory(peer, self._copies[0], training, self.device)
            calls = [prepare(peer, copy).once(training) for copy in self._copies]
            for call in calls:
                call()
        except torch.OutOfMemoryError:
            problem = "out of memory"
            torch.cuda.empty_cache()
            return Ready(peer, {**line, "problem": problem}, [], problem)
        return Ready(peer, line, calls)

    def figures(self, name: str, samples: Samples, auto: Samples | None) -> Figures:
        """All figures of a peer; `auto`: what the library's choice took in the same rounds."""
        ready, summary = self.ready(name), samples.summary()
        line = ready.line | summary
        line |= {"graph": graph_seconds(ready.calls[0], self.device), "host": samples.host or None}
        line |= {"cold_bytes": COLD_BYTES if self.device.type == "cpu" else None}
        line |= _work(ready.peer, self.case, self.device, summary)
        if auto is not None:
            for prefix in ("", "cold_"):
                key = f"{prefix}median"
                if key in line:
                    line[f"{prefix}times_auto"] = line[key] / auto.summary()[key]
        return Figures(line, samples)


def measure_case(
    case: Case,
    names: Sequence[str],
    device: torch.device,
    memory: bool = True,
    cold: bool = True,
    strict: bool = True,
) -> dict[str, Figures]:
    """Check the peers of these names, measure their memory, then time them in turns."""
    preparation = Preparation(case, device, memory, strict)
    ready = {name: preparation.ready(name) for name in names}
    calls = {name: r.calls for name, r in ready.items() if not r.problem}
    with torch.set_grad_enabled(case.training):
        samples = interleaved(calls, device, cold=cold)
        figures = {}
        for name, r in ready.items():
            if r.problem:
                figures[name] = Figures(r.line, problem=r.problem)
            else:
                figures[name] = preparation.figures(name, samples[name], samples.get("auto"))
    del calls, ready, preparation
    free(device)
    return figures


def free(device: torch.device) -> None:
    """Give memory back: the next case has other sizes."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _memory(peer: Peer, inputs: Inputs, training: bool, device: torch.device) -> dict[str, int]:
    """Peak beyond the inputs; in training also what is kept for the backward pass."""
    call = prepare(peer, inputs)
    call.once(training)()  # what a first call leaves behind is no part of the peak
    given = [*inputs.leaves().values(), *call.leaves.values(), inputs.points]
    with saved_storages(given) as saved:
        peak = peak_bytes(call.once(training), device)
    return {"peak_bytes": peak, **({"saved_bytes": sum(saved.values())} if training else {})}


def _identity(case: Case, name: str) -> dict[str, Any]:
    """Which figure this is, with every size, so that a line can be read by itself."""
    fields = asdict(case.workload)
    line = {"case": fields.pop("name"), "direction": case.direction, "peer": name}
    return {**line, **fields, "sizes": case.workload.sizes()}


def _work(
    peer: Peer, case: Case, device: torch.device, summary: dict[str, float]
) -> dict[str, Any]:
    """Executed FLOPs and compulsory bytes, also per second; for the library the plan, predicted."""
    flops, moved = peer.work(case.workload, case.training, device)
    seconds = summary.get("cold_median", summary["median"])
    line: dict[str, Any] = {
        "flops": flops,
        "bytes": moved,
        "flops_per_second": flops / seconds,
        "bytes_per_second": moved / seconds,
    }
    if peer.library:
        plan = plan_of(peer.name, case.workload, case.training, device)
        expected, profile = predicted(plan, case.workload, case.training, device)
        line |= {"plan": plan.encode(), "predicted": expected, "profile": profile}
    return line
