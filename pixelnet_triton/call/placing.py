"""Bilinear placing on one axis, once, for tensors and arrays: spans of pixels, the export, corners.

low = floor(t),   upper = t - low        value = (1 - upper) cell[low] + upper cell[low + 1]

At a cell's centre a product by upper = 0 would still bring in what is infinite in the next cell.
Such a point sees one cell, so that is both its cells. With 1 and 0 for weights an infinite cell
becomes NaN there; with two halves it stays itself, and their sum is exact. In sums over many
points, those of gradients, halves are rounded more often.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["place", "place_array", "place_seen"]


def place(t: Tensor, lowest: Any, highest: Any) -> tuple[Tensor, Tensor]:
    """The lower of the two cells around each position, and the weight of the upper one.

    Args:
        t: positions in cells, cell centres at integers. The bounds are numbers or tensors.
        lowest, highest: bounds that t is clamped to: the outermost cells for border padding; a
            cell or more outside them, where no weight is left, for zero padding.
    """
    inside = t.clamp(lowest, highest)
    low = inside.floor()
    return low, inside - low


def place_seen(t: Tensor, lowest: Any, highest: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Both cells, one and the same at a centre, and the weight of the upper one, then a half."""
    low, upper = place(t, lowest, highest)
    return low, low + (upper > 0), torch.where(upper > 0, upper, 0.5)


def place_array(
    t: Any, lowest: Any, highest: Any, upper: Any, apart: Any = None, halves: bool = False
) -> Any:
    """The same for arrays of NumPy (2, M, P): cells (2, M, 2, P); `upper` (2, M, P) is written.

    Both cells are the same at a centre, where the weight is 0, or with `halves` a half; not where
    they are to be `apart`, as slopes see them. Few operations, since each takes 1 us to begin, and
    not NumPy's `clip`, which takes four times as long.
    """
    inside = np.maximum(t, lowest)
    np.minimum(inside, highest, out=inside)
    layers, points = inside.shape[1:]
    cells = np.empty((2, layers, 2, points), inside.dtype)
    low, high = cells[:, :, 0], cells[:, :, 1]
    np.floor(inside, out=low)
    np.subtract(inside, low, out=upper, casting="same_kind")
    if apart is not None:
        np.add(low, apart, out=high)
        return cells
    np.ceil(inside, out=high)
    if halves:
        np.copyto(upper, 0.5, where=low == high)
    return cells
