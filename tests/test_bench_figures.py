"""The benchmarks' arithmetic: workloads, work, turns, memory, results, regret, Table 4."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench import planner_regret, results
from bench.inputs import make_inputs
from bench.measure import Case, measure_case
from bench.memory import high_water_mark, in_own_process, peak_bytes, saved_storages
from bench.peers import Peer, names_for, peers_for, prepare
from bench.planning import call_shape, plan_of
from bench.table4_text import table4_claims
from bench.timing import Turns, interleaved, make_cold, quantile
from bench.workloads import (
    SWEEPS,
    WORKLOADS,
    Workload,
    for_cpu,
    random_workloads,
    registry,
    small_workloads,
)

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


PEERS = ["two_step", "project_gather", "product", "grid_sample", "point_sample", "masked", "dense"]


@pytest.mark.parametrize("training", [False, True], ids=["forward", "training"])
@pytest.mark.parametrize("name", [*PEERS, "product_fused", "grid_sample_half"])
def test_peers_execute_the_products_they_declare_and_no_more(name: str, training: bool) -> None:
    """Counted operator by operator: a peer that computes twice would look slow for no reason."""
    if name == "product_fused" and training:
        pytest.skip("no backward pass")
    (peer,) = peers_for([name], SMALL, training, CPU)
    call = prepare(peer, make_inputs(SMALL, CPU).requires_grad_(training)).once(training)
    fused = {torch.ops.aten._addmm_activation: _addmm_flops}
    counter = FlopCounterMode(display=False, custom_mapping=fused)
    with counter, torch.set_grad_enabled(training):
        call()
    assert counter.get_total_flops() == peer.work(SMALL, training, CPU)[0]


def _addmm_flops(
    bias: object, left: list[int], right: list[int], *args: object, **kw: object
) -> int:
    return 2 * left[0] * left[1] * right[1]


def test_nothing_of_a_peer_outlives_its_use() -> None:
    """Peaks of the plain ways: samples and the matrix of them, then the matrix and the output."""
    workload = replace(SMALL, images=1, points=200, out_features=64, channels_last=False)
    h, y = (200 * n * 4 for n in (workload.channels, workload.out_features))
    with torch.no_grad():
        inputs = make_inputs(workload, CPU)
        peaks = {
            peer.name: peak_bytes(prepare(peer, inputs).forward, CPU)
            for peer in peers_for(["product", "product_fused", "grid_sample"], workload, False, CPU)
        }
    slack = 64 * 200 + 4096  # coordinates
    assert y <= peaks["product"] <= y + slack
    assert y <= peaks["product_fused"] <= y + slack
    assert peaks["grid_sample"] <= max(2 * h, h + y) + slack


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
    workloads = registry(on_cpu)
    names = [workload.name for workload in workloads]
    assert len(set(names)) == len(names)
    assert {w.family for w in workloads} == {"workload", *SWEEPS}
    for workload in workloads:
        assert workload.points <= workload.image_size[0] * workload.image_size[1]
        assert workload.scaled == on_cpu, workload.name
    dtypes = {w.dtype for w in workloads if w.family == "workload"}
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


def test_interleaved_times_every_peer_and_tells_them_apart() -> None:
    calls = {"short": [lambda: time.sleep(0.001)], "long": [lambda: time.sleep(0.01)]}
    samples = interleaved(calls, CPU)
    assert len(samples["short"].warm) >= len(samples["long"].warm) >= 5
    assert len(samples["short"].cold) == len(samples["long"].cold) >= 5
    assert min(samples["short"].warm) >= 0.001
    assert samples["long"].summary()["median"] >= 0.01
    assert samples["long"].summary()["cold_median"] >= 0.01


def test_slow_peers_have_three_turns_and_fast_ones_all() -> None:
    calls = {"slow": [lambda: time.sleep(0.2)], "fast": [lambda: None]}
    samples = interleaved(calls, CPU, cold=False)
    assert len(samples["slow"].warm) == 3
    assert len(samples["fast"].warm) > 100
    assert samples["fast"].cold == []
    assert "cold_median" not in samples["fast"].summary()


def test_a_peer_that_is_left_to_the_caller_comes_last_and_cold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[str] = []
    monkeypatch.setattr("bench.timing.make_cold", lambda *args: order.append("cold"))
    names = ("first", "second", "third")
    turns = Turns({n: [lambda n=n: order.append(n)] for n in names}, CPU)  # type: ignore[misc]
    for _ in range(5):
        order.clear()
        turns.round(left="second")
        assert order[-2:] == ["second", "cold"]
        assert [order.count(n) > 1 for n in names] == [True] * 3
    assert turns.samples["second"].cold == []
    assert len(turns.samples["first"].cold) == 5


def test_what_makes_cold_is_larger_than_caches_and_touched_each_time() -> None:
    from bench.timing import COLD_BYTES, _elsewhere

    make_cold(CPU)
    before = _elsewhere()[0].item()
    make_cold(CPU)
    assert _elsewhere()[0].item() == before + 1
    assert _elsewhere().nbytes == COLD_BYTES == 64 << 20


def test_peak_counts_blocks_that_lived_together() -> None:
    def call() -> torch.Tensor:
        first = torch.empty(1 << 20)  # 4 MiB
        second = first + 1
        del first
        return second[:1] + torch.empty(1 << 18).sum()

    peak = peak_bytes(call, CPU)
    assert 8 << 20 <= peak < (8 << 20) + (64 << 10)


def _touch(megabytes: int) -> Iterator[int]:
    torch.ones(1 << 18).sum()  # starts threads
    before = high_water_mark()
    for _ in range(2):
        torch.ones(megabytes << 18).sum()
        yield high_water_mark() - before


def test_high_water_mark_agrees_with_the_allocator_where_both_must() -> None:
    expected = 64 << 20
    counted = peak_bytes(lambda: torch.ones(64 << 18).sum(), CPU)
    assert counted == pytest.approx(expected, abs=4096)
    marks = list(in_own_process(_touch, 64))
    assert marks == [pytest.approx(expected, rel=0.1)] * 2


def _fail() -> Iterator[int]:
    yield 1
    raise ValueError("as it should")


def _die() -> Iterator[int]:
    yield 1
    os._exit(9)


def test_errors_of_another_process_come_back() -> None:
    values = in_own_process(_fail)
    assert next(values) == 1
    with pytest.raises(ValueError, match="as it should"):
        next(values)
    with pytest.raises(MemoryError, match="was killed"):
        list(in_own_process(_die))


def test_another_process_ends_when_no_more_is_wanted() -> None:
    values = in_own_process(_touch, 1)
    next(values)
    (process,) = multiprocessing.active_children()
    values.close()  # type: ignore[attr-defined]
    assert not process.is_alive()


def test_saved_storages_are_counted_once_and_without_inputs() -> None:
    x = torch.randn(1000, requires_grad=True)
    with saved_storages([x]) as kept:
        y = x.exp()  # keeps its result
        z = (y[:10] * y[10:20]).sum()  # keeps two views of it
    assert list(kept.values()) == [y.untyped_storage().nbytes()]
    assert z.requires_grad


def test_library_keeps_its_output_alone_and_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole case, measured: checks, memory and samples of every peer."""
    monkeypatch.setattr("bench.timing.SLOW", 10.0)  # however busy the machine is
    case = Case(SMALL, training=True)
    names = [n for n in case.peers(CPU) if n != "grid_sample_compiled"]
    results = measure_case(case, names, CPU)
    assert not any(figures.problem for figures in results.values())
    assert results["auto"].line["times_auto"] == results["auto"].line["cold_times_auto"] == 1
    output = SMALL.all_points * SMALL.out_features * SMALL.itemsize
    columns = SMALL.all_points * SMALL.channels * SMALL.itemsize
    assert output <= results["auto"].line["saved_bytes"] <= output + 2 * columns  # a small call
    assert results["grid_sample"].line["saved_bytes"] >= output + columns
    for name, figures in results.items():
        line = figures.line
        assert line["samples"] == len(figures.samples.warm) >= 5
        assert line["cold_samples"] == len(figures.samples.cold) >= 5
        assert line["p20"] <= line["median"] <= line["p80"]
        assert line["cold_p20"] <= line["cold_median"] <= line["cold_p80"]
        assert line["peak_bytes"] >= output, name
        assert ("plan" in line) == (name in ("auto", "two_step", "project_gather"))
        json.dumps(line)
    assert results["auto"].line["plan"] == plan_of("auto", SMALL, True, CPU).encode()


