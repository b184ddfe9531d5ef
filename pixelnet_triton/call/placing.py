"""Bilinear placing on one axis, once, for tensors and arrays: spans of pixels, the export, corners.

low = floor(t),   upper = t - low        value = (1 - upper) cell[low] + upper cell[low + 1]
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["place", "place_array"]


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


def place_array(t: Any, lowest: Any, highest: Any, last_low: Any) -> tuple[Any, Any]:
    """The same for arrays of NumPy, whose `clip` takes four times as long as this.

    `last_low`: the greatest lower cell, last - 1 for border padding: at t = last all the weight
    goes to the upper cell, so that both lie on the map. None leaves floor(t).
    """
    import numpy as np

    inside = np.minimum(np.maximum(t, lowest), highest)
    low = np.floor(inside)
    if last_low is not None:
        low = np.minimum(low, last_low)
    return low, inside - low
