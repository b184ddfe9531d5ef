"""Run the gate with the real compiler, and print what it found as a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pixelnet_triton.tools.settings import triton_interprets

_PROPERTY = "compile_gate"
_HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--compile-gate-table",
        metavar="FILE",
        help="also write the table of registers, spills and instructions to FILE",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Triton chooses between interpreter and compiler when a kernel is decorated, once a process.
    if triton_interprets():
        skip = pytest.mark.skip(reason="TRITON_INTERPRET is set: there is no compiler to test")
        for item in items:
            if _HERE in item.path.parents:
                item.add_marker(skip)


@pytest.fixture
def record_launch(record_property: Callable[[str, object], None]) -> Callable[[Any, str], None]:
    """Put a compiled launch of the named case into the table."""

    def record(launch: Any, case: str) -> None:
        from .report import row

        record_property(_PROPERTY, row(launch, case))

    return record


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A GPU that is not there; kernels are not compiled, and nothing is known of any launch."""
    import triton
    from triton.runtime.driver import driver

    from pixelnet_triton.kernels import direct

    from .stand_in import Compiled, Driver
    from .targets import TARGETS

    monkeypatch.setattr(triton.compiler, "compile", Compiled)
    monkeypatch.setattr(direct, "_FORMS", {})
    active = Driver(TARGETS["sm_90"])
    driver.set_active(active)
    return active


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    # A test's properties travel with its report, also from the workers of pytest-xdist.
    rows = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == _PROPERTY
    ]
    if not rows:
        return
    from .report import format_table

    lines = format_table(rows)
    terminalreporter.section("compile gate")
    for line in lines:
        terminalreporter.write_line(line)
    if path := config.getoption("--compile-gate-table"):
        Path(path).write_text("\n".join(lines) + "\n")
