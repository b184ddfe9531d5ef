"""How far the planner's choice is from the best plan, found by trying them all.

    pytest bench/every_plan.py --benchmark-only                              # a quarter of an hour
    pytest bench/every_plan.py --benchmark-only -k "random and forward"      # a part of it

Every assignment of gather or project to the layers is timed for random first layers and small
calls, in turns with `plan="auto"` and with `grid_sample` + `cat` + `linear`. For W1 to W5, on one
image (W4: two), the choice is timed, all layers gathered, and the choice with one layer changed.
Times are 20th percentiles of warm calls. `python -m bench.report` makes tables of them, in
docs/planner-measurements.md.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from bench.machine import DEVICE
from bench.measure import Ledger
from bench.planning import Plan, plan_of
from bench.timing import clock
from bench.workloads import (
    WORKLOADS,
    Case,
    Workload,
    in_both_layouts,
    random_workloads,
    small_workloads,
)

PEER = "grid_sample"
FEW = [*random_workloads(), *small_workloads()]
HALF = [
    replace(w, name=f"{w.name} bfloat16", dtype="bfloat16") for w in FEW if w.dtype == "float32"
]
LARGE = in_both_layouts(replace(w, images=2 if w.name == "W4" else 1) for w in WORKLOADS)
CASES = [Case(w, True) for w in (*FEW, *HALF, *LARGE)] + [Case(w, False) for w in FEW]


def plans_of(workload: Workload, chosen: Plan) -> list[str]:
    """Gather or project, for each layer."""
    choices = itertools.product(("gather", "project"), repeat=len(workload.layers))
    plans = [Plan(layers, "two_step") for layers in choices]
    if workload.family == "workload":
        plans = [plan for plan in plans if _is_near(plan, chosen, workload) or not plan.projected]
    return [plan.encode() for plan in plans]


def _is_near(plan: Plan, chosen: Plan, workload: Workload) -> bool:
    changed = [i for i, layer in enumerate(plan.layers) if layer != chosen.layers[i]]
    cells = [workload.layers[i][1] * workload.layers[i][2] for i in changed]
    # Projecting more cells than that takes minutes.
    return len(changed) <= 1 and all(n <= 4 * workload.points for n in cells)


@pytest.mark.benchmark(timer=clock(DEVICE))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_plan(benchmark: Any, ledger: Ledger, case: Case) -> None:
    plans = plans_of(case.workload, plan_of("auto", case, DEVICE))
    # Not strict: to project many more cells than there are points sums as many terms more.
    lines = ledger.measure(benchmark, case, [PEER, *plans, "auto"], strict=False)
    for name, line in lines.items():
        assert "problem" not in line, f"{name}: {line['problem']}"
    auto = lines["auto"]
    kept = ("case", "direction", "sizes", "family", "layers", "images", "points", "dtype")
    line = {key: auto[key] for key in (*kept, "channels_last", "ragged", "profile")}
    line |= {"chosen": auto["plan"], "auto": auto["p20"], "peer": lines[PEER]["p20"]}
    line["measured"] = {name: lines[name]["p20"] for name in plans}
    line["predicted"] = {name: lines[name]["predicted"] for name in (*plans, "auto")}
    ledger.write(benchmark, "every_plan", line)
