"""The rows of the paper's Table 4 as benchmarks: one update, forward and backward.

On a GPU at the paper's sizes. Without one at a quarter of them; `python -m bench.table4` takes
the time for the paper's there too.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
import torch

from bench.ledger import PLAYBACK, Ledger
from bench.machine import DEVICE
from bench.table4 import ROWS, measure_row, sizes_for


@pytest.mark.benchmark(timer=PLAYBACK)
@pytest.mark.parametrize("row", ROWS)
def test_table4(benchmark: Any, ledger: Ledger, row: str) -> None:
    sizes = sizes_for(DEVICE)
    try:
        line, seconds = measure_row(row, sizes, DEVICE, ledger.run, budget=2.0)
    except (MemoryError, torch.OutOfMemoryError) as error:
        pytest.skip(str(error))
    ledger.table4.append(line)
    benchmark.group = f"table 4: {asdict(sizes)}"
    benchmark.extra_info.update(line)
    PLAYBACK.load(seconds)
    benchmark.pedantic(lambda: None, rounds=len(seconds))
