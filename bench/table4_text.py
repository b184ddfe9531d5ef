"""Table 4 in words: measured rows next to the paper's, its ratios, and its claims of section 3."""

from __future__ import annotations

from collections.abc import Sequence

from .results import Line
from .table4 import PAPER, ROWS


def table4_table(rows: Sequence[Line]) -> str:
    """All rows in the paper's order: measured, and printed in the paper."""
    by_name = {row["row"]: row for row in rows}
    head = "| | features | fc layers | samples | memory, MB | model, MB | updates/s |"
    lines = [
        f"{head} paper: memory, MB | model, MB | updates/s |",
        "|---|" + "---|" * 9,
    ]
    for name in [n for n in ROWS if n in by_name]:
        row, paper = by_name[name], PAPER.get(name)
        samples = row["side"] ** 2 if row["mode"] == "dense" else row["samples_per_image"]
        what = (row["features"], row["fc"], f"{samples:,}")
        if row["mode"] == "backbone":
            what = ("", "", "")
        cells = [
            name,
            *map(str, what),
            f"{row['memory_bytes'] / 1e6:,.0f}",
            f"{row['parameters'] * 4 / 1e6:,.0f}",
            f"{row['updates_per_second']:.3g}{_spread(row)}",
        ]
        cells += (
            [f"{paper.memory_mb:,}", f"{paper.size_mb:,}", f"{paper.updates_per_second}"]
            if paper
            else ["", "", ""]
        )
        lines.append(f"| {' | '.join(cells)} |")
    row = rows[-1]
    scaled = "sizes scaled down for a CPU; " if row["scaled"] else ""
    dates = sorted({r["date"][:10] for r in rows})
    counts = sorted({r["samples"] for r in rows})
    updates = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    lines += [
        "",
        f"{row['side']} x {row['side']} pixels, hidden layers of {row['hidden']}, {row['classes']} "
        f"classes; {scaled}mean of {updates} updates; {row['device']}; "
        f"{', '.join(dates)}. The paper: Caffe on a Titan X.",
    ]
    return "\n".join(lines)


def _spread(row: Line) -> str:
    """The slowest and the fastest update, where they were kept."""
    return " ({:.3g} to {:.3g})".format(*row["spread"]) if "spread" in row else ""


def _times(sparse: Line, row: Line) -> str:
    """How many times as long an update takes, and from what to what."""
    text = f"{sparse['updates_per_second'] / row['updates_per_second']:.1f}"
    if "spread" in sparse and "spread" in row:
        least, most = sparse["spread"][0] / row["spread"][1], sparse["spread"][1] / row["spread"][0]
        text += f" ({least:.1f} to {most:.1f})"
    return text


def table4_claims(rows: Sequence[Line]) -> str:
    """Ratios of fc-3 here and in the paper, and section 3's factors of memory recomputed."""
    by_name = {row["row"]: row for row in rows}
    sparse, backbone = by_name.get("sparse fc-3"), by_name.get("backbone")
    if sparse is None:
        return ""
    parts = []
    ours = PAPER["sparse fc-3"]
    for mode, claim in (("dense", "more than 20"), ("masked", "16")):
        row, paper = by_name.get(f"{mode} fc-3"), PAPER[f"{mode} fc-3"]
        if row is None:
            continue
        memory = row["memory_bytes"] / sparse["memory_bytes"]
        text = (
            f"{mode.capitalize()} fc-3 against sparse: {memory:.1f} times the memory and "
            f"{_times(sparse, row)} times the time of an update (in the paper's table "
            f"{paper.memory_mb / ours.memory_mb:.1f} and "
            f"{ours.updates_per_second / paper.updates_per_second:.1f})"
        )
        if backbone:
            beyond = _beyond(row, backbone) / _beyond(sparse, backbone)
            text += (
                f"; beyond what the backbone alone needs, {beyond:.1f} times the memory (section 3 "
                f"of the paper claims {claim})"
            )
        parts.append(f"{text}.")
    if not parts:
        return ""
    row = rows[-1]
    where = f"VGG-16, {row['side']} x {row['side']}, {row['samples_per_image']:,} samples"
    return f"Table 4 of the paper ({where}). " + " ".join(parts)


def _beyond(row: Line, backbone: Line) -> float:
    return row["memory_bytes"] - backbone["memory_bytes"]
