"""What becomes of each test, written down as it happens: what a stopped run leaves behind.

    python -m pytest -p tests.outcomes --outcomes FILE ...

One line of JSON each: ``{"planned": [names]}`` once they are known, then for every test
``{"test": name, "outcome": "passed" | "failed" | "skipped", "seconds": ..., "message": ...}``.
A failure is also printed at once. A worker whose device is out of order after a failure ends, and
pytest-xdist starts another one: in the same process every later test would fail, too.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import pytest

__all__: list[str] = []

LOST = ("CUDA error", "Triton Error [CUDA]", "CUBLAS_STATUS_EXECUTION_FAILED")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outcomes", metavar="FILE", type=Path, help="write a line for each test")


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(_Worker())
    elif path := config.getoption("--outcomes"):
        config.pluginmanager.register(_Log(path))
        if threading.current_thread() is threading.main_thread():
            # A shell starts what it puts into the background with interrupts ignored.
            signal.signal(signal.SIGINT, signal.default_int_handler)


class _Log:
    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", buffering=1)

    def _write(self, **line: object) -> None:
        self._file.write(json.dumps(line) + "\n")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._write(planned=[item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self._write(planned=list(ids))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._report(report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            self._report(report)

    def _report(self, report: pytest.CollectReport | pytest.TestReport) -> None:
        message = _message(report) if report.failed else ""
        seconds = round(getattr(report, "duration", 0.0), 3)
        self._write(test=report.nodeid, outcome=report.outcome, seconds=seconds, message=message)
        if report.failed:
            print(f"\nFAILED {report.nodeid}: {message}", flush=True)


class _Worker:
    lost = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.lost |= report.failed and any(word in report.longreprtext for word in LOST)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self) -> None:
        if self.lost:
            os._exit(1)  # the report was sent before


def _message(report: pytest.CollectReport | pytest.TestReport) -> str:
    """The first line of the error."""
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = (crash.message if crash else report.longreprtext).strip().splitlines()
    return (lines[0] if crash else lines[-1])[:300] if lines else ""
