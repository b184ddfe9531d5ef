"""ODS, OIS and AP from the counts of images, as `collect_eval_bdry` of the BSDS500 benchmark.

With counts summed over the images at each threshold (found, true, right, predicted),

    R = found / true        P = right / predicted        F = 2 P R / (P + R)        0 / 0 = 0

=====  =============================================================================================
ODS    the largest F on the curve, with R and P interpolated between neighbouring thresholds
OIS    F of the counts that each image has at its own best threshold, summed
AP     0.01 times the sum of P, interpolated between the points of the curve at R = 0, 0.01 ... 1,
       and 0 where the curve does not reach
=====  =============================================================================================
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .boundary_counting import BoundaryCounts

__all__ = ["best_counts", "boundary_scores", "stacked"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

STEPS = 100  # points between two thresholds, the two included


def stacked(counts: BoundaryCounts) -> Integers:
    """``(4, K)``: found, true, right, predicted. Images are added up in this form."""
    return np.stack([counts.found, counts.true, counts.right, counts.predicted])


def best_counts(counts: Integers) -> Integers:
    """``(4,)``: the column of ``(4, K)`` with the largest F; the first of several."""
    return counts[:, int(np.argmax(_f_measure(*_recall_precision(counts))))]


def boundary_scores(thresholds: Floats, total: Integers, best: Integers) -> dict[str, Tensor]:
    """The scores of a data set.

    Args:
        thresholds: ``(K,)``.
        total: ``(4, K)``, the `stacked` counts, summed over the images.
        best: ``(4,)``, the `best_counts`, summed over the images.

    Returns:
        ``ods``, ``ods_threshold``, ``ois``, ``ap``: scalars; ``thresholds``, ``recall``,
        ``precision``: ``(K,)``, the curve.
    """
    recall, precision = _recall_precision(total)
    ods, threshold = _best_on_curve(thresholds, recall, precision)
    scores = {
        "ods": ods,
        "ods_threshold": threshold,
        "ois": _f_measure(*_recall_precision(best)),
        "ap": _area(recall, precision),
        "thresholds": thresholds,
        "recall": recall,
        "precision": precision,
    }
    return {
        name: torch.as_tensor(value, dtype=torch.float32, device="cpu")
        for name, value in scores.items()
    }


def _recall_precision(counts: Integers) -> tuple[Floats, Floats]:
    matched, true, right, predicted = counts
    return matched / np.maximum(true, 1), right / np.maximum(predicted, 1)


def _f_measure(recall: Floats, precision: Floats) -> Floats:
    total = recall + precision
    return 2 * recall * precision / np.where(total == 0, 1, total)


def _best_on_curve(thresholds: Floats, recall: Floats, precision: Floats) -> tuple[float, float]:
    """The largest F and where it is; the lowest of several."""
    step = np.linspace(0, 1, STEPS)

    def between(values: Floats) -> Floats:  # (K,) -> (K - 1) * STEPS, or (1,) -> (1,)
        if len(values) == 1:
            return values
        return (values[1:, None] * step + values[:-1, None] * (1 - step)).ravel()

    f = _f_measure(between(recall), between(precision))
    best = int(np.argmax(f))
    return float(f[best]), float(between(thresholds)[best])


def _area(recall: Floats, precision: Floats) -> float:
    unique, first = np.unique(recall, return_index=True)
    if len(unique) == 1:
        return 0.0
    grid = np.linspace(0, 1, 101)
    return float(np.interp(grid, unique, precision[first], left=0, right=0).sum() * 0.01)
