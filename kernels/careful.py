"""The second way of products with S: without the terms whose weight is 0.

A product takes whole tiles, entries of S that are 0 among them, and 0 times a number that is not
finite is NaN: it would reach points (or cells) that see nothing of it. So band.py and banded.py
look at their sums; where one is not finite, a tile is summed again, term by term, by a function of
this file. They are slow, and written to take few registers, of which the usual way so keeps all.

A term counts if its weight is not 0 in the dtype of the product.
"""

import triton
import triton.language as tl

from .bilinear import (
    hat,
    layer_position,
    load_points,
    number,
    size_of,
    stride_across,
    strides_of,
    weighed,
)
from .entries import block_of_step, shift_of

__all__ = ["sum_term_by_term", "write_cell_by_cell"]


@triton.jit
def write_cell_by_cell(
    rows,
    points,
    begin,
    end,
    layer,
    image,
    first_row,
    first_column,
    c,
    c_mask,
    ROW: tl.constexpr,
    VECTOR: tl.constexpr,
    WIDTH: tl.constexpr,
    MODE: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """S_i^T rows for the cells of a tile, one at a time, over the points `begin` to `end`."""
    size, strides = size_of(layer), strides_of(layer)
    zero = tl.full((), 0, tl.int64)
    for cell in range(BLOCK_S):
        row = first_row + cell // WIDTH
        column = first_column + cell % WIDTH
        if (row < size[0]) & (column < size[1]):
            acc = tl.zeros((c.shape[0],), tl.float32)
            for k in range(begin, end):
                x, y, finite = load_points(points, k)
                x, y = tl.where(finite, x, 0.0), tl.where(finite, y, 0.0)
                tx, ty = layer_position(x, y, layer, MODE)
                s = hat(tx, column * 1.0, MODE) * hat(ty, row * 1.0, MODE)
                value = tl.load(rows + k * ROW + c, mask=c_mask, other=0.0)
                acc += weighed(s.to(value.dtype).to(tl.float32), value.to(tl.float32))
            offset = image.to(tl.int64) * strides[0] + (zero + row) * strides[1]
            address = layer.map + (offset + (zero + column) * strides[2]) * VECTOR
            address += c.to(tl.int64) * stride_across(layer)
            tl.store(address, acc.to(layer.map.dtype.element_ty), mask=c_mask)


@triton.jit
def sum_term_by_term(
    product,
    tile,
    begin,
    ends,
    shifts,
    d,
    D,
    WIDTH: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """(A R)[p, d] of a tile of points: gathered columns as they are, entries of S as weights."""
    acc = tl.zeros((BLOCK_P, d.shape[0]), tl.float32)
    row_of_block = tl.arange(0, BLOCK_P) * BLOCK_K
    for k in range(ends[len(ends) - 1]):
        block = block_of_step(k, tile, begin, WIDTH, BLOCK_K).to(tl.int64)
        row = tl.full((), 0, tl.int64) + k + shift_of(k, ends, shifts, WIDTH)
        mask = (d < D) & (row < number(product.rows))
        a = tl.load(product.left + block * (BLOCK_P * BLOCK_K) + k % BLOCK_K + row_of_block)
        a = a.to(tl.float32)[:, None]
        b = tl.load(product.right + row * D + d, mask=mask, other=0.0).to(tl.float32)[None, :]
        acc += tl.where(k < WIDTH, a * b, weighed(a, b))
    return acc
