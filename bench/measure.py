"""One case, measured: a workload, forward or training, by several peers side by side."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import torch

from .accuracy import check, expected_results, full_float32
from .inputs import Inputs, make_inputs, rotated
from .memory import peak_bytes, saved_storages
from .peers import Peer, peer_of, prepare
from .results import Line
from .timing import Samples, interleaved
from .workloads import Case


@dataclass(frozen=True)
class Ready:
    """A peer that was checked: the begin of its line of results, its call on each copy of the
    inputs, and why it is not to be timed."""

    peer: Peer
    line: Line
    calls: list[Callable[[], object]] = field(default_factory=list)

    @property
    def problem(self) -> str:
        """Empty where all is well."""
        return str(self.line.get("problem", ""))


class Preparation:
    """The inputs of a case and its expected results; peers are checked on them, once each."""

    def __init__(
        self, case: Case, device: torch.device, memory: bool = True, strict: bool = True
    ) -> None:
        self.case, self.device, self._memory, self._strict = case, device, memory, strict
        inputs = make_inputs(case.workload, device).requires_grad_(case.training)
        with torch.set_grad_enabled(case.training), full_float32():
            self._expected = expected_results(inputs, case.training)
        self._copies = rotated(inputs)
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
        peer = peer_of(name, case, self.device)
        sizes = asdict(case.workload)
        line = {"case": sizes.pop("name"), "direction": case.direction, "peer": name}
        line |= {**sizes, "sizes": case.workload.sizes()}  # a line can be read by itself
        try:
            with full_float32():
                line["error"], allowed = check(peer, self._expected, training, self._strict)
            if not line["error"] <= allowed:
                line["problem"] = (
                    f"wrong: relative error {line['error']:.2g}, {allowed:.2g} allowed"
                )
                return Ready(peer, line)
            if self._memory:
                line |= _memory(peer, self._copies[0], training, self.device)
            calls = [prepare(peer, copy).once(training) for copy in self._copies]
            for call in calls:
                call()
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return Ready(peer, {**line, "problem": "out of memory"})
        return Ready(peer, line, calls)

    def line(self, name: str, samples: Samples, auto: Samples | None) -> Line:
        """All figures of a peer: FLOPs it executes, and bytes that are compulsory, among them.

        `auto`: what the library's choice took in the same rounds.
        """
        ready, summary = self.ready(name), samples.summary()
        flops, moved = ready.peer.work(self.case, self.device)
        seconds = summary.get("cold_median", summary["median"])
        line = ready.line | summary | {"host": samples.host or None}
        line |= {"flops": flops, "bytes": moved, "flops_per_second": flops / seconds}
        if ready.peer.plan:
            line["plan"] = ready.peer.plan.encode()
        if auto is not None:
            least = auto.summary()
            for prefix in ("", "cold_"):
                if f"{prefix}median" in summary:
                    ratio = summary[f"{prefix}median"] / least[f"{prefix}median"]
                    line[f"{prefix}times_auto"] = ratio
        return line


def measure_case(
    case: Case,
    names: Sequence[str],
    device: torch.device,
    memory: bool = True,
    cold: bool = True,
    strict: bool = True,
) -> dict[str, Line]:
    """Check the peers of these names, measure their memory, then time them in turns."""
    preparation = Preparation(case, device, memory, strict)
    ready = {name: preparation.ready(name) for name in names}
    calls = {name: r.calls for name, r in ready.items() if not r.problem}
    with torch.set_grad_enabled(case.training):
        samples = interleaved(calls, device, cold=cold)
    lines = {name: r.line for name, r in ready.items()}
    for name in calls:
        lines[name] = preparation.line(name, samples[name], samples.get("auto"))
    del calls, ready, preparation
    free(device)
    return lines


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
