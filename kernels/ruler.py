"""Bins of y, by which points are put into order (order.py), seen from the rows of each map.

Nothing here needs Triton.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from ..call.geometry import Geometry, LayerAffine
from ..call.sampling import Sampling

__all__ = ["Ruler", "Window", "common_rows", "ruler_of", "windows_of"]

MOST_BINS = 1023
# Cell centres fall well inside a bin, and a hundredth of a bin is more than rounding moves a point.
SHIFT, SLACK = 0.25, 0.01


class Ruler(NamedTuple):
    """bin(y) = floor(scale y + offset), clamped to 0 ... bins - 1."""

    scale: float
    offset: float
    bins: int

    @property
    def spaces(self) -> int:
        """Bins of an image in the table of starts: a power of two, of which the last is empty."""
        return 1 << self.bins.bit_length()


class Window(NamedTuple):
    """Points that touch rows r ... s lie in bins floor(scale r + low) ... floor(scale s + high)."""

    scale: float
    low: float
    high: float


@lru_cache(maxsize=1024)
def ruler_of(sizes: tuple[tuple[int, int], ...], affine: tuple[LayerAffine, ...]) -> Ruler:
    """The rows of the finest map, some of them together if they are very many."""
    rows, (_, _, scale, offset) = max(
        (size[0], layer) for size, layer in zip(sizes, affine, strict=True)
    )
    bins = min(rows, MOST_BINS)
    return Ruler(scale * bins / rows, offset * bins / rows + SHIFT, bins)


def windows_of(s: Sampling, ruler: Ruler) -> tuple[Window, ...]:
    """For each layer of `s`, whose points were binned by `ruler`."""
    return _windows(s.geometry, not s.points.is_floating_point(), ruler)


@lru_cache(maxsize=1024)
def _windows(geometry: Geometry, whole: bool, ruler: Ruler) -> tuple[Window, ...]:
    windows = []
    for _, _, scale, offset in geometry.affine:
        # A point touches rows that are nearer than this.
        reach = 1.0 if geometry.bilinear else 0.5
        if whole and scale.is_integer() and offset.is_integer():
            reach = 0.0
        if scale == 0:
            windows.append(Window(0.0, 0.0, float(ruler.bins)))
            continue
        factor = ruler.scale / scale
        zero = ruler.offset - factor * offset
        margin = factor * reach + SLACK
        windows.append(Window(factor, zero - margin, zero + margin))
    return tuple(windows)


@lru_cache(maxsize=1024)
def common_rows(
    sizes: tuple[tuple[int, int], ...], affine: tuple[LayerAffine, ...], ruler: Ruler
) -> tuple[int, ...]:
    """How many rows of each map a point and all that come later in the order may touch both.

    Points of later bins lie no higher, points of the same bin at most `spread` rows higher:
    ceil(t) + 1 - floor(t - spread) rows. That makes 3, and 4 of a map whose rows are the bins.
    """
    common = []
    for (_, _, scale, offset), (rows, _) in zip(affine, sizes, strict=True):
        last = rows - 1.0
        spread = last
        if ruler.bins > 1 and ruler.scale > 0:
            # Where the first bin ends and the last begins: these take all that lies beyond.
            ends = [(b - ruler.offset) / ruler.scale for b in (1, ruler.bins - 1)]
            top, bottom = [min(max(scale * y + offset, 0.0), last) for y in ends]
            spread = max(top, last - bottom, scale / ruler.scale)
        common.append(min(math.ceil(spread + SLACK) + 2, rows))
    return tuple(common)
