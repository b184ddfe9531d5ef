"""The rows of the paper's Table 4 as benchmarks: one update, forward and backward.

On a GPU at the paper's sizes. Without one at a quarter of them; `python -m bench.table4` takes
the time for the paper's there too. There each row has a process of its own, which makes an update
whenever pytest-benchmark times one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
import torch

from bench.ledger import Ledger
from bench.machine import DEVICE
from bench.table4 import ROWS, measure_row, sizes_for


@pytest.mark.parametrize("row", ROWS)
def test_table4(benchmark: Any, ledger: Ledger, row: str) -> None:
    def repeat(update: Callable[[], object], count: int) -> None:
        benchmark.pedantic(update, rounds=count)

    sizes = sizes_for(DEVICE)
    benchmark.group = f"table 4: {asdict(sizes)}"
    try:
        line = measure_row(row, sizes, DEVICE, ledger.run, budget=2.0, repeat=repeat)
    except (MemoryError, torch.OutOfMemoryError) as error:
        pytest.skip(str(error))
    benchmark.extra_info.update(line)
