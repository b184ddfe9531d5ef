"""The precision-recall curve of Figure 4, over lines of equal F and beside the human point."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..data.decoding import needed

__all__ = ["HUMAN", "draw_curves"]

# (recall, precision) of the annotators measured by each other: F = 0.80, as in Table 7 and Figure 4
# of the paper. The coordinates are those of the structured edge toolbox (edgesEvalPlot.m).
HUMAN = (0.7235, 0.9014)


def draw_curves(path: Path, curves: Mapping[str, Mapping[str, Any]]) -> None:
    """Write a picture with the curves of boundary evaluations.

    Args:
        path: of the picture; its suffix says the format.
        curves: by the name in the legend, ``recall`` and ``precision`` at each threshold, and the
            best F on the curve, ``ods``, if it is to stand in the legend.

    Raises:
        ImportError: matplotlib is not installed.
    """
    needed("matplotlib", "the precision-recall curve", "matplotlib", "pixelnet-triton[plot]")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot()
    for f in np.arange(0.1, 1.0, 0.1):
        r = np.linspace(f / (2 - f), 1, 200)  # from where the precision is 1
        axes.plot(r, f * r / (2 * r - f), color="0.8", linewidth=0.8, zorder=0)
        axes.annotate(
            f"{f:.1f}",
            (1.005, f / (2 - f)),
            color="0.6",
            size=7,
            va="center",
            annotation_clip=False,
        )
    recall, precision = HUMAN
    human = 2 * recall * precision / (recall + precision)
    axes.plot(recall, precision, "o", color="tab:green", label=f"[F={human:.2f}] human")
    for name, curve in curves.items():
        score = f"[F={curve['ods']:.2f}] " if "ods" in curve else ""
        # Thresholds above every edge have precision 0 / 0, which is no point of the curve.
        points = [(r, p) for r, p in zip(curve["recall"], curve["precision"], strict=True) if r > 0]
        axes.plot(*zip(*points, strict=True) if points else ((), ()), label=f"{score}{name}")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="recall", ylabel="precision", aspect="equal")
    axes.grid(color="0.93")
    axes.legend(loc="lower left", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
