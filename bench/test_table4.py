"""The rows of the paper's Table 4 as benchmarks: one update, forward and backward.

    pytest bench/test_table4.py --benchmark-only                  # or -k fc-3
    pytest bench/test_table4.py --benchmark-only --paper-sizes    # make table4

Without a GPU the sizes are a quarter of the paper's, unless these are asked for, and each row has a
process of its own, which makes an update whenever pytest-benchmark times one.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
import torch

from bench.ledger import Ledger
from bench.machine import DEVICE
from bench.networks import Sizes
from bench.table4 import ROWS, SIZES, measure_row


@pytest.mark.parametrize("row", ROWS)
def test_table4(benchmark: Any, ledger: Ledger, pytestconfig: pytest.Config, row: str) -> None:
    whole = pytestconfig.getoption("paper_sizes", False)
    sizes = Sizes() if whole else SIZES[DEVICE.type]
    benchmark.group = f"table 4: {asdict(sizes)}"
    try:
        line = measure_row(
            row,
            sizes,
            DEVICE,
            ledger.run,
            20.0 if whole else 2.0,
            lambda update, count: benchmark.pedantic(update, rounds=count),
        )
    except (MemoryError, torch.OutOfMemoryError) as error:
        pytest.skip(str(error))
    benchmark.extra_info.update(line)
