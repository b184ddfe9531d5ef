"""What is known of points in order before a launch: which calls the banded product (banded.py)
takes, how wide their bands can get, and which points are ordered by counting (order.py).

Nothing here needs Triton: routes are asked for on any machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["MOST_COUNTED", "ROWS", "STEP", "band_columns", "fits", "whole_steps"]

# Points that share a band, and columns of A in a step of the product.
ROWS, STEP = 128, 64
# Points of an image that are counted into order by one launch; each block counts them all.
MOST_COUNTED = 4096
# Columns of A: more of them take more memory than the hypercolumns of any network.
MOST_COLUMNS = 4096
# Rows of R are counted in 32 bits.
MOST_CELLS = 1 << 31


def whole_steps(columns: int) -> int:
    """Columns, filled up."""
    return -(-columns // STEP) * STEP


def band_columns(sizes: Sequence[tuple[int, int]], batch: int, per_image: int | None) -> int:
    """The most columns that the bands of a tile can take.

    ROWS points, of `per_image` to each image, meet so many images at most; None: they may meet any.
    """
    images = batch
    if per_image is not None:
        images = min(batch, (ROWS - 1 + per_image - 1) // per_image + 1)
    return sum([whole_steps(images * height * width) for height, width in sizes])


def fits(
    dtype: torch.dtype,
    outputs: int,
    channels: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    batch: int,
    per_image: int | None,
    projected: Sequence[int],
) -> bool:
    """Whether `banded` takes a call; `per_image` is None where points are ragged.

    TMA moves rows in units of 16 bytes. Maps of ragged points, whose tiles may meet all images,
    have to be small.
    """
    if dtype not in (torch.float16, torch.bfloat16) or outputs % 8 or not projected:
        return False
    if batch == 0 or per_image == 0:
        return False
    coarse = [sizes[i] for i in projected]
    gathered = sum([count for i, count in enumerate(channels) if i not in projected])
    cells = sum([batch * height * width for height, width in coarse])
    most = whole_steps(gathered) + band_columns(coarse, batch, per_image)
    return most <= MOST_COLUMNS and cells < MOST_CELLS
