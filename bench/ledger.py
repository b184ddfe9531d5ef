"""What a pytest session measures: each case once, by all its selected peers in turns.

pytest-benchmark times one function after another. Here the calls of a case's peers are
interleaved, so they are measured together when the first of them is asked for, and each test
then plays its own samples back to pytest-benchmark through a clock that runs on recorded time.
Its statistics and its JSON are so those of the interleaved calls.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch

from .machine import DEVICE, Roofs, identity, measured_roofs
from .measure import Case, Figures, measure_case
from .results import Line, append

__all__ = ["PLAYBACK", "Ledger", "Playback"]


class Playback:
    """A clock for pytest-benchmark whose rounds last as long as recorded calls did."""

    def __init__(self) -> None:
        self._ticks: list[float] = []

    def load(self, seconds: Iterable[float]) -> None:
        """Two readings for each round: its start, and its end."""
        now, self._ticks = 0.0, []
        for duration in seconds:
            self._ticks += [now, now + duration]
            now += duration
        self._ticks.reverse()

    def __call__(self) -> float:
        return self._ticks.pop()


PLAYBACK = Playback()


class Ledger:
    """The cases measured so far, their lines of results, and the roofs of the machine."""

    def __init__(self) -> None:
        self.selected: dict[str, list[str]] = {}
        self.lines: list[Line] = []
        self.table4: list[Line] = []
        self._found: dict[str, dict[str, Figures]] = {}
        self._roofs: dict[str, Roofs] = {}
        self._run: Line = {}

    @property
    def run(self) -> Line:
        """The identity of this session's results."""
        self._run = self._run or dict(identity(DEVICE))
        return self._run

    def select(self, case: Case, peer: str) -> None:
        """Say before the first measurement that this peer will be asked for."""
        self.selected.setdefault(str(case), []).append(peer)

    def roofs(self, dtype: str) -> Roofs:
        """Measured once for each dtype, in this run."""
        if dtype not in self._roofs:
            roofs = measured_roofs(DEVICE, getattr(torch, dtype))
            figures = {"dtype": dtype, "flops": roofs.flops, "bytes": roofs.bytes}
            append("roofs", self.run, figures)
            self._roofs[dtype] = roofs
        return self._roofs[dtype]

    def report(self, benchmark: Any, case: Case, peer: str) -> None:
        """Hand one peer's figures to pytest-benchmark; the whole case is measured if it was not."""
        if str(case) not in self._found:
            self._measure(case)
        figures = self._found[str(case)][peer]
        if figures.problem:
            pytest.skip(f"{peer} is not timed: {figures.problem}")
        benchmark.group = f"{case}: {case.workload.sizes()}"
        benchmark.extra_info.update(self.run | figures.line)
        PLAYBACK.load(figures.samples)
        benchmark.pedantic(lambda: None, rounds=len(figures.samples))

    def _measure(self, case: Case) -> None:
        roofs = self.roofs(case.workload.dtype)
        found = measure_case(case, self.selected[str(case)], DEVICE)
        auto = found["auto"].line.get("median") if "auto" in found else None
        for figures in found.values():
            line = figures.line
            if "median" in line:
                line["of_roof_flops"] = line["flops_per_second"] / roofs.flops
                line["of_roof_bytes"] = line["bytes_per_second"] / roofs.bytes
                line["times_auto"] = line["median"] / auto if auto else None
            self.lines.append(append("first_layer", self.run, line))
        self._found[str(case)] = found
