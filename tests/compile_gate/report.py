"""The table that the gate prints: one line for each kernel, configuration and target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from .machine_code import instructions, resources
from .targets import Launch

__all__ = ["format_table", "row"]

_HEADINGS = (
    "kernel",
    "tile",
    "case",
    "target",
    "registers",
    "spilled",
    "shared",
    "products",
    "16-byte loads",
    "narrower",
    "reductions",
)


def row(launch: Launch, case: str) -> list[Any]:
    """A line of the table, of values that survive the way between test processes."""
    used, counts = resources(launch.compiled), instructions(launch.compiled)
    narrower = Counter({width: n for width, n in counts.loads.items() if width < 16})
    return [
        launch.kernel.strip("_"),
        launch.config,
        case,
        launch.target,
        used.registers,
        used.spills,
        used.shared,
        " ".join(f"{n} {name}" for name, n in counts.products.items()),
        counts.loads[16],
        _widths(narrower),
        _widths(counts.reductions),
    ]


def format_table(rows: Iterable[Sequence[Any]]) -> list[str]:
    """The rows, sorted and aligned, under their headings. Equal rows stand once."""
    lines = sorted({tuple(str(value) for value in values) for values in rows})
    table = [_HEADINGS, *lines]
    widths = [max(len(line[i]) for line in table) for i in range(len(_HEADINGS))]
    return [
        "  ".join(value.ljust(width) for value, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]


def _widths(counts: Counter[int]) -> str:
    return " ".join(f"{n}x{width}B" for width, n in sorted(counts.items(), reverse=True))
