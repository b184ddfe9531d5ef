"""One function for each figure: from lines of results to axes with units, device and date."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from .results import Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Draw = Callable[["Axes", Line, int], list[float]]

__all__ = ["memory_by_workload", "predicted", "roofline", "scaling", "time_by_workload"]

# Okabe and Ito's colours, told apart by colour-blind readers too; the library is the red one.
STYLES = {
    "auto": ("this library (auto)", "#d55e00", "o"),
    "two_step": ("every layer gathered", "#e69f00", "v"),
    "one_pass": ("gathered, one pass", "#e69f00", "<"),
    "project_gather": ("every layer projected", "#cc79a7", "^"),
    "project_product": ("projected, as a product", "#cc79a7", ">"),
    "product": ("matrix product alone", "#000000", "|"),
    "product_fused": ("the same, fused epilogue", "#000000", "1"),
    "grid_sample": ("grid_sample + cat + linear", "#0072b2", "s"),
    "grid_sample_compiled": ("the same, torch.compile", "#56b4e9", "D"),
    "point_sample": ("point_sample (PointRend)", "#56b4e9", "p"),
    "masked": ("dense, masked to samples", "#009e73", "P"),
    "dense": ("dense, all pixels", "#555555", "X"),
}
AXES = {
    "points": "points per image",
    "width": "width of the layer, D",
    "layers": "layers, conv1_2 first",
    "image": "side of the image, pixels",
}


def new_figure(lines: Sequence[Line], title: str, rows: int, columns: int, **options: Any) -> Any:
    """Figure and axes, with the run below: device, versions, commit, date."""
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained", **options)
    axes = figure.subplots(rows, columns, squeeze=False)
    figure.suptitle(title, fontsize=12)
    head = lines[0]
    scaled = "; sizes scaled down (no GPU)" if any(line["scaled"] for line in lines) else ""
    run = f"{head['device']}, torch {head['torch']}, commit {str(head['commit'])[:9]}"
    figure.supxlabel(f"{run}, {head['date'][:10]}{scaled}", fontsize=8, color="#444444")
    return figure, axes


def _peers(lines: Sequence[Line]) -> list[str]:
    present = {line["peer"] for line in lines}
    return [peer for peer in STYLES if peer in present]


def _only(lines: Sequence[Line], **wanted: Any) -> list[Line]:
    return [line for line in lines if all(line[key] == value for key, value in wanted.items())]


def _panels(lines: Sequence[Line], title: str, unit: str, draw: Draw) -> Figure:
    """A panel for each of W1 to W5 and direction, a row in it for each peer.

    `draw` marks one line of results at a height, and returns the values it marked.
    """
    lines = _only(lines, family="workload")
    names = sorted({line["case"] for line in lines})
    directions = [d for d in ("forward", "training") if _only(lines, direction=d)]
    figure, axes = new_figure(lines, title, len(directions), len(names), figsize=(13, 6.6))
    peers = _peers(lines)
    for (row, direction), (column, name) in product(enumerate(directions), enumerate(names)):
        ax: Axes = axes[row][column]
        selected = _only(lines, case=name, direction=direction)
        ax.set_xscale("log")
        ax.set_ylim(len(peers) - 0.4, -0.6)
        ax.set_yticks(range(len(peers)))
        ax.set_yticklabels([STYLES[p][0] for p in peers] if column == 0 else [])
        ax.grid(axis="x", which="major", alpha=0.4)
        ax.grid(axis="y", alpha=0.15)
        head = selected[0]
        sizes = f"{head['images']} x {head['image_size'][0]}², N={head['points']}"
        sizes += f", C={sum(c for c, _, _ in head['layers'])}, D={head['out_features']}"
        ax.set_title(f"{name} {direction}\n{sizes}", fontsize=7.5)
        values = [v for line in selected for v in draw(ax, line, peers.index(line["peer"]))]
        # Room for the numbers at the right, by the span: a number is as wide on any scale.
        most = max(values)
        ax.set_xlim(min(values) / 1.6, most * 4 * (most / min(values)) ** 0.22)
        plain_numbers(ax.xaxis)
        ax.set_xlabel(unit, fontsize=8)
    return figure


def _mark(ax: Axes, x: float, y: float, peer: str, text: str, **options: Any) -> None:
    _, colour, marker = STYLES[peer]
    style: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 7, "linestyle": ""}
    ax.plot([x], [y], **{**style, **options})
    ax.annotate(text, (x, y), (7, 0), textcoords="offset points", va="center", fontsize=7)


def plain_numbers(*axes: Any) -> None:
    """Plain numbers on logarithmic axes: powers of ten, with 2 and 5 where there is room."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for axis in axes:
        low, high = axis.get_view_interval()
        subs = (1.0,) if high / low > 80 else (1.0, 2.0, 5.0)
        axis.set_major_locator(LogLocator(subs=subs))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axis.set_minor_formatter(NullFormatter())
        axis.set_tick_params(labelsize=8)


