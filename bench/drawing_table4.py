"""The figure of the paper's Table 4: memory against updates per second, here and there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .drawings import STYLES, new_figure, plain_numbers
from .results import Line
from .table4 import PAPER

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["table4"]


def table4(lines: list[Line]) -> Figure:
    """Memory against updates per second, here and in the paper."""
    title = "Training VGG-16 and an MLP on one image (the paper's Table 4)"
    figure, axes = new_figure(lines, title, 1, 2, figsize=(12, 5.4))
    rows = {line["row"]: line for line in lines if line["row"] in PAPER}
    side, samples = lines[0]["side"], lines[0]["samples_per_image"]
    here = {
        name: (line["memory_bytes"] / 1e6, line["updates_per_second"])
        for name, line in rows.items()
    }
    paper = {name: (row.memory_mb, row.updates_per_second) for name, row in PAPER.items()}
    for ax, points, head in (
        (axes[0][0], here, f"measured: {side} x {side}, {samples} samples"),
        (axes[0][1], paper, "the paper: Caffe on a Titan X, 224 x 224, 2000 samples"),
    ):
        for mode, peer in (("dense", "dense"), ("masked", "masked"), ("sparse", "auto")):
            selected = {name: at for name, at in points.items() if name.startswith(mode)}
            label, colour, marker = STYLES[peer]
            label = "sparse: hypercolumns at the samples alone" if mode == "sparse" else label
            plain = [at for name, at in selected.items() if "conv-7" not in name]
            ax.plot(*zip(*plain, strict=True), color=colour, marker=marker, label=label)
            for name, at in selected.items():
                if "conv-7" in name:
                    ax.plot(*at, color=colour, marker="*", markersize=12)
                text = name.removeprefix(mode).strip()
                place: dict[str, Any] = {"textcoords": "offset points", "fontsize": 7.5}
                if mode == "masked":  # near the dense ones, which are on their right
                    down = 8 - 9 * list(selected).index(name)
                    ax.annotate(text, at, (-6, down), ha="right", va="center", **place)
                else:
                    ax.annotate(text, at, (6, 4), **place)
        ax.set(xscale="log", yscale="log", title=head)
        ax.margins(0.15)
        plain_numbers(ax.xaxis, ax.yaxis)
        ax.set_xlabel("memory, MB (model and gradients included)")
        ax.set_ylabel("updates per second")
        ax.grid(which="both", alpha=0.25)
        ax.legend(fontsize=8)
    return figure
