"""Entries of the interpolation matrices as columns of A, in bands, and the table that tells where.

The points of a tile touch some rows of a map, one after another, a band; only its cells have
columns in A = [h | S_1 | S_2 ...], other cells in each tile. With R = [W^T ; Z_1 ; Z_2 ...],

    table[tile] = (begin, end_1, shift_1, end_2, shift_2 ...)

Columns up to end_i (and after those before) belong to map i, and column k meets row k + shift_i of
R. left.py writes A and the table, banded.py reads them.

In memory A is a list of blocks, ROWS points times STEP columns each: first the gathered columns of
every tile, then the bands, as close as bands.py proves that they may lie. Column k of a tile stands
in block k // STEP + begin, or before WIDTH in block k // STEP + tile WIDTH / STEP.
"""

import triton
import triton.language as tl

from .bilinear import hat, layer_position, locate, number, size_of

__all__ = ["block_of_step", "line_of", "shift_of", "write_bands"]


@triton.jit
def _touched(at, layer, MODE: tl.constexpr):
    """First and last row of a map, counted through all images, that some points touch."""
    _tx, ty = layer_position(at.x, at.y, layer, MODE)
    height = number(layer.size[0])
    last = height - 1
    image = at.image.to(tl.int32) * height
    low = tl.minimum(tl.maximum(tl.floor(ty).to(tl.int32), 0), last)
    high = tl.minimum(tl.maximum(tl.ceil(ty).to(tl.int32), 0), last)
    return tl.min(image + low, 0), tl.max(image + high, 0)


@triton.jit
def _divided(k, n):
    """k // n and k % n of whole numbers in float32, for 0 <= k < 2^21 and n > 0.

    Of a band k < 2^12 (`fits` in bands.py).

    Integers would take some twenty instructions for it. (k + 1/2) / n is 1 / (2 n) away from the
    next integer, which is more than the rounding of two operations. A plain division of Triton's
    errs by two units more.
    """
    quotient = tl.floor((k + 0.5) * tl.div_rn(1.0, n))
    return quotient, k - quotient * n


@triton.jit
def write_bands(
    left,
    table,
    first,
    points,
    bands,
    rows,
    gaps,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    STEP: tl.constexpr,
    STRIP: tl.constexpr,
    MODE: tl.constexpr,
):
    """S of STRIP points from `first` on, on the rows that the points of their tile touch."""
    p = first + tl.arange(0, STRIP)
    at = locate(points, p, MODE)
    tile, tiles = first // ROWS, tl.cdiv(points.total, ROWS)
    p_of_tile = tile * ROWS + tl.arange(0, ROWS)
    every = locate(points, p_of_tile, MODE)
    touched = ()
    begin = tile * number(gaps)
    for i in tl.static_range(len(bands)):
        low, high = _touched(every, bands[i], MODE)
        touched = touched + ((low, high),)  # type: ignore[assignment]
        begin += low * number(bands[i].size[1])
    begin = begin // STEP + (tiles - 1) * (WIDTH // STEP)
    line = table + tile.to(tl.int64) * (2 * len(bands) + 1)
    is_first = first % ROWS == 0
    if is_first:
        tl.store(line, begin)
    row = left + (p % ROWS)[:, None] * STEP
    column = WIDTH
    for i in tl.static_range(len(bands)):
        height, width = size_of(bands[i])
        tx, ty = layer_position(at.x, at.y, bands[i], MODE)
        low, high = touched[i]
        steps = tl.cdiv((high + 1 - low) * width, STEP)
        end = column + steps * STEP
        # Images and rows count from the band's first on, of which there are few.
        before = low // height
        top = (low - before * height).to(tl.float32)
        image = (at.image.to(tl.int32) - before).to(tl.float32)
        for step in range(steps):
            k = step * STEP + tl.arange(0, STEP)
            down, across = _divided(k.to(tl.float32), width.to(tl.float32))
            own, down = _divided(top + down, height.to(tl.float32))
            s = hat(tx[:, None], across[None, :], MODE) * hat(ty[:, None], down[None, :], MODE)
            s = tl.where(own[None, :] == image[:, None], s, 0.0)
            value = (s + at.mark[:, None]).to(left.dtype.element_ty)
            block = (begin + column // STEP + step).to(tl.int64)
            tl.store(row + block * (ROWS * STEP) + tl.arange(0, STEP)[None, :], value)
        if is_first:
            start = low * width
            tl.store(line + 2 * i + 1, end)
            tl.store(line + 2 * i + 2, number(rows[i]) + start - column)
        column = end


@triton.jit
def line_of(table, tile, BANDS: tl.constexpr):
    """Where the bands of a tile begin and end in A, and how far its columns are from rows of R."""
    line = table + tile.to(tl.int64) * (2 * BANDS + 1)
    ends, shifts = (), ()
    for i in tl.static_range(BANDS):
        ends = ends + (tl.load(line + 2 * i + 1),)  # type: ignore[assignment]
        shifts = shifts + (tl.load(line + 2 * i + 2),)  # type: ignore[assignment]
    return tl.load(line), ends, shifts


@triton.jit
def block_of_step(k, tile, begin, WIDTH: tl.constexpr, STEP: tl.constexpr):
    """The block of A that holds column k of a tile."""
    return tl.where(k < WIDTH, tile * (WIDTH // STEP), begin) + k // STEP


@triton.jit
def shift_of(k, ends, shifts, WIDTH: tl.constexpr):
    """From column k of A to its row of R."""
    shift = shifts[len(shifts) - 1]
    for i in tl.static_range(len(shifts) - 2, -1, -1):
        shift = tl.where(k < ends[i], shifts[i], shift)
    return tl.where(k < WIDTH, 0, shift)
