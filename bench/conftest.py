"""One ledger for the session, and tables at its end."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from bench.ledger import Ledger
from bench.report import table
from bench.results import shown
from bench.table4_text import table4_claims, table4_table
from bench.workloads import SWEEPS, Case

LEDGER = pytest.StashKey[Ledger]()
Groups = list[tuple[str, list[dict[str, Any]]]]


#: What pytest-benchmark's tables show unless columns are asked for, and what has tables of its own.
COLUMNS = ["median", "iqr", "rounds"]
SHOWN_HERE = ("bench/test_first_layer.py", "bench/test_table4.py")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEDGER] = Ledger()
    if not _asked_for_tables(config):
        config.option.benchmark_columns = COLUMNS


def _asked_for_tables(config: pytest.Config) -> bool:
    names = ("columns", "verbose", "compare", "compare_fail", "histogram")
    given = [getattr(config.option, f"benchmark_{name}", None) for name in names]
    return any(value not in (None, False, [], COLUMNS) for value in given)


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_benchmark_group_stats(config: pytest.Config) -> Generator[None, Groups, Groups]:
    """Without what is shown by :func:`pytest_terminal_summary`, unless tables are asked for."""
    groups = yield
    if _asked_for_tables(config):
        return groups
    return [g for g in groups if not g[1][0]["fullname"].startswith(SHOWN_HERE)]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sweeps last: where time is limited, they are what may be missing."""
    items.sort(key=_of_a_sweep)


def _of_a_sweep(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    case = callspec.params.get("case") if callspec else None
    return isinstance(case, Case) and case.workload.family in SWEEPS


@pytest.fixture(scope="session")
def ledger(pytestconfig: pytest.Config) -> Ledger:
    return pytestconfig.stash[LEDGER]


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    ledger = config.stash[LEDGER]
    if ledger.lines:
        terminalreporter.section("first layer at sparse points")
        lines = shown(ledger.lines)
        for head, key in (("Time, cold", "median"), ("Peak memory beyond inputs", "peak_bytes")):
            terminalreporter.write_line(f"{head}:\n{table(lines, key)}")
    if ledger.table4:
        terminalreporter.section("Table 4 of the paper")
        terminalreporter.write_line(table4_table(ledger.table4))
        terminalreporter.write_line(table4_claims(ledger.table4))
