"""What is known of points in order before a launch: which calls the banded product (banded.py)
takes, how much room their bands need, and which points are ordered by counting (order.py).

How wide one band gets, only the points say. How wide all get together, their order does: where a
tile's band ends in a map, the next one's begins, but for `common` rows that both touch (ruler.py).
So the bands of T tiles have at most

    sum over maps of  B H_i W_i + T gap_i,   gap_i = common_i W_i + STEP - 1

columns, whole steps included, and a tile's may begin after the first
sum (low_i W_i + tile gap_i) of them, where low_i is the first row it touches.

Nothing here needs Triton: routes are asked for on any machine.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["MOST_COUNTED", "ROWS", "STEP", "band_steps", "fits", "gap", "whole_steps"]

# Points that share a band, and columns of A in a step of the product.
ROWS, STEP = 128, 64
# Points of an image that are counted into order by one launch; each block counts them all.
MOST_COUNTED = 4096
# Columns of a tile: more would take longer, and more memory, than the hypercolumns of any network.
MOST_COLUMNS = 4096
# Rows of R are counted in 32 bits.
MOST_CELLS = 1 << 31


def whole_steps(columns: int) -> int:
    """Columns, filled up."""
    return -(-columns // STEP) * STEP


def _most_columns(sizes: Sequence[tuple[int, int]], batch: int, per_image: int | None) -> int:
    """The most columns that the bands of one tile can take.

    ROWS points, of `per_image` to each image, meet so many images at most; None: they may meet any.
    """
    images = batch
    if per_image is not None:
        images = min(batch, (ROWS - 1 + per_image - 1) // per_image + 1)
    return sum([whole_steps(images * height * width) for height, width in sizes])


def gap(size: tuple[int, int], common: int) -> int:
    """gap_i of a map, in which two tiles have `common` rows in common."""
    return common * size[1] + STEP - 1


def band_steps(
    sizes: Sequence[tuple[int, int]], gaps: Sequence[int], batch: int, tiles: int
) -> int:
    """The most steps that the bands of all tiles take together, `gaps` apart."""
    cells = sum([batch * rows * width for rows, width in sizes])
    return (cells + tiles * sum(gaps)) // STEP


def fits(
    outputs: int,
    channels: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    batch: int,
    per_image: int | None,
    projected: Sequence[int],
) -> bool:
    """Whether `banded` takes a call in half precision; `per_image`: None where points are ragged.

    TMA moves rows in units of 16 bytes. Maps of ragged points, whose tiles may meet all images,
    have to be small.
    """
    if outputs % 8 or not projected:
        return False
    if batch == 0 or per_image == 0:
        return False
    coarse = [sizes[i] for i in projected]
    gathered = sum([count for i, count in enumerate(channels) if i not in projected])
    cells = sum([batch * rows * width for rows, width in coarse])
    most = whole_steps(gathered) + _most_columns(coarse, batch, per_image)
    return most <= MOST_COLUMNS and cells < MOST_CELLS
