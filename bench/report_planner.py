"""The tables of docs/planner-measurements.md, from bench/results/every_plan.jsonl alone.

A section for each device, day and commit in that file. `python -m bench.report` writes them. A line
has the seconds of each plan of a call, `measured` and `predicted`, by encoded plan, those of the
`peer`, and those of `auto`, which may be faster than the plan it has `chosen`: by name, that plan
keeps nothing for its backward pass, which a small call else does.
"""

from __future__ import annotations

import pandas as pd

from .results import Line, duration, read
from .tables import identity, markdown, paragraphs

SMALL_VALUES = 1 << 18
SUBSETS = ("random and small layers", "up to 2^18 values", "more values", "ragged", "W1 to W5")
FORMATS = {
    **dict.fromkeys(("measured", "predicted"), duration),
    **dict.fromkeys(("regret", "regret, median", "worst"), "{:.1%}".format),
    **dict.fromkeys(("over all gathered", "times as fast"), "{:.2f}x".format),
    **dict.fromkeys(("times as fast, median", "least"), "{:.2f}x".format),
    **dict.fromkeys(("prediction error, all plans", "of the choice"), "{:.0%}".format),
}


def letters(encoded: str) -> str:
    """A plan in short: g for a layer that is gathered, p for one that is projected."""
    _, _, strategies = encoded.partition(":")  # by their names at the time
    return "".join(strategy[0] for strategy in strategies.split(","))


def planner_block() -> str:
    """All sections, the latest first."""
    lines, parts = pd.DataFrame(read("every_plan")), []
    if lines.empty:
        return ""
    runs = lines.groupby([lines.date.str[:10], "device", "commit", "torch"])
    for (day, device, *_), of_run in sorted(runs, key=lambda run: run[0], reverse=True):
        profiles = "; ".join(of_run.profile.unique())
        calls = pd.DataFrame(map(_call, of_run.to_dict("records")))
        parts += [f"## {device}, {day}", f"{identity(of_run.iloc[0])} Profile: {profiles}."]
        parts.append(_regrets(calls))
        if (large := calls.family == "workload").any():
            rows = calls[large].set_index("case").loc[:, "images":"times as fast"]
            parts += ["W1 to W5 (g gathered, p projected):", markdown(rows, FORMATS)]
    return paragraphs(*parts)


def _regrets(calls: pd.DataFrame) -> str:
    """How often the choice was good, and how far the predictions are off."""
    subsets = calls.explode("subsets").groupby(["pass, dtype", "subsets"], sort=False)
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
    """What is told of a call."""
    auto, measured, predicted = line["auto"], line["measured"], line["predicted"]
    best = min(measured, key=measured.__getitem__)
    values = line["images"] * line["points"] * sum(channels for channels, _, _ in line["layers"])
    few = [SUBSETS[0], SUBSETS[1 if values <= SMALL_VALUES else 2], *["ragged"] * line["ragged"]]
    gathered = next(seconds for plan, seconds in measured.items() if "project" not in plan)
    times = {**measured, "auto": auto}
    errors = {name: abs(predicted[name] / seconds - 1) for name, seconds in times.items()}
    return {
        "case": line["case"].removesuffix(" NCHW"),
        "family": line["family"],
        "images": line["images"],
        "layout": "channels_last" if line["channels_last"] else "NCHW",
        "pass, dtype": f"{line['direction']}, {line['dtype']}",
        "plan": letters(line["chosen"]),
        "best": letters(best),
        "measured": auto,
        "predicted": predicted["auto"],
        "regret": auto / min(auto, measured[best]) - 1,
        "over all gathered": gathered / auto,
        "times as fast": line["peer"] / auto,
        "error": errors["auto"],
        "errors": list(errors.values()),
        "subsets": ["W1 to W5"] if line["family"] == "workload" else few,
    }
