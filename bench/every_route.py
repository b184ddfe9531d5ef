"""How far the planner's choice is from the fastest route on a GPU, found by trying them.

    pytest bench/every_route.py -k compile -n 16                         # on a GPU
    pytest bench/every_route.py --benchmark-only -k "W4 and forward"
    python -m bench.every_route                                          # anywhere, afterwards

Of W1 to W5 and six other calls every route is timed (docs/kernels.md) of the plans that project the
coarsest maps: none, one, two and so on, as long as they have no more than MOST_CELLS a point. Each
is checked first, and timed in turns with `plan="auto"`, cold. The command then shows the fastest of
the last run beside the choice, and the rates that the planner's profile would have, fitted to it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
import torch

from bench import results
from bench.inputs import make_inputs
from bench.machine import DEVICE
from bench.measure import Ledger
from bench.peers import peer_of, prepare
from bench.planning import H200, MODES, Plan, fitted, plan_of, route_names
from bench.tables import markdown, paragraphs
from bench.timing import clock
from bench.workloads import WORKLOADS, Case, Workload, pyramid

W2, W4 = WORKLOADS[1], WORKLOADS[3]
CONVNEXT = ((96, 4), (192, 8), (384, 16), (768, 32))  # (channels, stride)
MOST_CELLS = 9
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
        for mode in MODES[: 1 if kept == 0 else 2]:
            names += route_names(Plan(layers, mode), case, device)
    return names


@on_a_gpu
@pytest.mark.parametrize("name", CASES)
def test_routes_compile(name: str) -> None:
    """One call of each: what it compiles stays in Triton's cache."""
    case = CASES[name]
    inputs = make_inputs(case.workload, DEVICE).requires_grad_(case.training)
    with torch.set_grad_enabled(case.training):
        for route in routes_of(case, DEVICE):
            call = prepare(peer_of(route, case, DEVICE), inputs)
            call()
            assert call.forward().isfinite().all(), route


@on_a_gpu
@pytest.mark.benchmark(timer=clock(DEVICE))
@pytest.mark.parametrize("name", CASES)
def test_every_route(benchmark: Any, ledger: Ledger, name: str) -> None:
    case = CASES[name]
    names = routes_of(case, DEVICE)
    lines = ledger.measure(benchmark, case, [*names, "auto"])
    for route, line in lines.items():
        assert "problem" not in line, f"{route}: {line['problem']}"
    routes = []
    for route in names:
        found = plan_of(route, case, DEVICE).route
        assert found is not None
        measured, predicted = (lines[route][key] for key in ("cold_median", "predicted"))
        words = {"route": route, "read": found.read, "write": found.write}
        routes.append({**words, "measured": measured, "predicted": predicted})
    auto = lines["auto"]
    line = {"case": name, "sizes": auto["sizes"], "profile": auto["profile"]}
    line |= {"auto": auto["cold_median"], "chosen": auto["plan"], "routes": routes}
    ledger.write(benchmark, "every_route", line)


def last_run() -> list[results.Line]:
    """The lines of the run that ended last."""
    lines = results.read("every_route")
    return [at for at in lines if at["date"] == lines[-1]["date"]]


def summary(lines: list[results.Line]) -> str:
    """The choice beside the fastest route of each case, and the rates fitted to all routes."""
    rows = []
    for line in lines:
        best = min(line["routes"], key=lambda route: route["measured"])
        row = {"case": line["case"], "auto": line["auto"], "fastest": best["measured"]}
        row |= {"auto / fastest": line["auto"] / best["measured"], "chosen": line["chosen"]}
        rows.append(row | {"fastest route": ", ".join([*best["read"], *best["write"]])})
    formats = dict.fromkeys(("auto", "fastest"), results.duration)
    choices = markdown(pd.DataFrame(rows), {**formats, "auto / fastest": "{:.2f}".format})
    measured = [
        (CASES[line["case"]], at["route"], at["measured"])
        for line in lines
        for at in line["routes"]
    ]
    shipped, found = H200.as_dict(), fitted(measured).as_dict()
    rates = [
        {"rate": name, "shipped": shipped[name], "fitted": found[name]}
        for name in found
        if isinstance(found[name], float)
    ]
    number = "{:.3g}".format
    table = markdown(pd.DataFrame(rates), {"shipped": number, "fitted": number})
    return paragraphs(choices, table)


if __name__ == "__main__":
    print(summary(last_run()))
