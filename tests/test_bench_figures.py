"""The benchmarks' arithmetic: workloads, work, quantiles, playback, memory, results, Table 4."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest
import torch

from bench import results
from bench.inputs import make_inputs
from bench.ledger import Playback
from bench.measure import Case, measure_case
from bench.memory import high_water_mark, peak_bytes, saved_storages
from bench.peers import Peer, names_for, peers_for, plan_of
from bench.processes import in_own_process
from bench.table4 import PAPER, ROWS
from bench.table4_text import model_bytes, table4_claims
from bench.timing import interleaved, quantile
from bench.workloads import SWEEPS, WORKLOADS, Workload, for_cpu, registry

CPU = torch.device("cpu")
SMALL = Workload("small", ((3, 8, 8), (5, 4, 4)), (16, 16), images=2, points=7, out_features=11)


def test_work_by_hand() -> None:
    """The formulas of the docstrings, once with numbers."""
    assert SMALL.flops(14, training=False) == 2 * 14 * 8 * 11
    assert SMALL.flops(14, training=True) == 6 * 14 * 8 * 11
    touched = min(4 * 14, 2 * 64) * 3 + min(4 * 14, 2 * 16) * 5
    parameters, output = 9 * 11, 14 * 11
    forward = 4 * (touched + parameters + output) + 14 * 16
    assert SMALL.compulsory_bytes(14, training=False) == forward
    maps = 2 * 64 * 3 + 2 * 16 * 5
    backward = 4 * (2 * output + touched + parameters + maps + parameters)
    assert SMALL.compulsory_bytes(14, training=True) == forward + backward


def test_executed_work_of_peers() -> None:
    gathered, projected, dense = (
        peer.work(SMALL, False, CPU)[0]
        for peer in peers_for(["two_step", "project_gather", "dense"], SMALL, False, CPU)
    )
    assert gathered == 2 * 14 * 8 * 11
    assert projected == 2 * (2 * 64 * 3 + 2 * 16 * 5) * 11
    assert dense == 2 * (2 * 256) * 8 * 11


@pytest.mark.parametrize("on_cpu", [True, False])
def test_registry(on_cpu: bool) -> None:
    found = registry(on_cpu)
    names = [workload.name for workload in found]
    assert len(set(names)) == len(names)
    assert {w.family for w in found} == {"workload", *SWEEPS}
    for workload in found:
        assert workload.points <= workload.image_size[0] * workload.image_size[1]
        assert workload.scaled == on_cpu, workload.name
    dtypes = {w.dtype for w in found if w.family == "workload"}
    assert dtypes == {"float32" if on_cpu else "bfloat16"}


def test_scaling_down_keeps_cells_per_point() -> None:
    for workload in WORKLOADS:
        small = for_cpu(workload)
        assert small.scaled
        assert max(small.image_size) <= 128
        assert small.images == 1
        fine, original = small.layers[0], workload.layers[0]
        before = original[1] * original[2] / workload.points
        assert fine[1] * fine[2] / small.points == pytest.approx(before, rel=0.01)


def test_quantiles() -> None:
    assert quantile([3.0], 0.8) == 3
    assert quantile([4, 1, 3, 2, 5], 0.5) == 3
    assert quantile([0, 10], 0.2) == pytest.approx(2)


def test_playback_gives_recorded_durations() -> None:
    clock = Playback()
    clock.load([0.5, 0.25])
    first, second, third, fourth = (clock() for _ in range(4))
    assert (second - first, fourth - third) == (0.5, 0.25)
    with pytest.raises(IndexError):
        clock()


def test_interleaved_times_every_peer_and_tells_them_apart() -> None:
    calls = {"short": [lambda: time.sleep(0.001)], "long": [lambda: time.sleep(0.01)]}
    found = interleaved(calls, CPU)
    assert len(found["short"].seconds) >= len(found["long"].seconds) >= 5
    assert min(found["short"].seconds) >= 0.001
    assert found["long"].summary()["median"] >= 0.01


def test_peak_counts_blocks_that_lived_together() -> None:
    def call() -> torch.Tensor:
        first = torch.empty(1 << 20)  # 4 MiB
        second = first + 1
        del first
        return second[:1] + torch.empty(1 << 18).sum()

    peak = peak_bytes(call, CPU)
    assert 8 << 20 <= peak < (8 << 20) + (64 << 10)


def _touch(megabytes: int) -> int:
    torch.ones(1 << 18).sum()  # starts threads
    before = high_water_mark()
    torch.ones(megabytes << 18).sum()
    return high_water_mark() - before


def test_high_water_mark_agrees_with_the_allocator_where_both_must() -> None:
    expected = 64 << 20
    counted = peak_bytes(lambda: torch.ones(64 << 18).sum(), CPU)
    assert counted == pytest.approx(expected, abs=4096)
    assert in_own_process(_touch, 64) == pytest.approx(expected, rel=0.1)


def _fail() -> None:
    raise ValueError("as it should")


def test_errors_of_another_process_come_back() -> None:
    with pytest.raises(RuntimeError, match="ValueError: as it should"):
        in_own_process(_fail)


def test_saved_storages_are_counted_once_and_without_inputs() -> None:
    x = torch.randn(1000, requires_grad=True)
    with saved_storages([x]) as kept:
        y = x.exp()  # keeps its result
        z = (y[:10] * y[10:20]).sum()  # keeps two views of it
    assert list(kept.values()) == [y.untyped_storage().nbytes()]
    assert z.requires_grad


def test_library_keeps_its_output_alone_and_is_right() -> None:
    """A whole case, measured: checks, memory and samples of every peer."""
    case = Case(SMALL, training=True)
    names = [n for n in case.peers(CPU) if n != "grid_sample_compiled"]
    found = measure_case(case, names, CPU)
    assert not any(figures.problem for figures in found.values())
    output = SMALL.all_points * SMALL.out_features * SMALL.itemsize
    columns = SMALL.all_points * SMALL.channels * SMALL.itemsize
    assert output <= found["auto"].line["saved_bytes"] <= output + 2 * columns  # a small call
    assert found["grid_sample"].line["saved_bytes"] >= output + columns
    for name, figures in found.items():
        line = figures.line
        assert line["samples"] == len(figures.samples) >= 5
        assert line["p20"] <= line["median"] <= line["p80"]
        assert line["peak_bytes"] >= output, name
        assert ("plan" in line) == (name in ("auto", "two_step", "project_gather"))
        json.dumps(line)
    assert found["auto"].line["plan"] == plan_of("auto", SMALL, True, CPU).encode()


def test_a_wrong_peer_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(names: list[str], *rest: object) -> list[Peer]:
        (right,) = peers_for(["grid_sample"], SMALL, False, CPU)
        return [Peer("shifted", lambda at: right.run(at.with_points(at.points + 1)))]

    monkeypatch.setattr("bench.measure.peers_for", shifted)
    found = measure_case(Case(SMALL, training=False), ["shifted"], CPU)
    assert found["shifted"].problem.startswith("wrong: relative error")
    assert found["shifted"].samples == []
    assert "median" not in found["shifted"].line


def test_a_wrong_plan_of_the_library_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(names: list[str], *rest: object) -> list[Peer]:
        (right,) = peers_for(["auto"], SMALL, False, CPU)
        return [Peer("auto", lambda at: right.run(at) * 1.0001, own=True)]

    monkeypatch.setattr("bench.measure.peers_for", wrong)
    with pytest.raises(AssertionError, match="auto: value"):
        measure_case(Case(SMALL, training=False), ["auto"], CPU)


def test_grid_sample_with_half_precision_coordinates_is_found_wrong() -> None:
    workload = next(w for w in registry(True) if w.value == "bfloat16")
    assert "grid_sample_half" in names_for(workload, True, CPU)


def test_inputs_are_distinct_pixels() -> None:
    inputs = make_inputs(SMALL, CPU)
    for points in inputs.points:
        assert len({tuple(p) for p in points.tolist()}) == SMALL.points
    assert all(m.is_contiguous(memory_format=torch.channels_last) for m in inputs.maps)


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


def test_model_sizes_of_the_paper() -> None:
    """832 features, fc-1: VGG-16's convolutions and 833 weights for each of 60 classes."""
    assert model_bytes(ROWS["sparse fc-1"], 832) == 4 * (14_714_688 + 833 * 60)
    for name, features in (("sparse fc-2", 832), ("sparse conv-7 fc-3", 4928)):
        assert math.isclose(model_bytes(ROWS[name], features) / 1e6, PAPER[name].size_mb, abs_tol=1)


def test_claims_are_ratios_of_rows() -> None:
    def row(name: str, memory: float, speed: float) -> results.Line:
        return {
            "row": name,
            "memory_bytes": memory,
            "updates_per_second": speed,
            "side": 224,
            "samples_per_image": 2000,
        }

    text = table4_claims(
        [row("dense fc-3", 1100, 1), row("sparse fc-3", 200, 8), row("backbone", 100, 9)]
    )
    assert "5.5 times the memory and 8.0 times the time" in text
    assert "in the paper's table 8.4 and 17.5" in text
    assert "10.0 times the memory" in text
