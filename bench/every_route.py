"""How far the planner's choice is from the fastest route on a GPU, found by trying them.

    pytest bench/every_route.py -k compile -n 16                         # on a GPU
    pytest bench/every_route.py --benchmark-only -k "W4 and forward"
    python -m bench.every_route                                          # anywhere, afterwards

Plans that project the coarsest maps are tried for W1 to W5 and six other calls: none, one, two and
so on, as long as these have at most nine cells (MOST_CELLS) for each point. All their routes
(docs/planner.md) are checked first, then timed in turns with `plan="auto"`, cold. The command
reads bench/results/every_route.jsonl, shows the fastest route beside the choice, and fits the rates
of the planner's profile to a whole run.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
import torch

from bench.machine import DEVICE
from bench.measure import Ledger, run_once
from bench.planning import H200, MODES, Plan, fitted, plan_of, route_names
from bench.results import duration
from bench.tables import identity, markdown, measured, paragraphs, runs
from bench.timing import clock
from bench.workloads import WORKLOADS, Case, Workload, pyramid

W2, W4 = WORKLOADS[1], WORKLOADS[3]
CONVNEXT = ((96, 4), (192, 8), (384, 16), (768, 32))  # (channels, stride)
MOST_CELLS = 9  # of a projected map, for each point of an image
# As in results/h200-routes.jsonl.
OTHERS = (
    replace(W2, name="S1", out_features=1024),
    replace(W4, name="S2", images=2, out_features=128),
    Workload("S3", pyramid(CONVNEXT, 256), (256, 256), 8, 1000, 512),
    replace(W2, name="S4", images=1, points=20000, out_features=512),
    Workload("S5", pyramid(((64, 4), (128, 8)), 128), (128, 128), 4, 500, 64),
    replace(W4, name="S6", out_features=1024),
)
CASES = {
    str(case): case
    for workload in (*WORKLOADS, *OTHERS)
    for case in (Case(replace(workload, dtype="bfloat16"), way) for way in (False, True))
}


on_a_gpu = pytest.mark.skipif(DEVICE.type == "cpu", reason="calibrate() tries those of a CPU")


def routes_of(case: Case, device: torch.device) -> list[str]:
    """The names of the routes that are tried."""
    workload, names = case.workload, []
    for kept in range(len(workload.layers), -1, -1):
        projected = workload.layers[kept:]
        if any(rows * columns > MOST_CELLS * workload.points for _, rows, columns in projected):
            break
        layers = ("gather",) * kept + ("project",) * len(projected)
        # Where nothing is gathered, both modes are the same.
        for mode in MODES if kept else ("two_step",):
            names += route_names(Plan(layers, mode), case, device)
    return names


@on_a_gpu
@pytest.mark.parametrize("name", CASES)
def test_routes_compile(name: str) -> None:
    run_once(CASES[name], routes_of(CASES[name], DEVICE))


@on_a_gpu
@pytest.mark.benchmark(timer=clock(DEVICE))
@pytest.mark.parametrize("name", CASES)
def test_every_route(benchmark: Any, ledger: Ledger, name: str) -> None:
    case = CASES[name]
    names = routes_of(case, DEVICE)
    # Not strict: to project many more cells than there are points sums as many terms more.
    lines = ledger.measure(benchmark, case, [*names, "auto"], strict=False)
    for route, line in lines.items():
        assert "problem" not in line, f"{route}: {line['problem']}"
    chosen, *_ = route_names(plan_of("auto", case, DEVICE), case, DEVICE)
    auto = lines["auto"]
    line = {"case": name, "sizes": auto["sizes"], "profile": auto["profile"], "chosen": chosen}
    line["auto"] = auto["cold_median"]
    line["measured"] = {route: lines[route]["cold_median"] for route in names}
    line["predicted"] = {route: lines[route]["predicted"] for route in names}
    ledger.write(benchmark, "every_route", line)


def summary() -> str:
    """By device, of the run with most cases: the choice beside the fastest route, and the rates of
    the H200's profile fitted to all."""
    found = runs(measured("every_route"), "case", CASES)
    return paragraphs(*map(_of_run, found.values())) or "Nothing was measured yet."


def _of_run(run: pd.DataFrame) -> str:
    fastest = [min(times, key=times.__getitem__) for times in run.measured]
    best = [times[route] for times, route in zip(run.measured, fastest, strict=True)]
    choices = pd.DataFrame(
        {
            "": run.case,
            "auto": run.auto,
            "fastest": best,
            "auto / fastest": run.auto / best,
            "chosen": [route.partition("#")[2] for route in run.chosen],
            "fastest route": [route.partition("#")[2] for route in fastest],
        }
    ).set_index("")
    formats = {"auto": duration, "fastest": duration, "auto / fastest": "{:.2f}".format}
    head = f"{len(run)} of {len(CASES)} cases. {identity(run.iloc[-1])}"
    return paragraphs(head, markdown(choices, formats), _rates(run))


def _rates(run: pd.DataFrame) -> str:
    """Of all cases only: a few do not tell kinds of work apart."""
    if len(run) < len(CASES):
        return ""
    times = [
        (CASES[case], route, seconds)
        for case, measured in zip(run.case, run.measured, strict=True)
        for route, seconds in measured.items()
    ]
    rates = pd.DataFrame({"shipped": H200.as_dict(), "fitted": fitted(times).as_dict()})
    rates = rates[[isinstance(rate, float) for rate in rates.shipped]]
    number = "{:.3g}".format
    return markdown(rates, {"shipped": number, "fitted": number})


def main(arguments: list[str] | None = None) -> None:
    """Print the summary."""
    parser = argparse.ArgumentParser(prog="python -m bench.every_route", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.parse_args(arguments)
    print(summary())


if __name__ == "__main__":
    main()
