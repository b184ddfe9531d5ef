"""Results: one line of JSON for each figure, appended to bench/results/, read back by run; units.

    first_layer.jsonl      a peer on a workload or sweep, forward or training
    roofs.jsonl            what the machine reached in that run
    overhead.jsonl         host time of a call whose work is next to nothing
    table4.jsonl           rows of the paper's Table 4
    planner_regret.jsonl   a call by all its plans
    ensemble.jsonl         ten first layers in one call, and in ten
    patches.jsonl          a step of another package before and after its patch

Lines are never rewritten: old ones have no times of cold calls (:func:`shown`).

Every line carries the identity of its run: device, versions, commit and date (machine.py). A
figure is drawn from one run alone, the latest of a device that has all it needs; a partial run,
of a few selected benchmarks, is kept but never mixed in.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
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


def devices(lines: Iterable[Line]) -> list[str]:
    """Devices that have results, the one with the latest first."""
    latest: dict[str, str] = {}
    for line in lines:
        latest[line["device"]] = max(latest.get(line["device"], ""), line["date"])
    return sorted(latest, key=latest.__getitem__, reverse=True)


def complete_run(lines: Iterable[Line], device: str, key: str, wanted: set[Any]) -> list[Line]:
    """The lines of a device's latest run in which `key` takes all the `wanted` values."""
    run = fullest_run(lines, device, key, wanted)
    return run if wanted <= {line[key] for line in run} else []


def fullest_run(lines: Iterable[Line], device: str, key: str, wanted: set[Any]) -> list[Line]:
    """The latest of a device's runs in which `key` takes most of the `wanted` values, one at least.

    A run may have been cut short.
    """
    runs: dict[str, list[Line]] = {}
    for line in lines:
        if line["device"] == device:
            runs.setdefault(line["date"], []).append(line)
    found = {date: len(wanted & {line[key] for line in run}) for date, run in runs.items()}
    date = max(runs, key=lambda date: (found[date], date), default="")
    return runs[date] if found.get(date) else []


def latest_rows(lines: Iterable[Line], device: str) -> list[Line]:
    """Rows of Table 4, which are processes of their own, so may be of several runs.

    The latest of each, at the paper's sizes if there are any such, otherwise at smaller ones.
    """
    of_device = [line for line in lines if line["device"] == device]
    full = [line for line in of_device if not line["scaled"]]
    return list({line["row"]: line for line in full or of_device}.values())


def shown(lines: Iterable[Line]) -> list[Line]:
    """Lines whose times are those of cold calls, as in a network; `warm_median` is beside them.

    Lines from before cold calls were measured come back as they are.
    """
    result = []
    for line in lines:
        names = [name for name in line if name.startswith("cold_") and line[name] is not None]
        cold = {name.removeprefix("cold_"): line[name] for name in names}
        result.append({**line, **cold, "warm_median": line["median"]} if "median" in cold else line)
    return result


def by_case(lines: Iterable[Line]) -> dict[tuple[str, str], dict[str, Line]]:
    """Lines by case and direction, and therein by peer."""
    cases: dict[tuple[str, str], dict[str, Line]] = {}
    for line in lines:
        cases.setdefault((line["case"], line["direction"]), {})[line["peer"]] = line
    return cases


def device_slug(device: str) -> str:
    """The device's name as that of a folder."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


def duration(seconds: float) -> str:
    """Three digits, in seconds, milliseconds or microseconds."""
    for factor, unit in ((1.0, "s"), (1e3, "ms")):
        if seconds * factor >= 0.9995:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def size(number: float) -> str:
    """Three digits, in megabytes (10^6)."""
    return f"{number / 1e6:.3g} MB" if number < 1e9 else f"{number / 1e9:.3g} GB"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table, its head first."""
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])
