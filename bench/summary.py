"""The tables of ratios, as text: how many times the time, and the memory, of this library."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .results import Line, shown, times_auto

__all__ = ["by_case", "duration", "markdown", "ratio_tables", "size"]

SHORT = {
    "grid_sample": "grid_s.",
    "grid_sample_compiled": "compiled",
    "grid_sample_half": "g_s.half",
    "point_sample": "point_s.",
    "product_fused": "p.fused",
    "project_gather": "project",
    "project_product": "proj.prod",
}


def by_case(lines: Sequence[Line]) -> dict[tuple[str, str], dict[str, Line]]:
    """Lines by case and direction, and therein by peer."""
    cases: dict[tuple[str, str], dict[str, Line]] = {}
    for line in lines:
        cases.setdefault((line["case"], line["direction"]), {})[line["peer"]] = line
    return cases


def ratio_tables(lines: Sequence[Line]) -> str:
    """Time and peak memory of each peer over those of the library's own choice, by case."""
    head, lines = lines[0], shown(lines)
    scaled = " Sizes are scaled down for a machine without a GPU." if head["scaled"] else ""
    run = f"{head['device']}, torch {head['torch']}, {head['date']}, commit {head['commit']}"
    parts = [
        f"{run}.{scaled}",
        "\nTime of a cold call: median of auto, and how many times as long the others take "
        "(wrong: failed the numerical check and was not timed)",
        _table(lines, "median", duration),
        "\nPeak memory beyond the inputs: that of auto, and how many times as much the others take",
        _table(lines, "peak_bytes", size),
    ]
    return "\n".join(parts)


def duration(seconds: float) -> str:
    """Three digits, in seconds, milliseconds or microseconds."""
    for factor, unit in ((1.0, "s"), (1e3, "ms")):
        if seconds * factor >= 0.9995:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def size(number: float) -> str:
    """Three digits, in megabytes (10^6)."""
    return f"{number / 1e6:.3g} MB" if number < 1e9 else f"{number / 1e9:.3g} GB"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table, its head first."""
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def _table(lines: Sequence[Line], key: str, text: Callable[[float], str]) -> str:
    peers = list(dict.fromkeys(line["peer"] for line in lines if line["peer"] != "auto"))
    rows = [["case", "direction", "auto", *(SHORT.get(peer, peer) for peer in peers)]]
    for (case, direction), by_peer in by_case(lines).items():
        auto = by_peer.get("auto", {})
        cells = [_cell(by_peer.get(peer), key, auto) for peer in peers]
        rows.append([case, direction, text(auto[key]) if key in auto else "-", *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _cell(line: Line | None, key: str, auto: Line) -> str:
    if line is None or key not in auto:
        return ""
    if line.get("problem"):
        return "memory" if "memory" in line["problem"] else "wrong"
    return f"{times_auto(line, auto) if key == 'median' else line[key] / auto[key]:.2f}x"
