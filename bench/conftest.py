"""One ledger for the session; narrow tables."""

from __future__ import annotations

import pytest

from bench.measure import Ledger


def pytest_addoption(parser: pytest.Parser) -> None:
    """Of test_table4.py."""
    parser.addoption("--paper-sizes", action="store_true", help="Table 4 at the paper's own sizes")


def pytest_configure(config: pytest.Config) -> None:
    """What pytest-benchmark's tables show unless columns are asked for."""
    config.option.benchmark_columns = config.option.benchmark_columns or ["median", "iqr", "rounds"]


@pytest.fixture(scope="session")
def ledger() -> Ledger:
    """What this session measures."""
    return Ledger()
