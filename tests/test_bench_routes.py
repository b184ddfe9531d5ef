"""bench/every_route.py: which routes are tried, what is written of them, and the fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import every_route, measure, results
from bench.every_route import CASES, routes_of, summary
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


def test_all_layers_are_projected_each_way() -> None:
    assert words(CASES["S5-forward"]) >= {("project_band",) * 2, ("project_rows",) * 2}


def test_large_maps_are_not_projected() -> None:
    """That would take longer than all others together."""
    assert not any(read[0].startswith("project") for read in words(CASES["W1-forward"]))
    assert any(read[0].startswith("project") for read in words(CASES["S5-forward"]))


def test_the_choice_is_among_what_is_tried() -> None:
    for name, case in CASES.items():
        model = CostModel(call_shape(case, GPU), BACKEND, H200)
        tried = {plan_of(route, case, GPU).route for route in routes_of(case, GPU)}
        assert model.routed(model.cheapest()).route in tried, name


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
    (line,) = results.read("every_route")
    assert [*line["measured"]] == [*line["predicted"]] == routes_of(case, GPU)
    assert min(line["auto"], *line["measured"].values(), *line["predicted"].values()) > 0
    assert line["chosen"] in line["measured"]
    assert "| small-training |" in summary()


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


def write(date: str, *cases: str) -> None:
    """Lines of a run, with the times of the model."""
    run = {"device": "X", "torch": "2.11.0", "commit": "0123456789ab", "date": date}
    for name in cases:
        case = CASES[name]
        model = CostModel(call_shape(case, GPU), BACKEND, H200)
        times = {route: model.seconds(plan_of(route, case, GPU)) for route in routes_of(case, GPU)}
        best = min(times, key=times.__getitem__)
        line = {"case": name, "auto": times[best], "chosen": best, "measured": times}
        results.append("every_route", run, line)


def test_the_choice_stands_beside_the_fastest_route() -> None:
    case = CASES["W5-forward"]
    chosen, *_, other = routes_of(case, GPU)
    line = {"case": "W5-forward", "auto": 1e-4, "chosen": chosen}
    line["measured"] = {chosen: 1e-4, other: 5e-5}
    run = {"device": "X", "torch": "2.11.0", "commit": "0123456789ab", "date": "2026-01-02T03:04"}
    results.append("every_route", run, line)
    routes = " | ".join([name.partition("#")[2] for name in (chosen, other)])
    row = f"| W5-forward | 100 us | 50 us | 2.00 | {routes} |"
    assert row in summary()


def test_rates_are_fitted_to_whole_runs() -> None:
    assert "Nothing" in summary()
    write("2026-01-02T03:04", "W1-forward", "W2-forward")
    assert "2 of 22 cases" in summary()
    assert "fitted" not in summary()
    write("2026-01-01T03:04", *CASES)
    assert "22 of 22 cases" in summary()
    assert "| streams | 3.6e+12 | 3.6e+12 |" in summary()


def test_a_route_that_is_none() -> None:
    with pytest.raises(ValueError, match=r"W1-forward has no such route"):
        plan_of(
            "two_step:gather,gather,gather#gather,gather,project_columns/", CASES["W1-forward"], GPU
        )
