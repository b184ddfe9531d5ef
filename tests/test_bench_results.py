"""What becomes of measured lines: runs, Table 4 in words, and the regret of plans."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench import planner_regret, results
from bench.planning import plan_of
from bench.table4_text import table4_claims
from bench.workloads import WORKLOADS, Case, Workload, small_workloads

CPU = torch.device("cpu")
SMALL = Workload("small", ((3, 8, 8), (5, 4, 4)), (16, 16), images=2, points=7, out_features=11)


def test_results_come_back_by_complete_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXELNET_BENCH_RESULTS", str(tmp_path / "new"))
    assert results.read("first_layer") == []
    for date, cases in (("1", "ab"), ("2", "ab"), ("3", "a")):
        for case in cases:
            results.append("first_layer", {"device": "X", "date": date}, {"case": case})
    results.append("first_layer", {"device": "Y", "date": "4"}, {"case": "a"})
    lines = results.read("first_layer")
    assert results.devices(lines) == ["Y", "X"]
    run = results.complete_run(lines, "X", "case", {"a", "b"})
    assert [(line["date"], line["case"]) for line in run] == [("2", "a"), ("2", "b")]
    assert results.complete_run(lines, "Y", "case", {"a", "b"}) == []


def test_rows_of_table4_are_the_latest_at_full_size() -> None:
    lines = [
        {"device": "X", "row": "a", "scaled": False, "value": 1},
        {"device": "X", "row": "a", "scaled": False, "value": 2},
        {"device": "X", "row": "b", "scaled": True, "value": 3},
        {"device": "Y", "row": "b", "scaled": True, "value": 4},
    ]
    assert [row["value"] for row in results.latest_rows(lines, "X")] == [2]
    assert [row["value"] for row in results.latest_rows(lines, "Y")] == [4]


def test_claims_are_ratios_of_rows() -> None:
    def row(name: str, memory: float, speed: float) -> results.Line:
        sizes = {"side": 224, "samples_per_image": 2000}
        return {"row": name, "memory_bytes": memory, "updates_per_second": speed, **sizes}

    text = table4_claims(
        [row("dense fc-3", 1100, 1), row("sparse fc-3", 200, 8), row("backbone", 100, 9)]
    )
    assert "5.5 times the memory and 8.0 times the time" in text
    assert "in the paper's table 8.4 and 17.5" in text
    assert "10.0 times the memory" in text


@pytest.mark.parametrize("training", [False, True], ids=["forward", "training"])
def test_regret_is_measured_checked_and_written(
    training: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("PIXELNET_BENCH_RESULTS", str(tmp_path))
    monkeypatch.setattr("bench.timing.ROUNDS", 1)
    small = [w for w in small_workloads() if w.name in ("small-16", "small-ragged")]
    monkeypatch.setitem(planner_regret.KINDS, "small", lambda: small)
    arguments = [] if training else ["--forward"]
    planner_regret.main(["--of", "small", *arguments])
    first, second = results.read("planner_regret")
    assert (first["call"]["training"], second["call"]["ragged"]) == (training, True)
    for line in (first, second):
        assert set(line["measured"]) == set(line["predicted"])
        assert line["chosen"] in line["measured"]
        assert min(line["auto"], line["peer"], *line["measured"].values()) > 0
        assert "CPU" in line["profile"]
        assert line["call"]["batch"] == (4 if line["call"]["ragged"] else 1)
    assert "within 15% of the best" in capsys.readouterr().out


def test_plans_that_are_tried() -> None:
    """All of a small layer; of a large one those that differ from the choice in one layer."""
    small = replace(SMALL, family="small")
    tried = planner_regret.plans_of(small, plan_of("auto", Case(small, True), CPU))
    assert len(set(tried)) == 4
    case = Case(WORKLOADS[1], True)
    chosen, gathered = (plan_of(name, case, CPU) for name in ("auto", "gather"))
    tried = planner_regret.plans_of(WORKLOADS[1], chosen)
    assert {chosen, gathered} < set(tried)
    for plan in set(tried) - {gathered}:
        assert sum(map(str.__ne__, plan.layers, chosen.layers)) <= 1
        assert "project" not in plan.layers[0], "that would take minutes"


def test_lines_of_older_results_are_read() -> None:
    old = {"median": 2.0, "p20": 1.0, "times_auto": 1.2}
    cold = {"cold_median": 3.0, "cold_p20": 2.5, "cold_times_auto": 1.4}
    first, second = results.shown([old, old | cold])
    assert first == old
    assert (second["median"], second["p20"], second["warm_median"]) == (3.0, 2.5, 2.0)
    assert (first["times_auto"], second["times_auto"]) == (1.2, 1.4)


def test_spread_of_table4_is_shown_where_it_was_kept() -> None:
    def row(name: str, speed: float, **more: object) -> results.Line:
        sizes = {"side": 224, "samples_per_image": 2000, "memory_bytes": 1.0}
        return {"row": name, "updates_per_second": speed, **sizes, **more}

    plain = table4_claims([row("dense fc-3", 2), row("sparse fc-3", 8)])
    assert " 4.0 times the time" in plain
    rows = [row("dense fc-3", 2, spread=[1.0, 4.0]), row("sparse fc-3", 8, spread=[8.0, 8.0])]
    assert " 4.0 (2.0 to 8.0) times the time" in table4_claims(rows)
