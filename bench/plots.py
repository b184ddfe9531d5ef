"""Figures, drawn from the files in bench/results/ alone: python -m bench.plots

    docs/figures/DEVICE/time.png        time of each peer on W1 to W5
    docs/figures/DEVICE/memory.png      peak memory beyond the inputs
    docs/figures/DEVICE/scaling.png     time and memory over points, width, layers and image size
    docs/figures/DEVICE/roofline.png    FLOP/s against what the machine reaches
    docs/figures/DEVICE/table4.png      the paper's Table 4: memory against updates per second

All lines of a figure are of one run; what run, on which device and when is printed on it.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from pixelnet_triton.tools.machine import slug

from .report_table4 import PRINTED, latest_rows
from .tables import PEERS, WANTED, identity, measured, roofs_of, runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "figures"
LABELS = {name: peer.label.replace("`", "") for name, peer in PEERS.items()}
AXES = {
    "points": "points per image",
    "width": "width of the layer, D",
    "layers": "layers, conv1_2 first",
    "image": "side of the image, pixels",
}


def _grid(
    points: pd.DataFrame, title: str, offset: tuple[float, float], line: str = "", **names: str
) -> Figure:
    """A panel for each `row` and `column` of the points, which are the names of its axes.

    In it `y` over `x` for every `peer`, joined by a line; the `text` at an offset from each point.
    """
    from matplotlib.figure import Figure

    rows, columns = points["row"].unique(), points["column"].unique()
    figure = Figure(layout="constrained", figsize=(13, 3 + 1.8 * len(rows)))
    figure.suptitle(title)
    figure.supxlabel(identity(points.iloc[0]), fontsize=8, color="#444444")
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for ax, (row, column) in zip(axes.flat, product(rows, columns), strict=True):
        panel = points[(points["row"] == row) & (points["column"] == column)]
        for name in [name for name in PEERS if name in set(points.peer)]:
            style = {"color": PEERS[name].colour, "marker": PEERS[name].marker, "linestyle": line}
            of_peer = panel[panel.peer == name]
            ax.plot(of_peer.x, of_peer.y, label=names.get(name, LABELS[name]), **style)
        for x, y, text in zip(panel.x, panel.y, panel.text, strict=True):
            ax.annotate(text, (x, y), offset, textcoords="offset points", fontsize=7)
        ax.set(xscale="log", yscale="log", xlabel=column, ylabel=row if ax in axes[:, 0] else "")
        ax.margins(0.15)
        ax.grid(alpha=0.3)
    return figure


def _legend(figure: Figure) -> Figure:
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8)
    return figure


def _of_peers(run: pd.DataFrame, figures: pd.Series, unit: str, title: str) -> Figure:
    """A panel for each of W1 to W5 and direction, a line in it for each peer."""
    run = run[run.peer.isin(PEERS)]
    peers = [name for name in PEERS if name in set(run.peer)]
    text = figures[run.index].map(lambda number: f"{number:{'.3g' if number < 1000 else ',.0f'}}")
    points = run.assign(
        x=figures[run.index], y=run.peer.map(peers.index), text=text, row=run.direction
    )
    points["column"] = run.case + ", " + unit
    figure = _grid(points, f"First layer at sparse points: {title}", (7, -2.5))
    for ax in figure.axes:
        labels = [LABELS[peer] if ax.get_ylabel() else "" for peer in peers]
        ax.set(yscale="linear", ylim=(len(peers) - 0.4, -0.6))
        ax.set_yticks(range(len(peers)), labels, fontsize=8)
        ax.margins(x=0.4)  # room for the numbers
    return figure


def time(run: pd.DataFrame) -> Figure:
    """Medians."""
    return _of_peers(run, run["median"] * 1e3, "ms", "time of a call (median)")


def memory(run: pd.DataFrame) -> Figure:
    """Peaks beyond the inputs."""
    return _of_peers(run, run.peak_bytes / 1e6, "MB", "peak memory beyond the inputs")


def scaling(run: pd.DataFrame) -> Figure:
    """Time and peak memory over each swept quantity, in training."""
    swept = pd.concat(run[run.family == family].sort_values("value") for family in AXES)
    swept = swept.assign(x=swept["value"].astype(float), text="", column=swept.family.map(AXES))
    seconds = swept.assign(row="time, ms", y=swept["median"] * 1e3)
    peaks = swept.assign(row="memory beyond inputs, MB", y=swept.peak_bytes / 1e6)
    title = "First layer in training, one quantity varied: time (median) and peak memory"
    figure = _grid(pd.concat([seconds, peaks]), title, (0, 0), "-")
    for ax in figure.axes:
        values = sorted(swept[swept.column == ax.get_xlabel()].x.unique())
        ax.set_xticks(values, [f"{v:,.0f}" for v in values], fontsize=7, rotation=30, ha="right")
        ax.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    return _legend(figure)


def roofline(run: pd.DataFrame) -> Figure:
    """Executed FLOPs over compulsory bytes, against executed FLOP/s."""
    run = run[run.peer.isin(("auto", "product", "grid_sample", "masked", "dense"))]
    x, y = run.flops / run.bytes, run.flops / run["median"] / 1e9
    points = run.assign(x=x, y=y, text=run.case, row="GFLOP/s executed")
    points["column"] = run.direction + ": FLOPs executed / compulsory byte"
    title = "Roofline: FLOPs executed in matrix products, over the bytes that have to be moved"
    figure = _grid(points, title, (5, -8))
    roofs = [roof for roof in roofs_of(run) if roof["dtype"] == run["dtype"].iloc[0]]
    for ax, roof in product(figure.axes, roofs):
        flops, moved = roof["flops"] / 1e9, roof["bytes"] / 1e9
        ridge, label = flops / moved, f"copy {moved:.3g} GB/s, product {flops:.4g} GFLOP/s"
        ax.plot([ridge / 8, ridge, 1.2 * x.max()], [flops / 8, flops, flops], "k-", label=label)
    return _legend(figure)


def table4(rows: pd.DataFrame) -> Figure:
    """Memory against updates per second, here and in the paper."""
    side, samples = rows[["side", "samples_per_image"]].iloc[0]
    panels = {
        f"measured: {side} pixels wide, {samples} samples": rows.drop("backbone", errors="ignore"),
        "the paper: Caffe on a Titan X": PRINTED.assign(memory_bytes=PRINTED.memory_mb * 1e6),
    }
    points = pd.concat(panels, names=["panel", "name"]).reset_index()
    points[["mode", "text"]] = points.name.str.split(n=1, expand=True)
    points["column"] = "memory, MB (model and gradients included); " + points.panel
    points["peer"] = points["mode"].replace("sparse", "auto")
    points = points.assign(
        x=points.memory_bytes / 1e6, y=points.updates_per_second, row="updates per second"
    )
    title = "Training VGG-16 and an MLP on one image (the paper's Table 4)"
    return _legend(_grid(points, title, (6, 4), ":", auto="sparse"))


def main(arguments: list[str] | None = None) -> None:
    """Draw whatever the results of every device allow."""
    parser = argparse.ArgumentParser(prog="python -m bench.plots", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--output", type=Path, default=FOLDER, help="default: docs/figures")
    output = parser.parse_args(arguments).output
    lines = measured("first_layer")
    if lines.empty:
        parser.error("no results yet: make bench")
    lines = lines[lines["median"].notna()]
    layers, sweeps = runs(lines, "case", WANTED), runs(lines, "family", AXES)
    rows = latest_rows(measured("table4"))
    drawn = {time: layers, memory: layers, scaling: sweeps, roofline: layers, table4: rows}
    for (draw, of_devices), device in product(drawn.items(), layers):
        if device in of_devices:
            path = output / slug(device) / f"{draw.__name__}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            # Without the date of drawing, so that the same results give the same file.
            draw(of_devices[device]).savefig(path, dpi=130, metadata={"Software": None})
            print(path)


if __name__ == "__main__":
    main()
