"""How the benchmarks measure memory, in this process and in one of its own."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from pathlib import Path

import pytest
import torch

from bench.memory import high_water_mark, peak_bytes, saved_storages
from bench.own_process import Ended, Failed, in_own_process

CPU = torch.device("cpu")


def test_peak_counts_blocks_that_lived_together() -> None:
    def call() -> torch.Tensor:
        first = torch.empty(1 << 20)  # 4 MiB
        second = first + 1
        del first
        return second[:1] + torch.empty(1 << 18).sum()

    peak = peak_bytes(call, CPU)
    assert 8 << 20 <= peak < (8 << 20) + (64 << 10)


class Object:
    """Of another process."""

    def __init__(self) -> None:
        torch.ones(1 << 18).sum()  # starts threads
        self.before = high_water_mark()

    def touch(self, megabytes: int) -> int:
        torch.ones(megabytes << 18).sum()
        return high_water_mark() - self.before

    def fail(self) -> None:
        raise ValueError("as it should")

    def die(self) -> None:
        os._exit(9)

    def sleep(self, seconds: float) -> str:
        time.sleep(seconds)
        return "slept"

    def oom_score(self) -> str:
        return Path("/proc/self/oom_score_adj").read_text().strip()


def test_high_water_mark_agrees_with_the_allocator_where_both_must() -> None:
    expected = 64 << 20
    counted = peak_bytes(lambda: torch.ones(64 << 18).sum(), CPU)
    assert counted == pytest.approx(expected, abs=4096)
    with in_own_process("it", Object, preload="bench.table4") as ask:
        marks = [ask("touch", 64) for _ in range(2)]
    assert marks == [pytest.approx(expected, rel=0.1)] * 2


def test_errors_of_another_process_come_back() -> None:
    with in_own_process("it", Object) as ask:
        with pytest.raises(Failed, match="it: ValueError: as it should"):
            ask("fail")
        with pytest.raises(Ended, match="it: the process ended"):
            ask("die")
        with pytest.raises(Ended, match="it: the process ended"):
            ask("touch", 1)


def test_another_process_ends_itself_when_it_takes_too_long() -> None:
    with in_own_process("it", Object, limit=0.5) as ask:
        assert [ask("sleep", 0.3) for _ in range(3)] == 3 * ["slept"], "each request counts anew"
        with pytest.raises(Ended, match="it: the process ended"):
            ask("sleep", 60)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has such a score")
def test_another_process_is_the_first_to_end_where_memory_runs_out() -> None:
    with in_own_process("it", Object) as ask:
        assert ask("oom_score") == "1000"


def test_another_process_ends_with_its_block() -> None:
    with in_own_process("it", Object):
        (process,) = multiprocessing.active_children()
    assert not process.is_alive()


def test_saved_storages_are_counted_once_and_without_inputs() -> None:
    x = torch.randn(1000, requires_grad=True)
    with saved_storages([x]) as kept:
        y = x.exp()  # keeps its result
        z = (y[:10] * y[10:20]).sum() + x.square().sum()  # keeps two views of it, and the input
    assert list(kept.values()) == [y.untyped_storage().nbytes()]
    assert z.requires_grad
