"""How positions are told to PyTorch's sampling kernels so that these find them exactly.

`grid_sample` takes g = u - 1 for a position t in cells, where u = (2 t + 1) / W, or 2 t / (W - 1)
if corners are aligned, and computes t again. That is exact at the centres of cells if W, or W - 1,
is a power of two: maps are enlarged to such sides. As it is a map stays where u is the point
itself, but for a power of two: in [0, 1] and in [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from .geometry import Geometry, LayerAffine, quotient

__all__ = ["Grid", "enlarged_cells", "grid_of", "integers_are_exact"]


class Grid(NamedTuple):
    """u of one layer: on its map, or on that map with rows and columns added at the far ends.

    Args:
        aligned: whether u counts from the centres of the corner cells, as `align_corners` does.
        rows, columns: of the map that is sampled.
        x, y: (a, b, c) for either axis: u = (a * point + b) / c.
    """

    aligned: bool
    rows: int
    columns: int
    x: tuple[float, float, float]
    y: tuple[float, float, float]

    @property
    def exact(self) -> bool:
        """Is u exact for points of few bits? a is a power of two, b has few bits, c is 1."""
        return all(
            c == 1 and math.frexp(a)[0] in (0.0, 0.5) and (b * (1 << 20)).is_integer()
            for a, b, c in (self.x, self.y)
        )


@lru_cache(maxsize=1024)
def grid_of(affine: LayerAffine, rows: int, columns: int) -> Grid:
    """The grid of a layer of so many cells: as it is if that is exact, or with the fewest added."""
    for aligned in (False, True):
        # A single cell has no corners to count from.
        alone = (rows == 1 and affine[2] != 0) or (columns == 1 and affine[0] != 0)
        grid = _grid(affine, aligned, rows, columns)
        if grid.exact and not (aligned and alone):
            return grid
    aligned = _fewest(rows, columns)
    return _grid(affine, aligned, _side(rows, aligned), _side(columns, aligned))


def integers_are_exact(geometry: Geometry, sizes: Sequence[tuple[int, int]]) -> bool:
    """Does `grid_sample` in float32 find integer points exactly on maps (H_i, W_i)?

    It does at strides such as 1, 2 or 4. Between pixels u is rounded where t is not.
    """
    pairs = zip(geometry.affine, sizes, strict=True)
    return all(grid_of(affine, *size).exact for affine, size in pairs)


def enlarged_cells(rows: int, columns: int) -> int:
    """Cells of the map that is sampled, unless it may stay as it is."""
    aligned = _fewest(rows, columns)
    return _side(rows, aligned) * _side(columns, aligned)


def _fewest(rows: int, columns: int) -> bool:
    """The convention that adds fewer cells."""
    return min((False, True), key=lambda aligned: _side(rows, aligned) * _side(columns, aligned))


def _side(cells: int, aligned: bool) -> int:
    """The least power of two that is no less than `cells`; if aligned, of one cell fewer."""
    least = max(1, cells - 1) if aligned else cells
    return (1 << (least - 1).bit_length()) + aligned


def _grid(affine: LayerAffine, aligned: bool, rows: int, columns: int) -> Grid:
    x, y = (
        _axis(scale, offset, aligned, cells)
        for scale, offset, cells in ((*affine[:2], columns), (*affine[2:], rows))
    )
    return Grid(aligned, rows, columns, x, y)


@lru_cache(maxsize=4096)
def _axis(scale: float, offset: float, aligned: bool, cells: int) -> tuple[float, float, float]:
    a, b, c = quotient(scale, offset)  # of t
    a, b = 2 * a, 2 * b if aligned else 2 * b + c
    c *= max(cells - 1, 1) if aligned else cells
    # Where c is a power of two, or goes into both, nothing is rounded by dividing now.
    exact = math.frexp(c)[0] == 0.5 or ((a / c).is_integer() and (b / c).is_integer())
    return (a / c, b / c, 1.0) if exact else (a, b, c)
