"""What a pytest session measures, by pytest-benchmark's clock.

pytest-benchmark times one function after another, and a drift of the machine in between would pass
for a difference. So each peer takes turns with `auto`: before each of its rounds both make their
warm calls, and `auto` a cold one; then pytest-benchmark times a cold call of the peer. All ratios
are of one test's rounds. On a GPU the clock is one of events in the device's queue (timing.py).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import pytest
import torch

from .machine import DEVICE, identity, measured_roofs
from .measure import Preparation, free
from .results import Line, append
from .timing import Turns
from .workloads import Case


class Ledger:
    """The lines of results of this session."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.table4: list[Line] = []
        self._preparation: Preparation | None = None
        self._dtypes: set[str] = set()

    @cached_property
    def run(self) -> Line:
        """The identity of this session's results."""
        return identity(DEVICE)

    def _note_roofs(self, dtype: str) -> None:
        """What the machine reaches with a dtype, once in each run."""
        if dtype not in self._dtypes:
            self._dtypes.add(dtype)
            roofs = measured_roofs(DEVICE, getattr(torch, dtype))
            append("roofs", self.run, {"dtype": dtype, **roofs})

    def measure(self, benchmark: Any, case: Case, peer: str) -> None:
        """Check a peer and time it; skipped where it is wrong, or too large."""
        self._note_roofs(case.workload.dtype)
        preparation = self._prepared(case)
        ready, auto = preparation.ready(peer), preparation.ready("auto")
        if ready.problem:
            self.lines.append(append("first_layer", self.run, ready.line))
            pytest.skip(f"{peer} is not timed: {ready.problem}")
        calls = {r.peer.name: r.calls for r in (auto, ready) if not r.problem}
        with torch.set_grad_enabled(case.training):
            turns = Turns(calls, DEVICE)

            def others() -> tuple[tuple[object], dict[str, object]]:
                turns.round(left=peer)
                return (turns.next_copy(peer),), {}

            benchmark.group = f"{case}: {case.workload.sizes()}"
            benchmark.pedantic(_run, setup=others, rounds=turns.rounds_of(peer))
            if benchmark.disabled:
                return
            samples = turns.samples[peer]
            samples.cold += benchmark.stats.stats.data
            line = preparation.line(peer, samples, turns.samples.get("auto"))
        self.lines.append(append("first_layer", self.run, line))
        benchmark.extra_info.update(self.lines[-1])

    def _prepared(self, case: Case) -> Preparation:
        """One case at a time is kept."""
        if self._preparation is None or self._preparation.case != case:
            self._preparation = None
            free(DEVICE)
            self._preparation = Preparation(case, DEVICE)
        return self._preparation


def _run(call: Callable[[], object]) -> None:
    call()
