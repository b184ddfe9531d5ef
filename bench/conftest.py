"""One ledger for the session, and the table of ratios at its end."""

from __future__ import annotations

import pytest

from bench.ledger import Ledger
from bench.summary import ratio_tables

LEDGER = pytest.StashKey[Ledger]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEDGER] = Ledger()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Peers that are selected are measured together, whichever test comes first."""
    for item in session.items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if {"case", "peer"} <= parameters.keys():
            session.config.stash[LEDGER].select(parameters["case"], parameters["peer"])


@pytest.fixture(scope="session")
def ledger(pytestconfig: pytest.Config) -> Ledger:
    return pytestconfig.stash[LEDGER]


# After pytest-benchmark's own tables, which list every peer by itself.
@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    lines = config.stash[LEDGER].lines
    if lines:
        terminalreporter.section("first layer at sparse points")
        terminalreporter.write_line(ratio_tables(lines))
