"""The tables of docs/planner-measurements.md, from bench/results/planner_regret.jsonl alone.

A section for each device, day and commit in that file. `python -m bench.report` writes them. A line
has the seconds of each plan of a call, `measured` and `predicted`, by encoded plan, those of the
`peer`, and those of `auto`, which may be faster than the plan it has `chosen`: by name, that plan
keeps nothing for its backward pass, which a small call else does.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from .planning import Plan
from .results import Line, duration, read
from .tables import identity, markdown, paragraphs
from .workloads import WORKLOADS

SMALL_VALUES = 1 << 18
SUBSETS = ("random and small layers", "up to 2^18 values", "more values", "ragged", "W1 to W5")
DTYPES = {8: "float64", 4: "float32", 2: "half precision"}
NAMES = {(w.layers, w.points, w.out_features): w.name for w in WORKLOADS}
FORMATS = {
    **dict.fromkeys(("measured", "predicted"), duration),
    **dict.fromkeys(("regret", "regret, median", "worst"), "{:.1%}".format),
    **dict.fromkeys(("over all gathered", "times as fast"), "{:.2f}x".format),
    **dict.fromkeys(("times as fast, median", "least"), "{:.2f}x".format),
    **dict.fromkeys(("prediction error, all plans", "of the choice"), "{:.0%}".format),
}


def best(line: Line) -> str:
    """The fastest of all plans."""
    return min(line["measured"], key=line["measured"].__getitem__)


def regret(line: Line) -> float:
    """How much longer the choice takes than the fastest plan, relative to it."""
    return float(line["auto"] / min(line["auto"], line["measured"][best(line)]) - 1)


def letters(encoded: str) -> str:
    """A plan in short: g for a layer that is gathered, p for one that is projected."""
    return "".join(strategy[0] for strategy in Plan.decode(encoded).layers)


def planner_block() -> str:
    """All sections, the latest first."""
    sections: dict[tuple[str, ...], list[Line]] = {}
    for line in read("planner_regret"):
        key = (line["date"][:10], line["device"], line["commit"], line["torch"])
        sections.setdefault(key, []).append(line)
    parts = []
    for (day, device, *_), lines in sorted(sections.items(), reverse=True):
        profiles = "; ".join(dict.fromkeys(line["profile"] for line in lines))
        run = f"{identity(lines[0])} Profile: {profiles}."
        parts += [f"## {device}, {day}", run, regrets(lines)]
        if workloads := [call for call in map(_call, lines) if call["name"]]:
            rows = pd.DataFrame(workloads).set_index("name").loc[:, :"times as fast"]
            parts += ["W1 to W5 (g gathered, p projected):", markdown(rows, FORMATS)]
    return paragraphs(*parts)


def regrets(lines: Iterable[Line]) -> str:
    """How often the choice was good, and how far the predictions are off."""
    calls = pd.DataFrame(map(_call, lines)).explode("subsets")
    subsets = calls.groupby(["pass, dtype", "subsets"], sort=False)
    regret, speed, errors = subsets.regret, subsets["times as fast"], subsets.errors
    cells = {
        "calls": subsets.size(),
        "within 15% of the best": regret.agg(lambda some: (some <= 0.15).sum()),
        "regret, median": regret.median(),
        "worst": regret.max(),
        "times as fast, median": speed.median(),
        "least": speed.min(),
        "slower": speed.agg(lambda some: (some < 1).sum()),
        "prediction error, all plans": errors.agg(lambda lists: lists.explode().median()),
        "of the choice": subsets.error.median(),
    }
    return markdown(pd.DataFrame(cells).reindex(SUBSETS, level=1), FORMATS)


def _call(line: Line) -> Line:
    """What is told of a call. Its name is W1 to W5, with any number of images, or ""."""
    call, auto, measured, predicted = (line[k] for k in ("call", "auto", "measured", "predicted"))
    maps = tuple((m["channels"], m["rows"], m["columns"]) for m in call["layers"])
    points = call["points"] // max(call["batch"], 1)
    name = NAMES.get((maps, points, call["out_features"]), "")
    small = call["points"] * sum(channels for channels, _, _ in maps) <= SMALL_VALUES
    other = ["random and small layers", "up to 2^18 values" if small else "more values"]
    direction = "training" if call["training"] else "forward"
    gathered = next(time for plan, time in measured.items() if "project" not in plan)
    # What is predicted of the choice is the route that auto takes.
    times = {**measured, line["chosen"]: auto}
    errors = {plan: abs(predicted[plan] / time - 1) for plan, time in times.items()}
    return {
        "name": name,
        "images": call["batch"],
        "layout": "channels_last" if call["layers"][0]["channels_last"] else "NCHW",
        "pass, dtype": f"{direction}, {DTYPES[call['itemsize']]}",
        "plan": letters(line["chosen"]),
        "best": letters(best(line)),
        "measured": auto,
        "predicted": predicted[line["chosen"]],
        "regret": regret(line),
        "over all gathered": gathered / auto,
        "times as fast": line["peer"] / auto,
        "error": errors[line["chosen"]],
        "errors": list(errors.values()),
        "subsets": ["W1 to W5"] if name else other + ["ragged"] * call["ragged"],
    }
