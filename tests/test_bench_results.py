"""What becomes of measured lines: runs, Table 4 in words, and the regret of plans."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("pandas")

import pandas as pd

from bench import every_plan, results, tables
from bench.measure import Ledger
from bench.planning import Plan, plan_of
from bench.report_table4 import latest_rows, table4_claims
from bench.workloads import WORKLOADS, Case, Workload, small_workloads

CPU = torch.device("cpu")
SMALL = Workload("small", ((3, 8, 8), (5, 4, 4)), (16, 16), images=2, points=7, out_features=11)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has been measured yet, and there is no folder."""
    monkeypatch.setenv("PIXELNET_BENCH_RESULTS", str(tmp_path / "new"))


def test_a_run_is_the_latest_of_the_fullest() -> None:
    assert results.read("first_layer") == []
    assert tables.runs(tables.measured("first_layer"), "case", {"a", "b"}) == {}
    for date, cases in (("1", "ab"), ("2", "ab"), ("3", "a"), ("4", "c")):
        for case in cases:
            results.append("first_layer", {"device": "X", "date": date}, {"case": case})
    results.append("first_layer", {"device": "Y", "date": "4"}, {"case": "a"})
    results.append("first_layer", {"device": "Z", "date": "5"}, {"case": "c"})
    runs = tables.runs(tables.measured("first_layer"), "case", {"a", "b"})
    assert list(runs) == ["Y", "X"], "the device measured last first, and none without a wanted one"
    assert runs["X"][["date", "case"]].to_numpy().tolist() == [["2", "a"], ["2", "b"]]
    assert runs["Y"].case.tolist() == ["a"]


def table4(rows: dict[str, tuple[float, float]], **figures: object) -> pd.DataFrame:
    """Rows with these bytes and updates a second."""
    sizes = {"side": 224, "samples_per_image": 2000, "spread": None}
    run = {"device": "X", "kind": "cpu", "date": "2026-01-02", "scaled": False, **sizes, **figures}
    lines = [
        {**run, "row": name, "memory_bytes": memory, "updates_per_second": speed}
        for name, (memory, speed) in rows.items()
    ]
    return pd.DataFrame(lines)


def test_rows_of_table4_are_the_latest_at_full_size() -> None:
    names = ("sparse fc-1", "dense fc-1", "sparse fc-1", "sparse fc-2", "backbone")
    lines = pd.concat([table4({name: (value, 1)}) for value, name in enumerate(names)])
    lines["scaled"] = [False, False, False, True, True]
    lines["device"] = ["X"] * 4 + ["Y"]
    rows = latest_rows(lines)
    assert rows["X"].memory_bytes.to_dict() == {"dense fc-1": 1, "sparse fc-1": 2}
    assert rows["X"].index.tolist() == ["dense fc-1", "sparse fc-1"], "in the paper's order"
    assert rows["Y"].index.tolist() == ["backbone"]


def claims(lines: pd.DataFrame) -> list[str]:
    return table4_claims(latest_rows(lines)["X"]).split("\n")[4:]


def test_claims_are_ratios_of_rows() -> None:
    rows = {"dense fc-3": (1100, 1), "sparse fc-3": (200, 8), "backbone": (100, 9)}
    ratios = "5.5x | 8.4x | 10.0x | more than 20x | 8.0x |  |  | 17.5x"
    assert claims(table4(rows)) == [f"| dense fc-3 | {ratios} |"]
    del rows["backbone"]
    ratios = "5.5x | 8.4x |  | more than 20x | 8.0x |  |  | 17.5x"
    assert claims(table4(rows)) == [f"| dense fc-3 | {ratios} |"]
    del rows["dense fc-3"]
    assert claims(table4(rows)) == []


def test_rows_with_tf32_are_compared_with_their_own() -> None:
    rows = {"sparse fc-3": (200, 8), "dense fc-3 TF32": (900, 2), "sparse fc-3 TF32": (300, 20)}
    assert claims(table4(rows)) == ["| dense fc-3 TF32 | 3.0x |  |  |  | 10.0x |  |  |  |"]


def test_of_rows_of_mixed_arithmetic_it_is_said() -> None:
    rows = table4({"dense fc-3": (1100, 1), "sparse fc-3": (200, 8)}, kind="cuda")
    old, new = (table4_claims(latest_rows(r)["X"]) for r in (rows, rows.assign(tf32=False)))
    assert "convolutions in TF32" in old
    assert "TF32" not in new


