"""One ledger for the session; sweeps last; narrow tables."""

from __future__ import annotations

import pytest

from bench.ledger import Ledger
from bench.workloads import SWEEPS, Case


def pytest_addoption(parser: pytest.Parser) -> None:
    """Of test_table4.py."""
    parser.addoption("--paper-sizes", action="store_true", help="Table 4 at the paper's own sizes")


def pytest_configure(config: pytest.Config) -> None:
    """What pytest-benchmark's tables show unless columns are asked for."""
    config.option.benchmark_columns = config.option.benchmark_columns or ["median", "iqr", "rounds"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sweeps last: where time is limited, they are what may be missing."""
    items.sort(key=_of_a_sweep)


def _of_a_sweep(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    case = callspec.params.get("case") if callspec else None
    return isinstance(case, Case) and case.workload.family in SWEEPS


@pytest.fixture(scope="session")
def ledger() -> Ledger:
    """What this session measures."""
    return Ledger()
