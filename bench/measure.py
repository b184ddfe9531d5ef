"""One case, measured: a workload, forward or training, by several peers side by side.

A benchmark measures by the `Ledger` of its session, which writes lines of results.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pytest
import torch

from .accuracy import Expected
from .inputs import make_inputs, rotated
from .machine import DEVICE, identity, measured_roofs
from .memory import peak_bytes, saved_storages
from .peers import Call, Peer, peer_of, prepare
from .results import Line, append
from .timing import in_turns
from .workloads import Case


class Preparation:
    """The inputs of a case and its expected results; peers are checked on them, once each.

    Args:
        strict: hold the library to the rule of its test suite.
    """

    def __init__(self, case: Case, device: torch.device, strict: bool = True) -> None:
        self.case, self.device, self._strict = case, device, strict
        inputs = make_inputs(case.workload, device).requires_grad_(case.training)
        self._expected, self._copies = Expected(inputs, case.training), rotated(inputs)
        self._lines: dict[str, Line] = {}
        self._calls: dict[str, list[Call]] = {}  # of those peers that passed

    def measure(self, names: Sequence[str], benchmark: Any = None) -> dict[str, Line]:
        """The lines of these peers, each checked before it is timed in turns with the others.

        Among the figures of a peer are what it does (`Peer.work`), and how many times as long as
        the first of them it takes, `times_auto`. `problem` says why one was not timed.

        Args:
            benchmark: pytest-benchmark's fixture, which times the last peer's cold calls. Where
                that one is not to be timed, none is.

        Raises:
            AssertionError: a plan of the library is wrong.
        """
        with torch.set_grad_enabled(self.case.training):
            lines = {name: self._examined(name) for name in names}
            calls = {name: self._calls[name] for name in lines if name in self._calls}
            if benchmark and names[-1] not in calls:
                return lines
            figures = in_turns(calls, self.device, benchmark)
        for name in figures:
            work = peer_of(name, self.case, self.device).work(self.case, self.device)
            lines[name] |= figures[name] | work
            for prefix in ("", "cold_"):
                took, auto = (figures.get(n, {}).get(f"{prefix}median") for n in (name, names[0]))
                if took and auto:
                    lines[name][f"{prefix}times_auto"] = took / auto
        return lines

    def _examined(self, name: str) -> Line:
        """The begin of the line of this peer; it can be read by itself."""
        if name not in self._lines:
            sizes = asdict(self.case.workload)
            line = {"case": sizes.pop("name"), "direction": self.case.direction, "peer": name}
            line |= sizes | {"sizes": self.case.workload.sizes()}
            try:
                line |= self._examine(peer_of(name, self.case, self.device))
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                line["problem"] = "out of memory"
            self._lines[name] = line
        return dict(self._lines[name])

    def _examine(self, peer: Peer) -> Line:
        """Its error and, where that is small enough, its memory: peak beyond the inputs, and in
        training what is kept for the backward pass."""
        inputs = self._copies[0]
        error, allowed = self._expected.check(peer, self._strict)
        if not error <= allowed:
            wrong = f"wrong: relative error {error:.2g}, {allowed:.2g} allowed"
            return {"error": error, "problem": wrong}
        calls = [prepare(peer, copy) for copy in self._copies]
        for call in calls:
            call()  # what a first call leaves behind is no part of the peak
        given = [*inputs.leaves().values(), *calls[0].leaves.values(), inputs.points]
        with saved_storages(given) as saved:
            line: Line = {"error": error, "peak_bytes": peak_bytes(calls[0], self.device)}
        if self.case.training:
            line["saved_bytes"] = sum(saved.values())
        self._calls[peer.name] = calls
        return line


def run_once(case: Case, names: Sequence[str]) -> None:
    """A call of each of these peers: what it compiles stays in Triton's cache."""
    inputs = make_inputs(case.workload, DEVICE).requires_grad_(case.training)
    with torch.set_grad_enabled(case.training):
        for name in names:
            call = prepare(peer_of(name, case, DEVICE), inputs)
            call()
            assert call.forward().isfinite().all(), name


def free(device: torch.device) -> None:
    """Give memory back: the next case has other sizes."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


class Ledger:
    """The results of this session; all lines carry its identity."""

    def __init__(self) -> None:
        self._run = identity(DEVICE)
        self._preparation: Preparation | None = None
        self._dtypes: set[str] = set()

    def measure(
        self, benchmark: Any, case: Case, names: Sequence[str], strict: bool = True
    ) -> dict[str, Line]:
        """The lines of these peers; pytest-benchmark times the cold calls of the last of them.

        One case at a time is kept. With the first of a dtype what the machine reaches with it is
        noted.
        """
        if self._preparation is None or self._preparation.case != case:
            self._preparation = None
            free(DEVICE)
            if (dtype := case.workload.dtype) not in self._dtypes:
                self._dtypes.add(dtype)
                roofs = measured_roofs(DEVICE, getattr(torch, dtype))
                append("roofs", self._run, {"dtype": dtype, **roofs})
            self._preparation = Preparation(case, DEVICE, strict)
        benchmark.group = f"{case}: {case.workload.sizes()}"
        return self._preparation.measure(names, benchmark)

    def write(self, benchmark: Any, kind: str, line: Line) -> None:
        """Append a benchmark's line to these results; skip the test if it has a problem."""
        if benchmark.enabled:
            benchmark.extra_info.update(append(kind, self._run, line))
        if problem := line.get("problem"):
            pytest.skip(f"{line['peer']} is not timed: {problem}")
