"""How the benchmarks measure memory, in this process and in one of its own."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bench.memory import high_water_mark, in_own_process, peak_bytes, saved_storages

CPU = torch.device("cpu")


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


def _oom_score() -> Iterator[str]:
    yield Path("/proc/self/oom_score_adj").read_text().strip()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has such a score")
def test_another_process_is_the_first_to_end_where_memory_runs_out() -> None:
    assert list(in_own_process(_oom_score)) == ["1000"]


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
        z = (y[:10] * y[10:20]).sum() + x.square().sum()  # keeps two views of it, and the input
    assert list(kept.values()) == [y.untyped_storage().nbytes()]
    assert z.requires_grad
