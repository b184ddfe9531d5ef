"""The tables of docs/planner-measurements.md, from bench/results/planner_regret.jsonl alone.

A section for each device, day and commit in that file. `python -m bench.report` writes them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

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


@dataclass(frozen=True)
class Result:
    """One call: seconds of each plan, measured and predicted, by encoded plan.

    `auto` and `peer` are seconds, too. Auto may be faster than the plan it chooses: by name, that
    plan keeps nothing for its backward pass, which a small call else does.
    """

    chosen: str
    measured: dict[str, float]
    predicted: dict[str, float]
    auto: float
    peer: float

    @staticmethod
    def of(line: Line) -> Result:
        """From a line of results."""
        return Result(**{field.name: line[field.name] for field in fields(Result)})

    def error(self, plan: str) -> float:
        """How far the prediction of a plan is off, relative to its time.

        What is predicted of the choice is the route that auto takes.
        """
        time = self.auto if plan == self.chosen else self.measured[plan]
        return abs(self.predicted[plan] / time - 1)

    @property
    def best(self) -> str:
        return min(self.measured, key=self.measured.__getitem__)

    @property
    def regret(self) -> float:
        return self.auto / min(self.auto, self.measured[self.best]) - 1

    @property
    def speedup(self) -> float:
        """How much faster than the peer."""
        return self.peer / self.auto

    @property
    def gain(self) -> float:
        """How much faster than gathering every layer."""
        gathered = next(time for plan, time in self.measured.items() if "project" not in plan)
        return gathered / self.auto


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
        workloads = [line for line in lines if _name(line)]
        if workloads:
            parts.append(f"W1 to W5 (g gathered, p projected):\n\n{_workloads(workloads)}\n")
    return "\n".join(parts)


def regrets(lines: Sequence[Line]) -> str:
    """How often the choice was good, and how far the predictions are off."""
    head = "calls|within 15% of the best|regret, median|worst|times as fast, median|least|slower"
    rows = [["", *head.split("|"), "prediction error, all plans", "of the choice"]]
    for group in dict.fromkeys(map(_group, lines)):
        for name, belongs in SUBSETS.items():
            selected = [line for line in lines if _group(line) == group and belongs(line)]
            if selected:
                rows.append([f"{group}: {name}", *_figures([Result.of(s) for s in selected])])
    return markdown(rows)


def _figures(results: Sequence[Result]) -> list[str]:
    regrets, speedups = [r.regret for r in results], [r.speedup for r in results]
    return [
        str(len(results)),
        str(sum(regret <= 0.15 for regret in regrets)),
        f"{statistics.median(regrets):.1%}",
        f"{max(regrets):.1%}",
        f"{statistics.median(speedups):.2f}x",
        f"{min(speedups):.2f}x",
        str(sum(speedup < 1 for speedup in speedups)),
        f"{statistics.median(r.error(plan) for r in results for plan in r.measured):.0%}",
        f"{statistics.median(r.error(r.chosen) for r in results):.0%}",
    ]


def _workloads(lines: Sequence[Line]) -> str:
    head = "images|layout|pass, dtype|plan|best|measured|predicted|regret|over all gathered"
    rows = [["", *head.split("|"), "times as fast"]]
    for line in lines:
        call, result = line["call"], Result.of(line)
        layout = "channels_last" if call["layers"][0]["channels_last"] else "NCHW"
        case = [_name(line), str(call["batch"]), layout, _group(line)]
        times = duration(result.auto), duration(result.predicted[result.chosen])
        ratios = f"{result.regret:.1%}", f"{result.gain:.2f}x", f"{result.speedup:.2f}x"
        rows.append([*case, letters(result.chosen), letters(result.best), *times, *ratios])
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
