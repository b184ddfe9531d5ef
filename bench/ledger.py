"""What a pytest session measures, by pytest-benchmark's clock.

pytest-benchmark times one function after another, and a drift of the machine in between would pass
for a difference. So each peer takes turns with `auto`: before each of its rounds both make their
warm calls, and `auto` a cold one; then pytest-benchmark times a cold call of the peer. All ratios
are of one test's rounds. On a GPU the clock is one of events in the device's queue (timing.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch

from .machine import DEVICE, identity, measured_roofs
from .measure import Preparation, free
from .results import append
from .timing import Function, Samples, Turns
from .workloads import Case


def in_turns(
    benchmark: Any, calls: Mapping[str, Sequence[Function]], name: str
) -> dict[str, Samples]:
    """Samples of all calls; pytest-benchmark times the cold ones of the peer of this name.

    They are as :class:`Turns` takes them. Where benchmarks are disabled there are no samples.
    """
    turns = Turns(calls, DEVICE)

    def others() -> tuple[tuple[object], dict[str, object]]:
        turns.round(left=name)
        return (turns.next_copy(name),), {}

    benchmark.pedantic(lambda call: call(), setup=others, rounds=turns.rounds_of(name))
    if benchmark.disabled:
        return {}
    turns.samples[name].cold += benchmark.stats.stats.data
    return turns.samples


class Ledger:
    """The results of this session; `run` is their identity."""

    def __init__(self) -> None:
        self.run = identity(DEVICE)
        self._preparation: Preparation | None = None
        self._dtypes: set[str] = set()

    def measure(self, benchmark: Any, case: Case, peer: str) -> None:
        """Check a peer and time it; skipped where it is wrong, or too large."""
        preparation = self._prepared(case)
        lines = {name: preparation.examine(name) for name in ("auto", peer)}
        if problem := lines[peer].get("problem"):
            append("first_layer", self.run, lines[peer])
            pytest.skip(f"{peer} is not timed: {problem}")
        calls = {name: preparation.calls[name] for name in lines if name in preparation.calls}
        benchmark.group = f"{case}: {case.workload.sizes()}"
        with torch.set_grad_enabled(case.training):
            if samples := in_turns(benchmark, calls, peer):
                line = preparation.line(peer, samples[peer], samples.get("auto"))
                benchmark.extra_info.update(append("first_layer", self.run, line))

    def _prepared(self, case: Case) -> Preparation:
        """One case at a time is kept; with the first of a dtype what the machine reaches with it
        is noted."""
        if self._preparation is None or self._preparation.case != case:
            self._preparation = None
            free(DEVICE)
            if (dtype := case.workload.dtype) not in self._dtypes:
                self._dtypes.add(dtype)
                roofs = measured_roofs(DEVICE, getattr(torch, dtype))
                append("roofs", self.run, {"dtype": dtype, **roofs})
            self._preparation = Preparation(case, DEVICE)
        return self._preparation