def test_a_wrong_peer_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(names: list[str], *args: object) -> list[Peer]:
        (right,) = peers_for(["grid_sample"], SMALL, False, CPU)
        return [Peer("shifted", lambda at: right.run(replace(at, points=at.points + 1)))]

    monkeypatch.setattr("bench.measure.peers_for", shifted)
    results = measure_case(Case(SMALL, training=False), ["shifted"], CPU)
    assert results["shifted"].problem.startswith("wrong: relative error")
    assert results["shifted"].samples.warm == []
    assert "median" not in results["shifted"].line


def test_a_wrong_plan_of_the_library_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(names: list[str], *args: object) -> list[Peer]:
        (right,) = peers_for(["auto"], SMALL, False, CPU)
        return [Peer("auto", lambda at: right.run(at) * 1.0001, library=True)]

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


@pytest.mark.parametrize("training", [False, True], ids=["forward", "training"])
def test_regret_is_measured_checked_and_written(
    training: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("PIXELNET_BENCH_RESULTS", str(tmp_path))
    monkeypatch.setattr("bench.timing.ROUNDS", 1)
    small = [w for w in small_workloads() if w.name in ("small-16", "small-ragged")]
    monkeypatch.setattr(planner_regret, "small_workloads", lambda: small)
    arguments = [] if training else ["--forward"]
    planner_regret.main(["--small", *arguments])
    first, second = results.read("planner_regret")
    assert (first["call"]["training"], second["call"]["ragged"]) == (training, True)
    for line in (first, second):
        assert set(line["measured"]) == set(line["predicted"])
        assert line["chosen"] in line["measured"]
        assert line["regret"] >= 0
        assert line["speedup"] == pytest.approx(line["peer"] / line["auto"])
        assert line["call"]["batch"] == (4 if line["call"]["ragged"] else 1)
    assert "within 15% of the best" in capsys.readouterr().out


def test_plans_that_are_tried() -> None:
    chosen = plan_of("auto", SMALL, True, CPU)
    tried = planner_regret.every_plan(SMALL, chosen)
    assert len(set(tried)) == 4
    assert chosen in tried
    near = planner_regret.neighbours(WORKLOADS[0], plan_of("auto", WORKLOADS[0], True, CPU))
    assert plan_of("gather", WORKLOADS[0], True, CPU) in near


def test_lines_of_older_results_are_read() -> None:
    old = {"median": 2.0, "p20": 1.0, "times_auto": 1.2}
    cold = {"cold_median": 3.0, "cold_p20": 2.5, "cold_times_auto": 1.4}
    first, second = results.shown([old, old | cold])
    assert first == old
    assert (second["median"], second["p20"], second["warm_median"]) == (3.0, 2.5, 2.0)
    assert (results.times_auto(first, {}), results.times_auto(second, {})) == (1.2, 1.4)
    assert results.times_auto({"median": 2.0}, {"median": 4.0}) == 0.5


def test_spread_of_table4_is_shown_where_it_was_kept() -> None:
    def row(name: str, speed: float, **more: object) -> results.Line:
        sizes = {"side": 224, "samples_per_image": 2000, "memory_bytes": 1.0}
        return {"row": name, "updates_per_second": speed, **sizes, **more}

    sparse, dense = (
        (
            "sparse fc-3",
            8,
        ),
        ("dense fc-3", 2),
    )
    plain = table4_claims([row(*dense), row(*sparse)])
    assert " 4.0 times the time" in plain
    rows = [row(*dense, spread=[1.0, 4.0]), row(*sparse, spread=[8.0, 8.0])]
    assert " 4.0 (2.0 to 8.0) times the time" in table4_claims(rows)


def test_random_layers_are_the_same_every_time_and_of_all_kinds() -> None:
    layers = random_workloads(60, seed=3)
    assert layers == random_workloads(60, seed=3)
    assert layers[:5] == random_workloads(5, seed=3)
    assert {w.ragged for w in layers} == {w.channels_last for w in layers} == {False, True}
    assert {len(w.layers) for w in layers} == {1, 2, 3, 4}
    for workload in (*layers[:20], *small_workloads()):
        inputs, shape = make_inputs(workload, CPU), call_shape(workload, True, CPU)
        assert inputs.points.numel() == 2 * shape.points
        assert (inputs.batch_index is not None) == workload.ragged
        x, y = inputs.points.double().unbind(-1)
        assert min(x.min(), y.min()) >= -0.5
        assert max(x.max() / workload.image_size[1], y.max() / workload.image_size[0]) <= 1
