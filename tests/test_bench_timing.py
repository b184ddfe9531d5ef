"""How the benchmarks time: samples, turns, cold calls, and a whole case with its checks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.measure import Preparation
from bench.peers import Peer, names_for, peer_of
from bench.planning import plan_of
from bench.timing import in_turns, make_cold, summary
from bench.workloads import Case, Workload

CPU = torch.device("cpu")
SMALL = Workload("small", ((3, 8, 8), (5, 4, 4)), (16, 16), images=2, points=7, out_features=11)


def test_summary_of_samples() -> None:
    five = summary([4.0, 1.0, 3.0, 2.0, 5.0])
    assert five == pytest.approx({"median": 3, "p20": 1.8, "p80": 4.2, "samples": 5})
    one = {"cold_median": 7, "cold_p20": 7, "cold_p80": 7, "cold_samples": 1}
    assert summary([7.0], "cold_") == one
    assert summary([]) == {}


def test_every_peer_is_timed_and_told_apart() -> None:
    calls = {"short": [lambda: time.sleep(0.001)], "long": [lambda: time.sleep(0.01)]}
    figures = in_turns(calls, CPU)
    short, long = figures["short"], figures["long"]
    assert short["samples"] >= long["samples"] >= 5
    assert short["cold_samples"] == long["cold_samples"] >= 5
    assert short["p20"] >= 0.001
    assert min(long["median"], long["cold_median"]) >= 0.01


def test_slow_peers_have_three_turns_and_fast_ones_all() -> None:
    calls = {"slow": [lambda: time.sleep(0.2)], "fast": [lambda: None]}
    figures = in_turns(calls, CPU)
    assert figures["slow"]["samples"] == 3
    assert figures["fast"]["samples"] > 100
    assert [figures[name]["cold_samples"] for name in calls] == [3, 10]


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Who was called: four warm calls a turn, the first of which does not count, "cold" and its
    cold call."""
    called: list[str] = []
    for name, value in (("CALLS", {"cpu": 3}), ("SLOT", {"cpu": 1e9}), ("SLOW", 10.0)):
        monkeypatch.setattr(f"bench.timing.{name}", value)
    monkeypatch.setattr("bench.timing.make_cold", lambda *args: called.append("cold"))
    return called


NAMES = ("first", "second", "third")


def calls_noted(order: list[str]) -> dict[str, list[Callable[[], None]]]:
    return {n: [lambda n=n: order.append(n)] for n in NAMES}  # type: ignore[misc]


def test_the_order_changes_and_the_first_of_a_peers_warm_calls_does_not_count(
    order: list[str],
) -> None:
    figures = in_turns(calls_noted(order), CPU)
    assert order[:3] == list(NAMES)  # how long a call takes
    turns = [order[at : at + 6] for at in range(3, len(order), 6)]
    assert len(turns) == 10 * 3
    assert all(turn == [turn[0]] * 4 + ["cold", turn[0]] for turn in turns)
    assert all(sorted(turn[0] for turn in turns[at : at + 3]) == list(NAMES) for at in (0, 3, 27))
    assert len({turns[at][0] for at in range(0, len(turns), 3)}) > 1
    assert {line["samples"] for line in figures.values()} == {10 * 3}


class Clock:
    """pytest-benchmark's fixture, so far as it is used."""

    enabled = True

    def __init__(self, order: list[str]) -> None:
        self.order = order
        self.stats = SimpleNamespace(stats=SimpleNamespace(data=[]))

    def pedantic(self, call: Any, setup: Any, rounds: int) -> None:
        for _ in range(rounds):
            arguments, _options = setup()
            self.order.append("clock")
            call(*arguments)
            self.stats.stats.data.append(7.0)


def test_the_last_peers_cold_calls_are_timed_by_pytest_benchmark(order: list[str]) -> None:
    figures = in_turns(calls_noted(order), CPU, Clock(order))
    rounds = [order[at : at + 19] for at in range(3, len(order), 19)]
    assert len(rounds) == 10
    assert all(turns[12:] == ["third"] * 4 + ["cold", "clock", "third"] for turns in rounds)
    assert figures["third"]["cold_p20"] == figures["third"]["cold_p80"] == 7
    assert figures["third"]["samples"] == 30
    assert figures["first"]["cold_samples"] == 10


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
    results = Preparation(case, CPU).measure(names)
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
        assert ("plan" in line) == (name in ("auto", "two_step", "project"))
        json.dumps(line)
    assert results["auto"]["plan"] == plan_of("auto", case, CPU).encode()


def test_a_wrong_peer_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(name: str, *arguments: object) -> Peer:
        right = peer_of("grid_sample", Case(SMALL, False), CPU)
        if name == "auto":
            return replace(right, name=name)
        return Peer(name, lambda at: right.run(replace(at, points=at.points + 1)))

    monkeypatch.setattr("bench.measure.peer_of", shifted)
    preparation = Preparation(Case(SMALL, training=False), CPU)
    for benchmark in (None, object()):
        results = preparation.measure(["auto", "shifted"], benchmark)
        assert results["shifted"]["problem"].startswith("wrong: relative error")
        assert "median" not in results["shifted"]
        assert ("median" in results["auto"]) == (benchmark is None), "nothing to be beside"


def test_a_wrong_plan_of_the_library_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(name: str, *arguments: object) -> Peer:
        right = peer_of(name, Case(SMALL, False), CPU)
        return replace(right, run=lambda at: right.run(at) * 1.0001)

    monkeypatch.setattr("bench.measure.peer_of", wrong)
    with pytest.raises(AssertionError, match="auto: value"):
        Preparation(Case(SMALL, training=False), CPU).measure(["auto"])
