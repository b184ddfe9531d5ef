"""Runs out of the results, and tables out of runs.

A table or plot is of one run alone: of each device the run that has most of what is wanted, the
latest of such. A partial run, of a few selected benchmarks, is kept but never mixed in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from .results import Line, duration, read, size
from .workloads import WORKLOADS

Formats = Mapping[str, Callable[[Any], str]]
WANTED = {workload.name for workload in WORKLOADS}


class Peer(NamedTuple):
    """How a peer is shown: in Markdown, and in plots."""

    label: str
    colour: str
    marker: str


# Okabe and Ito's colours, told apart by colour-blind readers too; the library is the red one.
PEERS = {
    "auto": Peer("this library", "#d55e00", "o"),
    "two_step": Peer("every layer gathered", "#e69f00", "v"),
    "one_pass": Peer("gathered in one pass", "#e69f00", "<"),
    "project": Peer("every layer projected", "#cc79a7", "^"),
    "product": Peer("matrix product alone", "#000000", "d"),
    "product_fused": Peer("the same, fused epilogue", "#000000", "1"),
    "grid_sample": Peer("`grid_sample` + `cat` + `linear`", "#0072b2", "s"),
    "grid_sample_compiled": Peer("the same, `torch.compile`", "#56b4e9", "D"),
    "grid_sample_half": Peer("`grid_sample`, half-precision coordinates", "#0072b2", "x"),
    "point_sample": Peer("`point_sample` (PointRend)", "#56b4e9", "p"),
    "masked": Peer("dense, masked", "#009e73", "P"),
    "dense": Peer("dense", "#555555", "X"),
}
LABELS = {name: peer.label for name, peer in PEERS.items()}
# What lines call a peer of today. On a GPU the same word meant kernels that are gone.
RENAMED = {("cpu", "project_gather"): "project"}


def measured(kind: str) -> pd.DataFrame:
    """All lines, oldest first, with the times of cold calls, as in a network, if there are any.

    The median of warm calls is then beside them, `warm_median`.
    """
    lines = pd.DataFrame(read(kind))
    if {"kind", "peer"} <= {*lines}:
        names = zip(lines["kind"], lines.peer, strict=True)
        lines["peer"] = [RENAMED.get(name, name[1]) for name in names]
    if "cold_median" not in lines:
        return lines
    cold = lines.filter(regex="^cold_").rename(columns=lambda name: name.removeprefix("cold_"))
    warm = lines.filter(regex="^(?!cold_)")
    median = warm["median"].where(cold["median"].notna())
    return cold.combine_first(warm).assign(warm_median=median)


def runs(lines: pd.DataFrame, key: str, wanted: Collection[str]) -> dict[str, pd.DataFrame]:
    """By device one run: its lines whose `key` is wanted.

    It is the run with most of the wanted values, as a run may have been cut short, and the latest
    of such. The device measured last comes first.
    """
    if lines.empty:
        return {}
    lines = lines[lines[key].isin(wanted)]
    counts = lines.groupby(["device", "date"], as_index=False)[key].nunique()
    fullest = counts.sort_values([key, "date"]).drop_duplicates("device", keep="last")
    return {
        run.device: lines[(lines.device == run.device) & (lines.date == run.date)]
        for run in fullest.sort_values("date", ascending=False).itertuples()
    }


def roofs_of(run: pd.DataFrame) -> list[Line]:
    """What the machine reached in a run, a line for each dtype."""
    key = (run.device.iloc[0], run.date.iloc[0])
    return [line for line in read("roofs") if (line["device"], line["date"]) == key]


def identity(line: Line | pd.Series) -> str:
    """The run of a line: device, versions, commit, date."""
    commit, _, changes = (line["commit"] or "unknown").partition("+")
    python = f", Python {line['python']}" if "python" in line else ""
    return (
        f"{line['device']}; torch {line['torch']}{python}, commit {commit[:9]}"
        f"{', with uncommitted changes' if changes else ''}; "
        f"{line['date'][:16].replace('T', ' ')} UTC."
        f"{' Sizes scaled down for a CPU.' if line.get('scaled') else ''}"
    )


def table(
    lines: pd.DataFrame,
    key: str,
    cell: Callable[[pd.Series], str] | None = None,
    rows: Sequence[str] = ("case", "direction"),
    peers: Iterable[str] = LABELS,
) -> str:
    """A row for each value of `rows`, a column for each of the peers that has any cell.

    A cell is `cell(line)`, or the `key` with its unit. A line without `key` shows its problem.
    Where no line has it, there is no table.
    """
    if key not in lines or lines[key].isna().all():
        return ""
    unit = size if key.endswith("bytes") else duration
    texts = lines.apply(cell or (lambda line: unit(line[key])), axis=1).where(lines[key].notna())
    if "problem" in lines:
        texts = texts.fillna(lines.problem.str.partition(":")[0])
    options = {"index": list(rows), "columns": "peer", "aggfunc": "last", "sort": False}
    cells = lines.assign(text=texts).pivot_table(values="text", **options)
    cells = cells[[peer for peer in peers if peer in cells]].dropna(how="all")
    return markdown(cells.rename(columns=LABELS))


def markdown(cells: pd.DataFrame, formats: Formats | None = None) -> str:
    """A table; its index has no heading. Columns are written by their format, or as they are."""
    head, columns = [""] * cells.index.nlevels + list(cells), []
    for name, column in cells.reset_index().items():
        text = (formats or {}).get(str(name), str)
        columns.append(["" if pd.isna(cell) else text(cell) for cell in column])
    first, *rows = (f"| {' | '.join(row)} |" for row in [head, *zip(*columns, strict=True)])
    return "\n".join([first, "|" + "---|" * len(head), *rows])


def paragraphs(*texts: str) -> str:
    """Those that are not empty, with empty lines between them."""
    return "\n\n".join(filter(None, texts))