def _digits(value: float) -> str:
    """Three digits, without exponents."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _legend(figure: Figure, ax: Axes) -> None:
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8)


def time_by_workload(lines: list[Line]) -> Figure:
    """Median, and from the 20th to the 80th percentile."""

    def draw(ax: Axes, line: Line, y: int) -> list[float]:
        low, high = line["p20"] * 1e3, line["p80"] * 1e3
        colour = STYLES[line["peer"]][1]
        ax.plot([low, high], [y, y], color=colour, linewidth=3, alpha=0.35)
        milliseconds = line["median"] * 1e3
        _mark(ax, milliseconds, y, line["peer"], _digits(milliseconds))
        return [milliseconds]

    title = "First layer at sparse points: time of a call (median; line: 20th to 80th percentile)"
    return _panels(lines, title, "ms", draw)


def memory_by_workload(lines: list[Line]) -> Figure:
    """Peak beyond the inputs; hollow: kept for the backward pass."""

    def draw(ax: Axes, line: Line, y: int) -> list[float]:
        megabytes = line["peak_bytes"] / 1e6
        _mark(ax, megabytes, y, line["peer"], _digits(megabytes))
        if not line.get("saved_bytes"):
            return [megabytes]
        saved = line["saved_bytes"] / 1e6
        _mark(ax, saved, y, line["peer"], "", markerfacecolor="none", markersize=9)
        return [megabytes, saved]

    title = (
        "First layer at sparse points: peak memory beyond the inputs "
        "(hollow: kept between forward and backward, with the output)"
    )
    return _panels(lines, title, "MB", draw)


def scaling(lines: list[Line]) -> Figure:
    """Time and peak memory over each swept quantity, in training."""
    families = [f for f in AXES if _only(lines, family=f)]
    swept = [line for line in lines if line["family"] in families]
    title = "First layer in training, one quantity varied: time (median) and peak memory"
    figure, axes = new_figure(swept, title, 2, len(families), figsize=(13, 6.4))
    for column, family in enumerate(families):
        selected = _only(lines, family=family)
        for row, (key, factor, unit) in enumerate(
            (("median", 1e3, "time, ms"), ("peak_bytes", 1e-6, "memory beyond inputs, MB"))
        ):
            ax: Axes = axes[row][column]
            for peer in _peers(selected):
                label, colour, marker = STYLES[peer]
                points = sorted(
                    (line["value"], line[key] * factor) for line in _only(selected, peer=peer)
                )
                style: dict[str, Any] = {"color": colour, "marker": marker}
                style |= {"markersize": 5, "linewidth": 1.3}
                xs, ys = zip(*points, strict=True)
                ax.plot(xs, ys, label=label, **style)
            ax.set_yscale("log")
            if family != "layers":
                ax.set_xscale("log", base=2 if family == "image" else 10)
            plain_numbers(ax.yaxis)
            values = sorted({line["value"] for line in selected})
            ax.set_xticks(values, [f"{v:,}" for v in values], fontsize=7, rotation=30, ha="right")
            ax.minorticks_off()
            ax.grid(alpha=0.3)
            ax.set_xlabel(AXES[family], fontsize=9)
            ax.set_ylabel(unit if column == 0 else "", fontsize=9)
        axes[0][column].set_title(_fixed(selected[0], family), fontsize=8.5)
    _legend(figure, axes[0][0])
    return figure


def _fixed(line: Line, family: str) -> str:
    """What does not vary in a sweep."""
    parts = {
        "points": f"N={line['points']}",
        "width": f"D={line['out_features']}",
        "layers": f"C={sum(c for c, _, _ in line['layers'])}",
        "image": f"{line['images']} x {line['image_size'][0]}²",
    }
    return ", ".join(text for key, text in parts.items() if key != family)


def roofline(lines: list[Line], roofs: list[Line]) -> Figure:
    """Executed FLOPs over compulsory bytes, against executed FLOP/s."""
    lines = _only(lines, family="workload")
    shown = [p for p in _peers(lines) if p in ("auto", "product", "grid_sample", "masked", "dense")]
    title = "Roofline: FLOPs executed in matrix products, over the bytes that have to be moved"
    figure, axes = new_figure(lines, title, 1, 2, figsize=(13.5, 5.4))
    roof = next((r for r in roofs if r["dtype"] == lines[0]["dtype"]), None)
    for ax, direction in zip(axes[0], ("forward", "training"), strict=True):
        selected = [line for line in _only(lines, direction=direction) if line["peer"] in shown]
        intensities = [line["flops"] / line["bytes"] for line in selected]
        if roof:
            ridge = roof["flops"] / roof["bytes"]
            ends = (min(*intensities, ridge) / 2, max(*intensities, ridge) * 2)
            xs = [ends[0], ridge, ends[1]]
            ys = [min(roof["flops"], x * roof["bytes"]) / 1e9 for x in xs]
            label = f"measured: copy {roof['bytes'] / 1e9:.3g} GB/s, "
            ax.plot(
                xs, ys, "k-", linewidth=1, label=f"{label}product {roof['flops'] / 1e9:.4g} GFLOP/s"
            )
        for peer in shown:
            label, colour, marker = STYLES[peer]
            for line in _only(selected, peer=peer):
                x, y = line["flops"] / line["bytes"], line["flops_per_second"] / 1e9
                name = label if line["case"] == selected[0]["case"] else None
                marker = "d" if peer == "product" else marker
                ax.plot([x], [y], color=colour, marker=marker, linestyle="", label=name)
                ax.annotate(line["case"], (x, y), (5, -8), textcoords="offset points", fontsize=7)
        ax.set(xscale="log", yscale="log", title=direction)
        ax.set_xlabel("FLOPs executed / compulsory byte")
        ax.set_ylabel("GFLOP/s executed")
        ax.grid(which="both", alpha=0.25)
        plain_numbers(ax.xaxis, ax.yaxis)
    _legend(figure, axes[0][1])
    return figure


def predicted(lines: list[Line]) -> Figure:
    """The planner's cost model against the median of warm calls, for the library's own plans."""
    selected = [
        {**line, "median": line.get("warm_median", line["median"])}
        for line in lines
        if "predicted" in line
    ]
    figure, axes = new_figure(selected, "The planner's cost model", 1, 1, figsize=(7.4, 6.4))
    ax: Axes = axes[0][0]
    seconds = [line[key] * 1e3 for line in selected for key in ("median", "predicted")]
    ends = (min(seconds) / 1.5, max(seconds) * 1.5)
    ax.plot(ends, ends, "k-", linewidth=1)
    for factor in (0.5, 2.0):
        ax.plot(ends, [factor * end for end in ends], "k:", linewidth=0.8)
    ax.text(ends[1] / 1.1, ends[1] / 2, "half", fontsize=8, ha="right", va="bottom", rotation=45)
    ax.text(ends[0] * 1.1, ends[0] * 2.3, "twice", fontsize=8, ha="left", va="bottom", rotation=45)
    for peer in _peers(selected):
        label, colour, marker = STYLES[peer]
        for direction, face in (("forward", "none"), ("training", colour)):
            chosen = _only(selected, peer=peer, direction=direction)
            if chosen:
                xs = [line["median"] * 1e3 for line in chosen]
                ys = [line["predicted"] * 1e3 for line in chosen]
                style: dict[str, Any] = {"color": colour, "marker": marker}
                style["markerfacecolor"] = face
                ax.plot(xs, ys, linestyle="", label=f"{label}, {direction}", **style)
    errors = sorted(abs(line["predicted"] / line["median"] - 1) for line in selected)
    middle = errors[len(errors) // 2]
    profile = textwrap.fill(selected[0]["profile"], 90)
    ax.set_title(f"{len(selected)} calls, median error {middle:.0%}\n{profile}", fontsize=8)
    ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    plain_numbers(ax.xaxis, ax.yaxis)
    ax.set_xlabel("measured, ms (median)")
    ax.set_ylabel("predicted, ms")
    ax.grid(alpha=0.3)
    ax.legend(fontsize=7.5, loc="lower right")
    return figure
