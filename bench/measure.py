"""One case, measured: a workload, forward or training, by several peers side by side."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import asdict

import torch

from .accuracy import check, expected_results, full_float32
from .inputs import Inputs, make_inputs, rotated
from .memory import peak_bytes, saved_storages
from .peers import Peer, peer_of, prepare
from .results import Line
from .timing import Function, Samples, interleaved
from .workloads import Case


class Preparation:
    """The inputs of a case and its expected results; peers are checked on them, once each.

    Args:
        memory: whether the memory of peers is measured.
        strict: hold the library to the rule of its test suite.
    """

    def __init__(
        self, case: Case, device: torch.device, memory: bool = True, strict: bool = True
    ) -> None:
        self.case, self.device, self._memory, self._strict = case, device, memory, strict
        inputs = make_inputs(case.workload, device).requires_grad_(case.training)
        with torch.set_grad_enabled(case.training), full_float32():
            self._expected = expected_results(inputs, case.training)
        self._copies = rotated(inputs)
        self._lines: dict[str, Line] = {}
        #: By peer, its call on each copy of the inputs; of a peer that is not to be timed, none.
        self.calls: dict[str, list[Function]] = {}

    def examine(self, name: str) -> Line:
        """The begin of the line of this peer; `problem` in it says why it is not to be timed.

        Raises:
            AssertionError: a plan of the library is wrong.
        """
        if name not in self._lines:
            sizes = asdict(self.case.workload)
            line = {"case": sizes.pop("name"), "direction": self.case.direction, "peer": name}
            # A line can be read by itself.
            self._lines[name] = line | sizes | {"sizes": self.case.workload.sizes()}
            try:
                with torch.set_grad_enabled(self.case.training):
                    self._examine(peer_of(name, self.case, self.device), self._lines[name])
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                self._lines[name]["problem"] = "out of memory"
        return self._lines[name]

    def _examine(self, peer: Peer, line: Line) -> None:
        training = self.case.training
        with full_float32():
            line["error"], allowed = check(peer, self._expected, training, self._strict)
        if not line["error"] <= allowed:
            line["problem"] = f"wrong: relative error {line['error']:.2g}, {allowed:.2g} allowed"
            return
        if self._memory:
            line |= _memory(peer, self._copies[0], training, self.device)
        calls = [prepare(peer, copy).once(training) for copy in self._copies]
        for call in calls:
            call()
        self.calls[peer.name] = calls

    def line(self, name: str, samples: Samples, auto: Samples | None) -> Line:
        """All figures of a peer: FLOPs it executes, and bytes that are compulsory, among them.

        `auto`: what the library's choice took in the same rounds.
        """
        peer, summary = peer_of(name, self.case, self.device), samples.summary()
        flops, moved = peer.work(self.case, self.device)
        line = self.examine(name) | summary | {"flops": flops, "bytes": moved}
        if peer.plan:
            line["plan"] = peer.plan.encode()
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
    strict: bool = True,
) -> dict[str, Line]:
    """Check the peers of these names, measure their memory, then time them in turns."""
    preparation = Preparation(case, device, memory, strict)
    lines = {name: preparation.examine(name) for name in names}
    with torch.set_grad_enabled(case.training):
        samples = interleaved(preparation.calls, device)
    timed = {name: preparation.line(name, samples[name], samples.get("auto")) for name in samples}
    return lines | timed


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
