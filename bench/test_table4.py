"""The rows of the paper's Table 4 as benchmarks: one update, forward and backward.

    pytest bench/test_table4.py --benchmark-only                  # or -k fc-3
    pytest bench/test_table4.py --benchmark-only --paper-sizes    # make table4

Without a GPU the sizes are a quarter of the paper's, unless these are asked for, and each row has a
process of its own, which makes an update whenever pytest-benchmark times one.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest
import torch

from bench.machine import DEVICE
from bench.measure import Ledger, free
from bench.own_process import Ask, Ended, in_own_process
from bench.table4 import ROWS, SIZES, Sizes, Training, rows_on
from bench.timing import clock, make_cold, summary

UPDATES, LEAST = 10, 3  # the paper's figures are averages over ten


@contextlib.contextmanager
def training(row: str, sizes: Sizes) -> Iterator[Ask]:
    """Calls methods of the row's Training: of another process on a CPU, of this one on a GPU."""
    arguments = (ROWS[row], sizes, DEVICE)
    if DEVICE.type == "cpu":
        with in_own_process(row, Training, *arguments, preload="bench.table4") as ask:
            yield ask
    else:
        free(DEVICE)
        made = Training(*arguments)
        yield lambda method: getattr(made, method)()


@pytest.mark.benchmark(timer=clock(DEVICE))
@pytest.mark.parametrize("row", rows_on(DEVICE))
def test_table4(benchmark: Any, ledger: Ledger, pytestconfig: pytest.Config, row: str) -> None:
    whole = pytestconfig.getoption("paper_sizes", False)
    sizes, seconds = (Sizes(), 20.0) if whole else (SIZES[DEVICE.type], 2.0)
    benchmark.group = f"table 4: {asdict(sizes)}"

    def host_ahead() -> None:  # an update takes a GPU far longer than the host to issue it
        make_cold(DEVICE, 0.01)

    try:
        with training(row, sizes) as ask:
            start = time.perf_counter()
            ask("update")
            fitting = int(seconds / (time.perf_counter() - start))
            rounds = max(LEAST, min(UPDATES, fitting))
            benchmark.pedantic(ask, args=("update",), setup=host_ahead, rounds=rounds)
            figures = ask("figures")
    except (Ended, torch.OutOfMemoryError) as error:
        pytest.skip(str(error))
    if benchmark.enabled:
        took = benchmark.stats.stats.data
        figures |= summary(took) | {"updates_per_second": len(took) / math.fsum(took)}
        figures["spread"] = [1 / max(took), 1 / min(took)]
    identity = {"row": row, **asdict(ROWS[row]), **asdict(sizes), "scaled": sizes != Sizes()}
    ledger.write(benchmark, "table4", identity | figures)
