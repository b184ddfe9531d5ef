"""What a pytest session measures, and where it goes: a line of results for each benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from .machine import DEVICE, identity, measured_roofs
from .measure import Preparation, free
from .results import Line, append
from .workloads import Case


class Ledger:
    """The results of this session; all lines carry its identity."""

    def __init__(self) -> None:
        self._run = identity(DEVICE)
        self._preparation: Preparation | None = None
        self._dtypes: set[str] = set()

    def measure(self, benchmark: Any, case: Case, names: Sequence[str]) -> dict[str, Line]:
        """The lines of these peers; pytest-benchmark times the last one's cold calls.

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
            self._preparation = Preparation(case, DEVICE)
        benchmark.group = f"{case}: {case.workload.sizes()}"
        return self._preparation.measure(names, benchmark)

    def write(self, benchmark: Any, kind: str, line: Line) -> None:
        """Append a benchmark's line to these results; skip the test if it has a problem."""
        if benchmark.enabled:
            benchmark.extra_info.update(append(kind, self._run, line))
        if problem := line.get("problem"):
            pytest.skip(f"{line['peer']} is not timed: {problem}")
