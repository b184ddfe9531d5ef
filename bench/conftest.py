"""One ledger for the session, and tables at its end."""

from __future__ import annotations

import pytest

from bench.ledger import Ledger
from bench.measure import Case
from bench.report import table
from bench.results import shown
from bench.table4_text import table4_claims, table4_table
from bench.workloads import SWEEPS

LEDGER = pytest.StashKey[Ledger]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEDGER] = Ledger()


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
