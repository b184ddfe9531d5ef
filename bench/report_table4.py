"""Table 4: measured rows beside the paper's, and how many times as much as sparse others take."""

from __future__ import annotations

import pandas as pd

from .table4 import PAPER, ROWS, Paper
from .tables import markdown

PRINTED = pd.DataFrame.from_dict(PAPER, orient="index", columns=Paper._fields)
COUNT, SPEED, TIMES = "{:,.0f}".format, "{:.3g}".format, "{:.1f}x".format
#: What section 3 of the paper says of the memory beyond the backbone's.
CLAIMED = pd.Series({"dense fc-3": "more than 20x", "masked fc-3": "16x"})
#: What rows are compared with.
SPARSE = dict.fromkeys(CLAIMED.index, "sparse fc-3") | {"dense fc-3 TF32": "sparse fc-3 TF32"}


def latest_rows(lines: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """By device the latest of each row, at the paper's sizes if there are any such, in its order.

    Rows may be measured one at a time, so they may be of several runs.
    """
    if lines.empty:
        return {}
    largest = lines[lines.scaled == lines.groupby("device").scaled.transform("min")]
    latest = largest.drop_duplicates(["device", "row"], keep="last").set_index("row")
    return {
        device: rows.loc[[name for name in ROWS if name in rows.index]]
        for device, rows in latest.groupby("device")
    }


def table4_table(rows: pd.DataFrame) -> str:
    """All rows: measured, and printed in the paper."""
    trained, head, updates = rows["mode"] != "backbone", rows.iloc[0], rows.samples
    samples = rows.samples_per_image.mask(rows["mode"] == "dense", rows.side**2)
    cells = {
        "features": rows.features.where(trained),
        "fc layers": rows.fc.where(trained),
        "samples": samples.where(trained),
        "memory, MB": rows.memory_bytes / 1e6,
        "model, MB": rows.parameters * 4 / 1e6,
        "updates/s": rows.updates_per_second,
        "slowest": rows.spread.str[0],
        "fastest": rows.spread.str[1],
        "paper: memory, MB": PRINTED.memory_mb,
        "paper: model, MB": PRINTED.size_mb,
        "paper: updates/s": PRINTED.updates_per_second,
    }
    speeds = ("updates/s", "slowest", "fastest", "paper: updates/s")
    formats = {name: SPEED if name in speeds else COUNT for name in cells}
    return (
        f"{markdown(pd.DataFrame(cells).loc[rows.index], formats)}\n\n{head.side} x {head.side} "
        f"pixels, hidden layers of {head.hidden}, {head.classes} classes; means of "
        f"{updates.min()} to {updates.max()} updates. The paper: Caffe on a Titan X."
    )


def table4_claims(rows: pd.DataFrame) -> str:
    """How many times as much as sparse fc-3 the others take, here and in the paper."""
    head, rows = rows.iloc[0], rows.reindex(ROWS).join(PRINTED.add_prefix("paper_"))
    rows["beyond"] = rows.memory_bytes - rows.memory_bytes["backbone"]
    rows["slowest"], rows["fastest"] = rows.spread.str[0], rows.spread.str[1]
    others, sparse = rows.loc[[*SPARSE]], rows.loc[[*SPARSE.values()]].set_axis([*SPARSE])
    cells = {
        "memory": others.memory_bytes / sparse.memory_bytes,
        "the paper's memory": others.paper_memory_mb / sparse.paper_memory_mb,
        "memory beyond the backbone's": others.beyond / sparse.beyond,
        "section 3 of the paper": CLAIMED,
        "time of an update": sparse.updates_per_second / others.updates_per_second,
        "at least": sparse.slowest / others.fastest,
        "at most": sparse.fastest / others.slowest,
        "the paper's time": sparse.paper_updates_per_second / others.paper_updates_per_second,
    }
    ratios = pd.DataFrame(cells).loc[[*SPARSE]].dropna(subset="time of an update")
    if ratios.empty:
        return ""
    dates = ", ".join(sorted(set(rows.date.dropna().str[:10])))
    formats = dict.fromkeys(ratios.select_dtypes("number"), TIMES)
    return (
        f"Table 4 of the paper (VGG-16, {head.side} x {head.side}, {head.samples_per_image:,} "
        "samples): memory of training and time of an update, in multiples of sparse fc-3's. "
        f"{head.device}, {dates}.{_arithmetic(rows)}{_bounded(rows)}\n\n{markdown(ratios, formats)}"
    )


def _bounded(rows: pd.DataFrame) -> str:
    """What is to be known of lines whose memory has an upper bound alone, on a GPU."""
    bounds = rows.get("memory_bytes_at_most", pd.Series(dtype=float)).dropna()
    if bounds.empty:
        return ""
    sparse, dense = bounds["sparse fc-3"], rows.memory_bytes["dense fc-3"]
    return (
        f" The memory of {', '.join(bounds.index)} was not measured: a buffer of the timing lay "
        f"beside their gradients. That of sparse fc-3 is at most {sparse / 1e6:,.0f} MB, so that "
        f"dense fc-3 takes at least {TIMES(dense / sparse)} as much."
    )


def _arithmetic(rows: pd.DataFrame) -> str:
    """What is to be known of lines that were measured with PyTorch's defaults, on a GPU."""
    measured = rows.dropna(subset="memory_bytes")
    old = measured[measured.get("tf32", pd.Series(index=measured.index)).isna()]
    if not old.kind.eq("cuda").any():
        return ""
    return (
        f" Rows of {', '.join(sorted(set(old.date.str[:10])))} were measured with PyTorch's "
        "defaults: convolutions in TF32, which the dense rows' fully connected layers are, and "
        "products in float32, which the others' are. The benchmark has since treated all alike."
    )