def test_of_rows_whose_memory_is_only_bounded_it_is_said() -> None:
    rows = table4({"dense fc-3": (1100, 1), "sparse fc-3": (float("nan"), 8)}, tf32=False)
    rows["memory_bytes_at_most"] = [float("nan"), 200.0]
    text = table4_claims(latest_rows(rows)["X"])
    assert "The memory of sparse fc-3 was not measured" in text
    assert "dense fc-3 takes at least 5.5x as much" in text
    assert "| dense fc-3 |  | 8.4x |" in text


def test_spread_of_table4_is_shown_where_it_was_kept() -> None:
    lines = table4({"dense fc-3": (400, 2), "masked fc-3": (400, 4), "sparse fc-3": (200, 8)})
    lines["spread"] = [[1.0, 4.0], None, [8.0, 8.0]]
    dense, masked = claims(lines)
    assert "| 4.0x | 2.0x | 8.0x | 17.5x |" in dense
    assert "| 2.0x |  |  | 4.8x |" in masked


@pytest.mark.parametrize("training", [False, True], ids=["forward", "training"])
def test_every_plan_is_measured_checked_and_written(
    training: bool, monkeypatch: pytest.MonkeyPatch, benchmark: Any
) -> None:
    if not benchmark.enabled:
        pytest.skip("xdist switches pytest-benchmark off")
    monkeypatch.setattr("bench.timing.ROUNDS", 1)
    monkeypatch.setattr("bench.measure.measured_roofs", lambda *_: {})
    (small,) = [w for w in small_workloads() if w.name == "small-ragged"]
    every_plan.test_every_plan(benchmark, Ledger(), Case(small, training))
    (line,) = results.read("every_plan")
    assert line["case"] == "small-ragged"
    assert (line["direction"] == "training") == training
    assert line["predicted"].keys() == {*line["measured"], "auto"}
    assert line["chosen"] in line["measured"]
    assert min(line["auto"], line["peer"], *line["measured"].values()) > 0
    assert "CPU" in line["profile"]
    assert (line["images"], line["ragged"]) == (4, True)


def test_plans_that_are_tried() -> None:
    """All of a small layer; of a large one those that differ from the choice in one layer."""
    small = replace(SMALL, family="small")
    tried = every_plan.plans_of(small, plan_of("auto", Case(small, True), CPU))
    assert len(set(tried)) == 4
    case = Case(WORKLOADS[1], True)
    chosen, gathered = (plan_of(name, case, CPU) for name in ("auto", "gather"))
    tried = every_plan.plans_of(WORKLOADS[1], chosen)
    assert {chosen.encode(), gathered.encode()} < set(tried)
    for plan in map(Plan.decode, set(tried) - {gathered.encode()}):
        assert sum(map(str.__ne__, plan.layers, chosen.layers)) <= 1
        assert "project" not in plan.layers[0], "that would take minutes"


def test_a_run_is_named_by_device_versions_commit_and_date() -> None:
    run = {
        "device": "X",
        "torch": "2.13.0",
        "commit": "0123456789ab",
        "date": "2026-01-02T03:04:05",
    }
    assert tables.identity(run) == "X; torch 2.13.0, commit 012345678; 2026-01-02 03:04 UTC."
    assert ", commit unknown; " in tables.identity(run | {"commit": None})  # without git
    run |= {"python": "3.12.0", "commit": "0123456789ab+changes", "scaled": True}
    assert tables.identity(run) == (
        "X; torch 2.13.0, Python 3.12.0, commit 012345678, with uncommitted changes; "
        "2026-01-02 03:04 UTC. Sizes scaled down for a CPU."
    )


def test_lines_of_older_results_are_read() -> None:
    old = {"median": 2.0, "p20": 1.0, "times_auto": 1.2, "scaled": False}
    cold = {"cold_median": 3.0, "cold_p20": 2.5, "cold_times_auto": 1.4}
    results.append("first_layer", {}, old)
    assert tables.measured("first_layer").to_dict("records") == [old]
    results.append("first_layer", {}, old | cold)
    lines = tables.measured("first_layer")
    assert lines.iloc[0].dropna().to_dict() == old
    cold_first = {"median": 3.0, "p20": 2.5, "times_auto": 1.4, "warm_median": 2.0}
    assert lines.iloc[1].to_dict() == {**cold_first, "scaled": False}
