"""Table 4 in words: measured rows next to the paper's, its ratios, and its claims of section 3."""

from __future__ import annotations

from collections.abc import Sequence

from .results import Line, markdown
from .table4 import PAPER, ROWS


def table4_table(rows: Sequence[Line]) -> str:
    """All rows in the paper's order: measured, and printed in the paper."""
    by_name = {row["row"]: row for row in rows}
    figures = ["memory, MB", "model, MB", "updates/s"]
    head = ["", "features", "fc layers", "samples", *figures, f"paper: {figures[0]}", *figures[1:]]
    cells = [head]
    for name in [n for n in ROWS if n in by_name]:
        row = by_name[name]
        samples = row["side"] ** 2 if row["mode"] == "dense" else row["samples_per_image"]
        what = [str(row["features"]), str(row["fc"]), f"{samples:,}"]
        spread = " ({:.3g} to {:.3g})".format(*row["spread"]) if "spread" in row else ""
        measured = [
            f"{row['memory_bytes'] / 1e6:,.0f}",
            f"{row['parameters'] * 4 / 1e6:,.0f}",
            f"{row['updates_per_second']:.3g}{spread}",
        ]
        printed = [f"{figure:,}" for figure in PAPER[name]] if name in PAPER else [""] * 3
        cells.append([name, *(what if name in PAPER else [""] * 3), *measured, *printed])
    row = rows[-1]
    scaled = "sizes scaled down for a CPU; " if row["scaled"] else ""
    dates = sorted({r["date"][:10] for r in rows})
    counts = [r["samples"] for r in rows]
    updates = " to ".join(str(count) for count in sorted({min(counts), max(counts)}))
    return (
        f"{markdown(cells)}\n\n"
        f"{row['side']} x {row['side']} pixels, hidden layers of {row['hidden']}, {row['classes']} "
        f"classes; {scaled}mean of {updates} updates; {row['device']}; {', '.join(dates)}. "
        "The paper: Caffe on a Titan X."
    )


def _times(sparse: Line, row: Line) -> str:
    """How many times as long an update takes, and from what to what where both were kept."""
    text = f"{sparse['updates_per_second'] / row['updates_per_second']:.1f}"
    if "spread" in sparse and "spread" in row:
        least, most = sparse["spread"][0] / row["spread"][1], sparse["spread"][1] / row["spread"][0]
        text += f" ({least:.1f} to {most:.1f})"
    return text


def table4_claims(rows: Sequence[Line]) -> str:
    """Ratios of fc-3 here and in the paper, and section 3's factors of memory recomputed."""
    by_name, ours = {row["row"]: row for row in rows}, PAPER["sparse fc-3"]
    sparse, backbone = by_name.get("sparse fc-3"), by_name.get("backbone")
    parts = []
    for mode, claim in (("dense", "more than 20"), ("masked", "16")):
        row, paper = by_name.get(f"{mode} fc-3"), PAPER[f"{mode} fc-3"]
        if row is None or sparse is None:
            continue
        memory, least = row["memory_bytes"], sparse["memory_bytes"]
        text = (
            f"{mode.capitalize()} fc-3 against sparse: {memory / least:.1f} times the memory and "
            f"{_times(sparse, row)} times the time of an update (in the paper's table "
            f"{paper.memory_mb / ours.memory_mb:.1f} and "
            f"{ours.updates_per_second / paper.updates_per_second:.1f})"
        )
        if backbone:
            common = backbone["memory_bytes"]
            text += (
                f"; beyond what the backbone alone needs, "
                f"{(memory - common) / (least - common):.1f} times the memory (section 3 "
                f"of the paper claims {claim})"
            )
        parts.append(f"{text}.")
    row = rows[-1]
    where = f"VGG-16, {row['side']} x {row['side']}, {row['samples_per_image']:,} samples"
    return " ".join([f"Table 4 of the paper ({where}).", *parts]) if parts else ""
