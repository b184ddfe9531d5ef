"""The tables of docs/planner-measurements.md, from bench/results/planner_regret.jsonl alone.

A section for each device, day and commit in that file. `python -m bench.report` writes them. A line
has the seconds of each plan of a call, `measured` and `predicted`, by encoded plan, those of the
`peer`, and those of `auto`, which may be faster than the plan it has `chosen`: by name, that plan
keeps nothing for its backward pass, which a small call else does.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from .planning import Plan
from .results import Line, duration, markdown, read
from .workloads import WORKLOADS

SMALL_VALUES = 1 << 18
DTYPES = {8: "float64", 4: "float32", 2: "half precision"}
NAMES = {(w.layers, w.points, w.out_features): w.name for w in WORKLOADS}
SUBSETS: dict[str, Callable[[Line], bool]] = {
    "random and small layers": lambda line: not _name(line),
    "up to 2^18 values": lambda line: not _name(line) and _values(line) <= SMALL_VALUES,
    "more values": lambda line: not _name(line) and _values(line) > SMALL_VALUES,
    "ragged": lambda line: not _name(line) and line["call"]["ragged"],
    "W1 to W5": lambda line: bool(_name(line)),
}


def best(line: Line) -> str:
    """The fastest of all plans."""
    return min(line["measured"], key=line["measured"].__getitem__)


def regret(line: Line) -> float:
    """How much longer the choice takes than the fastest plan, relative to it."""
    return float(line["auto"] / min(line["auto"], line["measured"][best(line)]) - 1)


def _error(line: Line, plan: str) -> float:
    """How far the prediction of a plan is off, relative to its time.

    What is predicted of the choice is the route that auto takes.
    """
    time = line["auto"] if plan == line["chosen"] else line["measured"][plan]
    return abs(line["predicted"][plan] / time - 1)


def letters(encoded: str) -> str:
    """A plan in short: g for a layer that is gathered, p for one that is projected."""
    return "".join(strategy[0] for strategy in Plan.decode(encoded).layers)


def planner_block() -> str:
    """All sections, the latest first."""
    runs: dict[tuple[str, ...], list[Line]] = {}
    for line in read("planner_regret"):
        device = line.get("device") or f"{line['cpu']}, {line['threads']} threads"
        day = str(line.get("date") or line["time"])[:10]
        key = (day, device, line["commit"], line["torch"], line["clock"])
        runs.setdefault(key, []).append(line)
    parts = [] if runs else ["No results yet: `python -m bench.planner_regret`.\n"]
    for (day, device, commit, torch, clock), lines in sorted(runs.items(), reverse=True):
        changed = ", with uncommitted changes" if "+" in commit else ""
        profiles = "; ".join(dict.fromkeys(line["profile"] for line in lines if "profile" in line))
        parts.append(
            f"## {device}, {day}, commit {commit[:9]}{changed}\n\n"
            f"torch {torch}, {clock} clock{profiles and f'. Profile: {profiles}'}.\n\n"
            f"{regrets(lines)}\n"
        )
        if workloads := [line for line in lines if _name(line)]:
            parts.append(f"W1 to W5 (g gathered, p projected):\n\n{_workloads(workloads)}\n")
    return "\n".join(parts)


def regrets(lines: Sequence[Line]) -> str:
    """How often the choice was good, and how far the predictions are off."""
    head = "calls|within 15% of the best|regret, median|worst|times as fast, median|least|slower"
    rows = [["", *head.split("|"), "prediction error, all plans", "of the choice"]]
    for group in dict.fromkeys(map(_group, lines)):
        for name, belongs in SUBSETS.items():
            selected = [line for line in lines if _group(line) == group and belongs(line)]
            if not selected:
                continue
            lost = [regret(line) for line in selected]
            speedups = [line["peer"] / line["auto"] for line in selected]
            errors = [_error(line, plan) for line in selected for plan in line["measured"]]
            of_choice = [_error(line, line["chosen"]) for line in selected]
            counts = [str(len(selected)), str(sum(r <= 0.15 for r in lost))]
            regret_cells = [f"{statistics.median(lost):.1%}", f"{max(lost):.1%}"]
            speed_cells = [f"{statistics.median(speedups):.2f}x", f"{min(speedups):.2f}x"]
            slower = str(sum(s < 1 for s in speedups))
            error_cells = [f"{statistics.median(e):.0%}" for e in (errors, of_choice)]
            cells = [*counts, *regret_cells, *speed_cells, slower, *error_cells]
            rows.append([f"{group}: {name}", *cells])
    return markdown(rows)


def _workloads(lines: Sequence[Line]) -> str:
    head = "images|layout|pass, dtype|plan|best|measured|predicted|regret|over all gathered"
    rows = [["", *head.split("|"), "times as fast"]]
    for line in lines:
        call, auto, measured = line["call"], line["auto"], line["measured"]
        layout = "channels_last" if call["layers"][0]["channels_last"] else "NCHW"
        gathered = next(time for plan, time in measured.items() if "project" not in plan)
        what = [_name(line), str(call["batch"]), layout, _group(line)]
        plans = [letters(line["chosen"]), letters(best(line))]
        times = [duration(auto), duration(line["predicted"][line["chosen"]])]
        ratios = [f"{regret(line):.1%}", *(f"{n / auto:.2f}x" for n in (gathered, line["peer"]))]
        rows.append([*what, *plans, *times, *ratios])
    return markdown(rows)


def _group(line: Line) -> str:
    call = line["call"]
    return f"{'training' if call['training'] else 'forward'}, {DTYPES[call['itemsize']]}"


def _name(line: Line) -> str:
    """W1 to W5, with any number of images; "" of any other layer."""
    call = line["call"]
    layers = tuple((m["channels"], m["rows"], m["columns"]) for m in call["layers"])
    return NAMES.get((layers, call["points"] // max(call["batch"], 1), call["out_features"]), "")


def _values(line: Line) -> int:
    call = line["call"]
    return int(call["points"] * sum(layer["channels"] for layer in call["layers"]))
