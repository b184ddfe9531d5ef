"""What is known of points in order before a launch: which calls the banded product (banded.py)
takes, how much room their bands need, and which points are ordered by counting (order.py).

How wide a band gets, only the points say. How wide all get together, their order does: where a
tile's band ends in a map, the next one's begins, but for `common` rows that both touch. So the
bands of T tiles have at most

    sum over maps of  B H_i W_i + T gap_i,   gap_i = common_i W_i + STEP - 1

columns, whole steps included, and a tile's may begin after the first
sum (low_i W_i + tile gap_i) of them, where low_i is the first row it touches.

Nothing here needs Triton: routes are asked for on any machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["MOST_COUNTED", "ROWS", "STEP", "band_steps", "fits", "gap", "whole_steps"]

# Points that share a band, and columns of A in a step of the product.
ROWS, STEP = 128, 64
# Points of an image that are counted into order by one launch; each block counts them all.
MOST_COUNTED = 4096
# Columns of A, on average: more of them take more memory than the hypercolumns of any network.
MOST_COLUMNS = 4096
# Rows of a map that two tiles have in common, where no bin of the order has points of several.
COMMON = 3
# Rows of R, and columns of all tiles together, are counted in 32 bits.
MOST_COUNT = 1 << 31


def whole_steps(columns: int) -> int:
    """Columns, filled up."""
    return -(-columns // STEP) * STEP


def gap(size: tuple[int, int], common: int = COMMON) -> int:
    """Columns between the bands of two tiles in one map, of which they have `common` rows."""
    rows, width = size
    return min(common, rows) * width + STEP - 1


def band_steps(
    sizes: Sequence[tuple[int, int]], gaps: Sequence[int], batch: int, tiles: int
) -> int:
    """The most steps that the bands of all tiles take together, `gaps` apart."""
    cells = sum([batch * rows * width for rows, width in sizes])
    return (cells + tiles * sum(gaps)) // STEP


def fits(
    dtype: torch.dtype,
    outputs: int,
    channels: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    batch: int,
    points: int,
    projected: Sequence[int],
) -> bool:
    """Whether `banded` takes a call of so many `points`.

    TMA moves rows in units of 16 bytes. A may have so many columns only: few points do not pay for
    all cells of large maps.
    """
    if dtype not in (torch.float16, torch.bfloat16) or outputs % 8 or not projected:
        return False
    if batch == 0 or points == 0:
        return False
    coarse = [sizes[i] for i in projected]
    gathered = sum([count for i, count in enumerate(channels) if i not in projected])
    cells = sum([batch * rows * width for rows, width in coarse])
    tiles = -(-points // ROWS)
    steps = band_steps(coarse, [*map(gap, coarse)], batch, tiles)
    columns = tiles * whole_steps(gathered) + steps * STEP
    return columns <= tiles * MOST_COLUMNS and max(columns, cells) < MOST_COUNT
