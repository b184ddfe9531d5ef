"""One ledger for the session, and the table of ratios at its end."""

from __future__ import annotations

from typing import Any

import pytest

from bench.ledger import Ledger
from bench.measure import Case
from bench.summary import ratio_tables
from bench.table4_text import table4_claims, table4_table
from bench.workloads import SWEEPS

LEDGER = pytest.StashKey[Ledger]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEDGER] = Ledger()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sweeps last: where time is limited, they are what may be missing."""
    items.sort(key=lambda item: any(c.workload.family in SWEEPS for c, _ in _asked(item)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Peers that are selected are measured together, whichever test comes first."""
    for item in session.items:
        for case, peer in _asked(item):
            session.config.stash[LEDGER].select(case, peer)


def _asked(item: pytest.Item) -> list[tuple[Case, str]]:
    """The case and peer that a benchmark is of; none for those that time themselves."""
    parameters: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    case = parameters.get("case")
    return [(case, parameters["peer"])] if isinstance(case, Case) else []


@pytest.fixture(scope="session")
def ledger(pytestconfig: pytest.Config) -> Ledger:
    return pytestconfig.stash[LEDGER]


# After pytest-benchmark's own tables, which list every peer by itself.
@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    ledger = config.stash[LEDGER]
    if ledger.lines:
        terminalreporter.section("first layer at sparse points")
        terminalreporter.write_line(ratio_tables(ledger.lines))
    if ledger.table4:
        terminalreporter.section("Table 4 of the paper")
        terminalreporter.write_line(table4_table(ledger.table4))
        terminalreporter.write_line(table4_claims(ledger.table4))
