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

import os
from pathlib import Path
from typing import Any

from pixelnet_triton.tools.json_lines import append_json_line, read_json_lines

Line = dict[str, Any]


def _file(kind: str) -> Path:
    """In PIXELNET_BENCH_RESULTS, or bench/results."""
    folder = os.environ.get("PIXELNET_BENCH_RESULTS") or Path(__file__).parent / "results"
    return Path(folder, f"{kind}.jsonl")


def append(kind: str, run: Line, figures: Line) -> Line:
    """Write one line, the identity of the run first; it is returned."""
    line = {**run, **figures}
    append_json_line(_file(kind), line)
    return line


def read(kind: str) -> list[Line]:
    """All lines, oldest first; none where nothing was measured yet."""
    return read_json_lines(_file(kind))


def duration(seconds: float) -> str:
    """Three digits, in seconds, milliseconds or microseconds."""
    for factor, unit in ((1.0, "s"), (1e3, "ms")):
        if seconds * factor >= 0.9995:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def size(number: float) -> str:
    """Three digits, in megabytes (10^6)."""
    return f"{number / 1e6:.3g} MB" if number < 1e9 else f"{number / 1e9:.3g} GB"
