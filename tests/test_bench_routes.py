"""bench/every_route.py: which routes are tried, what is written of them, and the fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import every_route, measure, results
from bench.every_route import CASES, last_run, routes_of, summary
from bench.measure import Ledger
from bench.planning import H200, call_shape, fitted, plan_of
from bench.workloads import Case, Workload
from pixelnet_triton.gpu import BACKEND
from pixelnet_triton.planner import CostModel

from .fake_cuda import FakeCuda, OnCpu

GPU = torch.device("cuda", 0)
SMALL = Workload("small", ((3, 8, 8), (5, 4, 4)), (16, 16), 2, 7, 8, dtype="bfloat16")


@pytest.fixture(autouse=True)
def own_results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIXELNET_BENCH_RESULTS", str(tmp_path))


def words(case: Case) -> set[tuple[str, ...]]:
    found = [plan_of(name, case, GPU).route for name in routes_of(case, GPU)]
    return {route.read for route in found if route is not None}


def test_every_way_to_read_a_layer_is_tried() -> None:
    for workload in ("W2", "W4"):
        case = CASES[f"{workload}-forward"]
        last = {read[-1] for read in words(case)}
        assert last == {"gather", "fused_linear", "project_rows", "project_band"}
        names = routes_of(case, GPU)
        assert len({*names}) == len(names) == len({plan_of(n, case, GPU) for n in names})


def test_large_maps_are_not_projected() -> None:
    """That would take longer than all others together."""
    assert not any(read[0].startswith("project") for read in words(CASES["W1-forward"]))
    assert any(read[0].startswith("project") for read in words(CASES["S5-forward"]))


def test_the_choice_is_among_what_is_tried() -> None:
    for name, case in CASES.items():
        model = CostModel(call_shape(case, GPU), BACKEND, H200)
        tried = {plan_of(route, case, GPU) for route in routes_of(case, GPU)}
        assert model.routed(model.cheapest()) in tried, name


def test_a_case_is_measured_checked_and_written(
    monkeypatch: pytest.MonkeyPatch, benchmark: Any
) -> None:
    if not benchmark.enabled:
        pytest.skip("xdist switches pytest-benchmark off")
    FakeCuda().install(monkeypatch)
    monkeypatch.setattr("bench.timing.ROUNDS", 1)
    monkeypatch.setattr("bench.measure.measured_roofs", lambda *_: {})
    for module in (every_route, measure):
        monkeypatch.setattr(module, "DEVICE", GPU)
    case = Case(SMALL, True)
    monkeypatch.setitem(CASES, "small-training", case)
    with OnCpu():
        every_route.test_routes_compile("small-training")
        every_route.test_every_route(benchmark, Ledger(), "small-training")
    (line,) = last_run()
    assert [at["route"] for at in line["routes"]] == routes_of(case, GPU)
    assert (
        min(line["auto"], *(at[k] for at in line["routes"] for k in ("measured", "predicted"))) > 0
    )
    assert "| small-training |" in summary([line])


def test_the_fit_finds_rates_again() -> None:
    """Of a GPU whose memory is half as fast, and whose products are, from times of its model."""
    slower = replace(H200, streams=H200.streams / 2, dense_flops_16=H200.dense_flops_16 / 2)
    measured = []
    for case in CASES.values():
        model = CostModel(call_shape(case, GPU), BACKEND, slower)
        for name in routes_of(case, GPU):
            measured.append((case, name, model.seconds(plan_of(name, case, GPU))))
    found = fitted(measured)
    assert found.streams == pytest.approx(slower.streams, rel=0.05)
    assert found.dense_flops_16 == pytest.approx(slower.dense_flops_16, rel=0.05)
    assert found.map_reads == pytest.approx(slower.map_reads, rel=0.05)


def test_the_summary_names_the_fastest_route() -> None:
    case = CASES["W5-forward"]
    routes = [
        {"route": name, "read": ["x"], "write": [], "measured": 1e-4, "predicted": 1e-4}
        for name in routes_of(case, GPU)
    ]
    routes[3] |= {"measured": 5e-5, "read": ["the", "fastest"]}
    line = {"case": "W5-forward", "auto": 1e-4, "chosen": "this", "routes": routes}
    assert "| W5-forward | 100 us | 50 us | 2.00 | this | the, fastest |" in summary([line])


def test_the_last_run_is_shown_alone() -> None:
    for date, case in (("1", "a"), ("2", "b"), ("2", "c")):
        results.append("every_route", {"date": date}, {"case": case})
    assert [line["case"] for line in last_run()] == ["b", "c"]
