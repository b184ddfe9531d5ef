"""Band: the transpose of the gather, from points back to the cells of every layer, without atomics.

    out_i[image, c, cell] = sum over points p of  S_i[p, cell] rows[p, column_i + c]

A program owns rows of a map, times some of its columns and channels: a tile of cells. Points come
in order of (image, y), so that those which touch the tile's rows are one run. The program walks it,
builds the weights S_i^T (cells x points) in registers, multiplies them with the rows of the run,
and writes its tile once, in the map's own dtype, zeros included. Sums have a fixed order.

With rows = U = G W_i this is the gradient of a gathered layer; with rows = G, the same columns for
all layers, it is Q_i = S_i^T G of projected ones.

A tile that comes out with a number that is not finite is computed again, without products by a
weight of 0 (careful.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..call.sampling import Sampling
from .bilinear import (
    hat,
    layer_position,
    load_points,
    number,
    size_of,
    stride_across,
    strides_of,
)
from .blocks import all_finite, channels_of, dot
from .careful import write_cell_by_cell
from .cut import cut
from .direct import Launch
from .launch import (
    Layers,
    Points,
    accounted,
    capability,
    coded,
    decoded,
    mode_of,
    options,
    points_of,
    precision,
)
from .order import Order
from .ruler import windows_of
from .select import Key, Tile, tile_for

__all__ = ["SHARED_TILES", "TILES", "band", "band_like"]

# Cells times channels, points a step. On an H200 the gathered layers of the benchmarks' W4 (256
# channels and more) took 119 us with the second and 137 with the third, of W2 (64) 44 and 39. The
# limits on registers let four programs share a multiprocessor; in float32 they would spill. The
# widest has not run yet: two programs share a multiprocessor, and issue two thirds of the second's
# instructions for the same results, because weights and what surrounds the loop are for more.
TILES = (
    Tile(64, 256, 16, num_warps=4, num_stages=3),
    Tile(64, 128, 16, num_warps=4, num_stages=3, maxnreg=128),
    Tile(128, 64, 32, num_warps=4, num_stages=2, maxnreg=128),
    Tile(64, 64, 16, num_warps=4, num_stages=3),
    Tile(32, 32, 16, num_warps=4, num_stages=2),
)
# The same, where layers share their columns, which are many.
SHARED_TILES = (
    Tile(64, 256, 32, num_warps=4, num_stages=3),
    Tile(64, 128, 32, num_warps=4, num_stages=3),
    Tile(64, 64, 32, num_warps=4, num_stages=3),
    Tile(32, 32, 16, num_warps=4, num_stages=2),
)


@accounted
def _account(a: dict[str, Any]) -> tuple[float, float, torch.dtype]:
    """Every point is read, and multiplied, for the rows that it touches, two on each layer."""
    total, rows = a["points"].total, a["rows"]
    flops = moved = 0.0
    for channels, width, layer in zip(a["CHANNELS"], a["WIDTHS"], a["layers"], strict=True):
        copies = 2 * -(-decoded(layer.size[1]) // width)
        flops += 2.0 * total * copies * width * channels
        moved += rows.itemsize * (copies * total * channels) + layer.map.nbytes
    return flops, moved, rows.dtype


@triton.jit
def _transposed_weights(points, k, end, row, column, layer, MODE: tl.constexpr):
    """S^T (cells, points k); 0 for places from `end` on; points not finite count as (0, 0)."""
    x, y, finite = load_points(points, tl.minimum(k, end - 1))
    tx, ty = layer_position(tl.where(finite, x, 0.0), tl.where(finite, y, 0.0), layer, MODE)
    ty = tl.where(k < end, ty, -8.0)
    s = hat(tx[None, :], column.to(tl.float32)[:, None], MODE)
    return s * hat(ty[None, :], row.to(tl.float32)[:, None], MODE)


@triton.jit
def _band_tile(
    rows,
    points,
    starts,
    window,
    last_bin,
    layer,
    image,
    group,
    strip,
    block,
    ROW: tl.constexpr,
    SPACES: tl.constexpr,
    VECTOR: tl.constexpr,
    CHANNELS: tl.constexpr,
    COLUMN: tl.constexpr,
    WIDTH: tl.constexpr,
    MODE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """One tile: `group` counts rows of tiles, `strip` tiles of a row, `block` channels."""
    size, strides = size_of(layer), strides_of(layer)
    HEIGHT: tl.constexpr = BLOCK_S // WIDTH
    cell = tl.arange(0, BLOCK_S)
    row = group * HEIGHT + cell // WIDTH
    column = strip * WIDTH + cell % WIDTH
    first, last = group * HEIGHT, group * HEIGHT + HEIGHT - 1
    low = tl.floor(first * window.scale + window.low)
    high = tl.floor(last * window.scale + window.high)
    # The outermost rows take all that lies beyond them.
    low = tl.where(first == 0, 0.0, tl.minimum(tl.maximum(low, 0.0), last_bin))
    high = tl.where(last >= size[0] - 1, last_bin, tl.minimum(tl.maximum(high, 0.0), last_bin))
    bins = starts + image.to(tl.int64) * SPACES
    begin = tl.load(bins + low.to(tl.int32))
    end = tl.load(bins + high.to(tl.int32) + 1)
    c, c_mask = channels_of(block, CHANNELS, BLOCK_C)
    acc = tl.zeros((BLOCK_S, BLOCK_C), tl.float32)
    for start in range(begin, end, BLOCK_P):
        k = start + tl.arange(0, BLOCK_P)
        address = rows + tl.minimum(k, end - 1)[:, None] * ROW + (COLUMN + c)[None, :]
        if CHANNELS % BLOCK_C == 0:
            value = tl.load(address)
        else:
            value = tl.load(address, mask=c_mask[None, :], other=0.0)
        s = _transposed_weights(points, k, end, row, column, layer, MODE)
        acc = dot(s.to(value.dtype), value, acc, PRECISION)
    if all_finite(acc):
        offset = (
            image.to(tl.int64) * strides[0]
            + row.to(tl.int64) * strides[1]
            + column.to(tl.int64) * strides[2]
        )
        offset *= VECTOR  # as in bilinear.py
        inside = (row < size[0]) & (column < size[1])
        address = layer.map + offset[:, None] + c.to(tl.int64)[None, :] * stride_across(layer)
        value = acc.to(layer.map.dtype.element_ty)
        tl.store(address, value, mask=inside[:, None] & c_mask[None, :])
    else:
        write_cell_by_cell(
            rows + COLUMN,
            points,
            begin,
            end,
            layer,
            image,
            first,
            strip * WIDTH,
            c,
            c_mask,
            ROW,
            VECTOR,
            WIDTH,
            MODE,
            BLOCK_S,
        )


@triton.jit(launch_metadata=_account)
def _band_kernel(
    rows,  # (P, ROW), in order
    points,  # in order
    starts,  # (B, SPACES)
    windows,  # of each layer
    last_bin,
    layers,  # gradients
    programs,  # for each layer its first program, and the first that is no longer its own
    period,  # programs of all layers for one image and block of channels, where columns are shared
    VECTORS: tl.constexpr,
    CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTHS: tl.constexpr,
    SHARED: tl.constexpr,
    ROW: tl.constexpr,
    SPACES: tl.constexpr,
    MODE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Every cell of every layer, tile by tile.

    SHARED: all layers read the same columns, so the programs of one image and block of channels
    are neighbours, and find them in L2.
    """
    for i in tl.static_range(len(layers)):
        program = tl.program_id(0)
        turn = number(period)
        begin, end = number(programs[i][0]), number(programs[i][1])
        if SHARED:
            program = program % turn
        if (program >= begin) & (program < end):
            size = size_of(layers[i])
            blocks = (CHANNELS[i] + BLOCK_C - 1) // BLOCK_C
            strips = (size[1] + WIDTHS[i] - 1) // WIDTHS[i]
            groups = (size[0] + BLOCK_S // WIDTHS[i] - 1) // (BLOCK_S // WIDTHS[i])
            local = program - begin
            if SHARED:
                block = tl.program_id(0) // turn % blocks
                image = tl.program_id(0) // turn // blocks
            else:
                block = local % blocks
                local = local // blocks
                image = local // strips // groups
            _band_tile(
                rows,
                points,
                starts,
                windows[i],
                last_bin,
                layers[i],
                image,
                local // strips % groups,
                local % strips,
                block,
                ROW,
                SPACES,
                VECTORS[i],
                CHANNELS[i],
                COLUMNS[i],
                WIDTHS[i],
                MODE,
                PRECISION,
                BLOCK_S,
                BLOCK_C,
                BLOCK_P,
            )


def band(
    rows: Tensor,
    columns: Sequence[int] | None,
    s: Sampling,
    order: Order,
    tile: Tile | None = None,
) -> None:
    """Write S_i^T rows to every cell of ``s.features`` (B, C_i, H_i, W_i), of any strides.

    ``rows`` (P, row) stand in `order`; layer i takes ``rows[:, columns[i] : columns[i] + C_i]``, or
    all of them where `columns` is None. Sums are float32. The same inputs give the same bits.
    """
    columns = None if columns is None else tuple(columns)
    key = ("band", columns, rows.shape[1], tile)
    run = s.once(key, lambda: band_like(rows, columns, s, order, tile))
    run(rows.contiguous(), points_of(order.of(s)), order.starts, s.features)


def band_like(
    rows: Tensor,
    columns: tuple[int, ...] | None,
    s: Sampling,
    order: Order,
    tile: Tile | None = None,
) -> Callable[[Tensor, Points, Tensor, Sequence[Tensor]], None]:
    """The same for tensors that are laid out as these: rows, points in order, starts and maps."""
    channels, sizes, ruler = s.channels, s.sizes, order.ruler
    shared = columns is None
    if tile is None:
        key = Key(rows.dtype, s.total, channels=min(channels), capability=capability())
        name, tiles = ("collect", SHARED_TILES) if shared else ("scatter", TILES)
        tile = tile_for(name, tiles, key, s, partial(band, rows, columns, s, order))
    tiled = cut(channels, sizes, s.batch, shared, tile.rows, tile.columns)
    layers = Layers(s.features, s.geometry.affine)
    launch = Launch(
        _band_kernel,
        (tiled.grid,),
        "rows points starts layers",
        windows=windows_of(s, ruler),
        last_bin=float(ruler.bins - 1),
        programs=tuple([(coded(first), coded(end)) for first, end in tiled.programs]),
        period=coded(tiled.period),
        VECTORS=layers.vectors,
        CHANNELS=channels,
        COLUMNS=columns or (0,) * len(channels),
        WIDTHS=tiled.widths,
        SHARED=shared,
        ROW=rows.shape[1],
        SPACES=ruler.spaces,
        MODE=mode_of(s)._replace(ragged=False),  # the order has the images
        PRECISION=precision(rows.dtype, tf32=False),  # of interpolation, not of a product
        BLOCK_S=tile.rows,
        BLOCK_C=tiled.block,
        BLOCK_P=tile.terms,
        **options(tile),
    )

    def run(rows: Tensor, points: Points, starts: Tensor, features: Sequence[Tensor]) -> None:
        launch(rows, points, starts, layers(features))

    return run
