"""How the benchmarks time: samples, turns, cold calls, and a whole case with its checks."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
import torch

from bench.measure import measure_case
from bench.peers import Peer, names_for, peer_of
from bench.planning import plan_of
from bench.timing import Samples, Turns, interleaved, make_cold
from bench.workloads import Case, Workload

CPU = torch.device("cpu")
SMALL = Workload("small", ((3, 8, 8), (5, 4, 4)), (16, 16), images=2, points=7, out_features=11)


def test_summary_of_samples() -> None:
    summary = Samples(warm=[4.0, 1.0, 3.0, 2.0, 5.0], cold=[7.0]).summary()
    assert summary == pytest.approx(
        {"median": 3, "p20": 1.8, "p80": 4.2, "samples": 5}
        | {"cold_median": 7, "cold_p20": 7, "cold_p80": 7, "cold_samples": 1}
    )


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
    samples = interleaved(calls, CPU)
    assert len(samples["slow"].warm) == 3
    assert len(samples["fast"].warm) > 100
    assert (len(samples["slow"].cold), len(samples["fast"].cold)) == (3, 10)


def test_the_order_changes_and_the_first_of_a_peers_warm_calls_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("CALLS", {"cpu": 3}), ("SLOT", {"cpu": 1e9}), ("SLOW", 10.0)):
        monkeypatch.setattr(f"bench.timing.{name}", value)
    order: list[str] = []
    names = ("first", "second", "third")
    calls = {n: [lambda n=n: order.append(n)] for n in names}  # type: ignore[misc]
    turns = Turns(calls, CPU)
    firsts = set()
    for _ in range(5):
        order.clear()
        turns.round()
        firsts.add(order[0])
        assert [order.count(n) for n in names] == [5] * 3
    assert len(firsts) > 1
    assert {len(samples.warm) for samples in turns.samples.values()} == {5 * 3}


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


def test_library_keeps_its_output_alone_and_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole case, measured: checks, memory and samples of every peer."""
    monkeypatch.setattr("bench.timing.SLOW", 10.0)  # however busy the machine is
    case = Case(SMALL, training=True)
    names = [n for n in names_for(case, CPU) if n != "grid_sample_compiled"]
    results = measure_case(case, names, CPU)
    assert not any("problem" in line for line in results.values())
    assert results["auto"]["times_auto"] == results["auto"]["cold_times_auto"] == 1
    output = SMALL.all_points * SMALL.out_features * SMALL.itemsize
    columns = SMALL.all_points * SMALL.channels * SMALL.itemsize
    assert output <= results["auto"]["saved_bytes"] <= output + 2 * columns  # a small call
    assert results["grid_sample"]["saved_bytes"] >= output + columns
    for name, line in results.items():
        assert min(line["samples"], line["cold_samples"]) >= 5
        assert line["p20"] <= line["median"] <= line["p80"]
        assert line["cold_p20"] <= line["cold_median"] <= line["cold_p80"]
        assert line["peak_bytes"] >= output, name
        assert ("plan" in line) == (name in ("auto", "two_step", "project_gather"))
        json.dumps(line)
    assert results["auto"]["plan"] == plan_of("auto", case, CPU).encode()


def test_a_wrong_peer_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(name: str, *arguments: object) -> Peer:
        right = peer_of("grid_sample", Case(SMALL, False), CPU)
        return Peer(name, lambda at: right.run(replace(at, points=at.points + 1)))

    monkeypatch.setattr("bench.measure.peer_of", shifted)
    results = measure_case(Case(SMALL, training=False), ["shifted"], CPU)
    assert results["shifted"]["problem"].startswith("wrong: relative error")
    assert "median" not in results["shifted"]


def test_a_wrong_plan_of_the_library_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(name: str, *arguments: object) -> Peer:
        right = peer_of(name, Case(SMALL, False), CPU)
        return replace(right, run=lambda at: right.run(at) * 1.0001)

    monkeypatch.setattr("bench.measure.peer_of", wrong)
    with pytest.raises(AssertionError, match="auto: value"):
        measure_case(Case(SMALL, training=False), ["auto"], CPU)
