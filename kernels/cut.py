"""How the band kernel (band.py) cuts maps into tiles, and numbers its programs."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from .launch import power_of_2

__all__ = ["Cut", "cut"]

# Cells of a tile in one row of the map.
WIDEST = 64


class Cut(NamedTuple):
    """What the kernel calls by these names.

    Args:
        grid: programs. programs: of each layer the first, and the first that is no longer its own.
        period: programs of all layers; where columns are shared, for one image and block.
        widths: columns of the map that a tile has. block: channels of a program.
    """

    grid: int
    programs: tuple[tuple[int, int], ...]
    period: int
    widths: tuple[int, ...]
    block: int


@lru_cache(maxsize=1024)
def cut(
    channels: tuple[int, ...],
    sizes: tuple[tuple[int, int], ...],
    batch: int,
    shared: bool,
    rows: int,
    columns: int,
) -> Cut:
    """Tiles of `rows` cells and at most `columns` channels; `shared`: of columns of all layers."""
    block = min(columns, power_of_2(max(16, min(channels))))
    widths = tuple([min(rows, WIDEST, max(8, power_of_2(width))) for _, width in sizes])
    blocks = [-(-count // block) for count in channels]
    programs, period = [(0, 0)] * len(sizes), 0
    # Coarse maps first: their runs are the longest.
    for i in sorted(range(len(sizes)), key=lambda i: sizes[i]):
        height, width = sizes[i]
        count = -(-height // (rows // widths[i])) * -(-width // widths[i])
        count *= 1 if shared else batch * blocks[i]
        programs[i] = (period, period + count)
        period += count
    grid = period * batch * blocks[0] if shared else period
    return Cut(grid, tuple(programs), period, widths, block)
