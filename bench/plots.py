"""Figures, drawn from the files in bench/results/ alone: python -m bench.plots

    docs/figures/DEVICE/time.png        seconds of each peer on W1 to W5
    docs/figures/DEVICE/memory.png      peak memory beyond the inputs
    docs/figures/DEVICE/scaling.png     time and memory over points, width, layers and image size
    docs/figures/DEVICE/roofline.png    FLOP/s against what the machine reaches
    docs/figures/DEVICE/table4.png      the paper's Table 4: memory against updates per second

All lines of a figure are of one run; what run, on which device and when is printed on it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .results import Line, complete_run, device_slug, devices, fullest_run, latest_rows, read, shown
from .table4 import PAPER
from .workloads import SWEEPS, WORKLOADS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


FOLDER = Path(__file__).resolve().parent.parent / "docs" / "figures"
WANTED = {workload.name for workload in WORKLOADS}
# Okabe and Ito's colours, told apart by colour-blind readers too; the library is the red one.
STYLES: dict[str, dict[str, Any]] = {
    name: {"label": label, "color": colour, "marker": marker}
    for name, label, colour, marker in (
        ("auto", "this library (auto)", "#d55e00", "o"),
        ("two_step", "every layer gathered", "#e69f00", "v"),
        ("one_pass", "gathered, one pass", "#e69f00", "<"),
        ("project_gather", "every layer projected", "#cc79a7", "^"),
        ("project_product", "projected, as a product", "#cc79a7", ">"),
        ("product", "matrix product alone", "#000000", "d"),
        ("product_fused", "the same, fused epilogue", "#000000", "1"),
        ("grid_sample", "grid_sample + cat + linear", "#0072b2", "s"),
        ("grid_sample_compiled", "the same, torch.compile", "#56b4e9", "D"),
        ("point_sample", "point_sample (PointRend)", "#56b4e9", "p"),
        ("masked", "dense, masked to samples", "#009e73", "P"),
        ("dense", "dense, all pixels", "#555555", "X"),
    )
}
AXES = {
    "points": "points per image",
    "width": "width of the layer, D",
    "layers": "layers, conv1_2 first",
    "image": "side of the image, pixels",
}
DIRECTIONS = ("forward", "training")


def _axes(lines: Sequence[Line], title: str, rows: int, columns: int, size: Any) -> Any:
    """Figure and axes, with the run below: device, versions, commit, date."""
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained", figsize=size)
    figure.suptitle(title, fontsize=12)
    head = lines[0]
    scaled = "; sizes scaled down (no GPU)" if any(line["scaled"] for line in lines) else ""
    run = f"{head['device']}, torch {head['torch']}, commit {str(head['commit'])[:9]}"
    figure.supxlabel(f"{run}, {head['date'][:10]}{scaled}", fontsize=8, color="#444444")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _only(lines: Sequence[Line], **wanted: Any) -> list[Line]:
    return [line for line in lines if all(line[key] == value for key, value in wanted.items())]


def _peers(lines: Sequence[Line]) -> dict[str, list[Line]]:
    """Lines by peer, in the order of STYLES."""
    by_peer = {peer: _only(lines, peer=peer) for peer in STYLES}
    return {peer: of_peer for peer, of_peer in by_peer.items() if of_peer}


def _panels(lines: Sequence[Line], title: str, key: str, factor: float, unit: str) -> Figure:
    """A panel for each of W1 to W5 and direction, a row in it for each peer."""
    names, peers = sorted({line["case"] for line in lines}), list(_peers(lines))
    figure, axes = _axes(lines, title, 2, len(names), (13, 6.6))
    panels = [(direction, name) for direction in DIRECTIONS for name in names]
    for ax, (direction, name) in zip(axes.flat, panels, strict=True):
        for line in _only(lines, case=name, direction=direction):
            x, y = line[key] * factor, peers.index(line["peer"])
            ax.plot([x], [y], linestyle="", **STYLES[line["peer"]])
            text = f"{x:.3g}" if x < 1000 else f"{x:,.0f}"
            ax.annotate(text, (x, y), (7, 0), textcoords="offset points", va="center", fontsize=7)
        ax.set(xscale="log", ylim=(len(peers) - 0.4, -0.6), yticks=range(len(peers)))
        labels = [STYLES[p]["label"] for p in peers] if name == names[0] else []
        ax.set_yticklabels(labels, fontsize=8)
        ax.margins(x=0.4)  # room for the numbers
        ax.grid(alpha=0.3)
        ax.tick_params(axis="x", which="both", labelsize=7)
        ax.set_title(f"{name} {direction}", fontsize=9)
        ax.set_xlabel(unit, fontsize=8)
    return figure


def time(lines: list[Line]) -> Figure:
    """Medians."""
    title = "First layer at sparse points: time of a call (median)"
    return _panels(lines, title, "median", 1e3, "ms")


def memory(lines: list[Line]) -> Figure:
    """Peaks beyond the inputs."""
    title = "First layer at sparse points: peak memory beyond the inputs"
    return _panels(lines, title, "peak_bytes", 1e-6, "MB")


def scaling(lines: list[Line]) -> Figure:
    """Time and peak memory over each swept quantity, in training."""
    swept = [line for line in lines if line["family"] in AXES]
    title = "First layer in training, one quantity varied: time (median) and peak memory"
    figure, axes = _axes(swept, title, 2, len(AXES), (13, 6.4))
    rows = (("median", 1e3, "time, ms"), ("peak_bytes", 1e-6, "memory beyond inputs, MB"))
    panels = [(*row, family) for row in rows for family in AXES]
    for ax, (key, factor, unit, family) in zip(axes.flat, panels, strict=True):
        selected = _only(lines, family=family)
        for peer, of_peer in _peers(selected).items():
            points = sorted((line["value"], line[key] * factor) for line in of_peer)
            ax.plot(*zip(*points, strict=True), markersize=5, **STYLES[peer])
        ax.set(yscale="log", xlabel=AXES[family], ylabel=unit if family == "points" else "")
        ax.set_xscale("linear" if family == "layers" else "log")
        values = sorted({line["value"] for line in selected})
        ax.set_xticks(values, [f"{v:,}" for v in values], fontsize=7, rotation=30, ha="right")
        ax.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        ax.grid(alpha=0.3)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure


def roofline(lines: list[Line]) -> Figure:
    """Executed FLOPs over compulsory bytes, against executed FLOP/s."""
    wanted = ("auto", "product", "grid_sample", "masked", "dense")
    lines = [line for line in lines if line["peer"] in wanted]
    title = "Roofline: FLOPs executed in matrix products, over the bytes that have to be moved"
    figure, axes = _axes(lines, title, 1, 2, (13.5, 5.4))
    roof = next(iter(_only(read("roofs"), date=lines[0]["date"], dtype=lines[0]["dtype"])), None)
    for ax, direction in zip(axes[0], DIRECTIONS, strict=True):
        most = 0.0
        for peer, of_peer in _peers(_only(lines, direction=direction)).items():
            xs = [line["flops"] / line["bytes"] for line in of_peer]
            ys = [line["flops"] / line["median"] / 1e9 for line in of_peer]
            most = max(most, *xs)
            ax.plot(xs, ys, linestyle="", **STYLES[peer])
            for line, *at in zip(of_peer, xs, ys, strict=True):
                ax.annotate(line["case"], at, (5, -8), textcoords="offset points", fontsize=7)
        if roof:
            flops, moved = roof["flops"], roof["bytes"]
            xs = [flops / moved / 8, flops / moved, 1.2 * most]
            label = f"copy {moved / 1e9:.3g} GB/s, product {flops / 1e9:.4g} GFLOP/s"
            ax.plot(xs, [min(flops, x * moved) / 1e9 for x in xs], "k-", label=label)
        ax.set(xscale="log", yscale="log", title=direction, ylabel="GFLOP/s executed")
        ax.set_xlabel("FLOPs executed / compulsory byte")
        ax.grid(which="both", alpha=0.25)
    figure.legend(*axes[0][1].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure


def table4(lines: list[Line]) -> Figure:
    """Memory against updates per second, here and in the paper."""
    title = "Training VGG-16 and an MLP on one image (the paper's Table 4)"
    figure, axes = _axes(lines, title, 1, 2, (12, 5.4))
    rows = {line["row"]: line for line in lines if line["row"] in PAPER}
    here = {name: (r["memory_bytes"] / 1e6, r["updates_per_second"]) for name, r in rows.items()}
    paper = {name: (row.memory_mb, row.updates_per_second) for name, row in PAPER.items()}
    head = f"measured: {lines[0]['side']} pixels wide, {lines[0]['samples_per_image']} samples"
    panels = ((here, head), (paper, "the paper: Caffe on a Titan X"))
    for ax, (points, text) in zip(axes[0], panels, strict=True):
        for mode, peer in (("dense", "dense"), ("masked", "masked"), ("sparse", "auto")):
            selected = {name: at for name, at in points.items() if name.startswith(mode)}
            style = {**STYLES[peer], "label": mode}
            ax.plot(*zip(*selected.values(), strict=True), linestyle=":", **style)
            for name, at in selected.items():
                name = name.removeprefix(mode).strip()
                ax.annotate(name, at, (6, 4), textcoords="offset points", fontsize=7.5)
        ax.set(xscale="log", yscale="log", title=text, ylabel="updates per second")
        ax.set_xlabel("memory, MB (model and gradients included)")
        ax.margins(0.15)
        ax.grid(which="both", alpha=0.25)
        ax.legend(fontsize=8)
    return figure


def main(arguments: list[str] | None = None) -> None:
    """Draw whatever the results of every device allow."""
    parser = argparse.ArgumentParser(prog="python -m bench.plots", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--output", type=Path, default=FOLDER, help="default: docs/figures")
    output = parser.parse_args(arguments).output
    if not (first_layer := shown(read("first_layer"))):
        parser.error("no results yet: make bench")
    for device in devices(first_layer):
        workloads = _only(fullest_run(first_layer, device, "case", WANTED), family="workload")
        for draw, lines in (
            (time, workloads),
            (memory, workloads),
            (scaling, complete_run(first_layer, device, "family", set(SWEEPS))),
            (roofline, [line for line in workloads if line.get("bytes")]),
            (table4, latest_rows(read("table4"), device)),
        ):
            if timed := [line for line in lines if "median" in line]:
                path = output / device_slug(device) / f"{draw.__name__}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                # Without the date of drawing, so that the same results give the same file.
                draw(timed).savefig(path, dpi=130, metadata={"Software": None})
                print(path)


if __name__ == "__main__":
    main()
