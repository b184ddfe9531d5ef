"""Results: one line of JSON for each figure, appended to bench/results/; units.

    first_layer.jsonl      a peer on a case: a workload, forward or training
    roofs.jsonl            what the machine reached in that run
    kernels.jsonl          what each kernel takes of a pass, on a GPU
    overhead.jsonl         host time of a call whose work is next to nothing
    every_plan.jsonl       a call by all its plans
    every_route.jsonl      a call by all its routes, on a GPU
    table4.jsonl           rows of the paper's Table 4
    patches.jsonl          a step of another package before and after its patch
    h200-routes.jsonl      routes of eleven calls on an H200, measured once

Every line carries the identity of its run: device, versions, commit and date (machine.py). Lines
are never rewritten. tables.py chooses the runs that are shown.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

Line = dict[str, Any]


def _file(kind: str) -> Path:
    """In PIXELNET_BENCH_RESULTS, or bench/results."""
    folder = os.environ.get("PIXELNET_BENCH_RESULTS") or Path(__file__).parent / "results"
    return Path(folder, f"{kind}.jsonl")


def append(kind: str, run: Line, figures: Line) -> Line:
    """Write one line, the identity of the run first; it is returned."""
    line = {**run, **figures}
    _file(kind).parent.mkdir(parents=True, exist_ok=True)
    with _file(kind).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    return line


def read(kind: str) -> list[Line]:
    """All lines, oldest first; none where nothing was measured yet."""
    if not _file(kind).is_file():
        return []
    return [json.loads(line) for line in _file(kind).read_text(encoding="utf-8").splitlines()]


def duration(seconds: float) -> str:
    """Three digits, in seconds, milliseconds or microseconds."""
    for factor, unit in ((1.0, "s"), (1e3, "ms")):
        if seconds * factor >= 0.9995:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def size(number: float) -> str:
    """Three digits, in megabytes (10^6)."""
    return f"{number / 1e6:.3g} MB" if number < 1e9 else f"{number / 1e9:.3g} GB"
