"""Gather: the hypercolumns at sparse points, all layers in one launch.

    h[p, column_i + c] = sum_j w_j(p) X_i[image(p), c, cell_j(p)]        j = 1 ... 4

and the derivative of the same expression with respect to the points' coordinates.
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
    axis_corners,
    axis_slope,
    corner_tile,
    layer_corners,
    layer_position,
    locate,
    size_of,
    stride_across,
    weighed,
)
from .blocks import block_of
from .direct import Launch
from .launch import (
    Layers,
    Points,
    accounted,
    channel_blocks,
    mode_of,
    options,
    points_of,
    starts,
)
from .pieces import piece_of, write_gathered
from .select import Key, Tile, tile_for

__all__ = ["GRADIENT_TILES", "TILES", "coordinate_gradient", "gather", "gather_like"]

# Points times channels of a program that moves rows, in pieces (pieces.py). Up to this limit of
# registers the compiler reads all corners before it waits for one; by itself it aims at more
# programs at a time, of which each waits several times.
TILES = (
    Tile(16, 256, num_warps=4, maxnreg=128),
    Tile(16, 128, num_warps=4, maxnreg=128),
    Tile(16, 64, num_warps=4, maxnreg=128),
    Tile(32, 128, num_warps=4, maxnreg=128),
    Tile(32, 64, num_warps=4, maxnreg=128),
)
# Points, and channels at a time.
GRADIENT_TILES = (
    Tile(16, 64, num_warps=4),
    Tile(16, 128, num_warps=4),
    Tile(32, 32, num_warps=4),
)


@accounted
def _gather_account(a: dict[str, Any]) -> tuple[float, float, torch.dtype]:
    """Corners are read, a row is written; a corner takes a multiplication and an addition."""
    corners = 4 if a["MODE"].bilinear else 1
    values, dtype = a["points"].total * sum(a["CHANNELS"]), a["out"].dtype
    return 2.0 * corners * values, (corners + 1.0) * values * dtype.itemsize, dtype


@triton.jit(launch_metadata=_gather_account)
def _gather_kernel(
    out,  # (P, row)
    row: tl.constexpr,
    points,
    layers,
    VECTORS: tl.constexpr,
    CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr,
    FIRSTS: tl.constexpr,
    MODE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PIECE: tl.constexpr,
):
    """h[p, column_i + c] = sum_j w_j(p) X_i[c, cell_j(p)] for one block of one layer."""
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    at = locate(points, p, MODE)
    for i in tl.static_range(len(layers)):
        block, inside = block_of(FIRSTS[i], CHANNELS[i], BLOCK_C)
        if inside:
            write_gathered(
                out + p.to(tl.int64)[:, None] * row,
                p < points.total,
                at,
                layers[i],
                block * BLOCK_C,
                COLUMNS[i],
                0,
                0,
                VECTORS[i],
                CHANNELS[i],
                CHANNELS[i],
                MODE,
                BLOCK_C,
                PIECE,
            )


def gather(s: Sampling, tile: Tile | None = None) -> Tensor:
    """h = S X: (P, sum C_i) in the maps' dtype."""
    run = s.once(("gather", tile), lambda: gather_like(s, tile))
    return run(s.features, points_of(s))


def gather_like(
    s: Sampling, tile: Tile | None = None
) -> Callable[[Sequence[Tensor], Points], Tensor]:
    """The gather of maps and points that are laid out as those of `s`."""
    channels, layers = s.channels, Layers(s.features, s.geometry.affine)
    if tile is None:
        dtype, contiguous = s.features[0].dtype, layers.contiguous
        key = Key(dtype, s.total, channels=min(channels), contiguous=contiguous)
        tile = tile_for("gather", TILES, key, s, partial(gather, s))
    firsts, blocks = channel_blocks(channels, tile.columns)
    shape = s.total, sum(channels)
    launch = Launch(
        _gather_kernel,
        (-(-s.total // tile.rows), blocks),
        "out points layers",
        row=shape[1],
        VECTORS=layers.vectors,
        CHANNELS=channels,
        COLUMNS=starts(channels),
        FIRSTS=firsts,
        MODE=mode_of(s),
        BLOCK_P=tile.rows,
        BLOCK_C=tile.columns,
        PIECE=piece_of(tile, s.features[0].itemsize),
        **options(tile),
    )

    def run(features: Sequence[Tensor], points: Points) -> Tensor:
        out = features[0].new_empty(*shape)
        launch(out, points, layers(features))
        return out

    return run


@accounted
def _coordinate_account(a: dict[str, Any]) -> tuple[float, float, torch.dtype]:
    """Corners and the upstream row are read; a corner takes a product for the sum over channels."""
    values, dtype = a["points"].total * sum(a["CHANNELS"]), a["layers"][0].map.dtype
    moved = values * (4.0 * dtype.itemsize + a["grad"].itemsize) + 8.0 * a["points"].total
    return 8.0 * values, moved, dtype


@triton.jit(launch_metadata=_coordinate_account)
def _coordinate_gradient_kernel(
    out,  # (P, 2) float32
    grad,  # (P, row)
    row: tl.constexpr,
    points,
    layers,
    VECTORS: tl.constexpr,
    CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr,
    MODE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """dL/dx_p = sum_i sum_c grad[p, column_i + c] sum_j dw_j/dx X_i[c, cell_j], dL/dy_p alike."""
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    at = locate(points, p, MODE)
    grad_x = tl.zeros((BLOCK_P,), tl.float32)
    grad_y = tl.zeros((BLOCK_P,), tl.float32)
    rows = tl.minimum(p, points.total - 1).to(tl.int64) * row
    for i in tl.static_range(len(layers)):
        axes, size = layers[i].axes, size_of(layers[i])
        offsets, _weights = layer_corners(at, layers[i], VECTORS[i], MODE)
        tx, ty = layer_position(at.x, at.y, layers[i], MODE)
        _x0, _x1, wx0, wx1 = axis_corners(tx, size[1], MODE)
        _y0, _y1, wy0, wy1 = axis_corners(ty, size[0], MODE)
        sx0, sx1 = axis_slope(at.x, axes[0], size[1], MODE)
        sy0, sy1 = axis_slope(at.y, axes[1], size[0], MODE)
        slopes_x = (wy0 * sx0, wy0 * sx1, wy1 * sx0, wy1 * sx1)
        slopes_y = (sy0 * wx0, sy0 * wx1, sy1 * wx0, sy1 * wx1)
        for start in range(0, CHANNELS[i], BLOCK_C):
            c = start + tl.arange(0, BLOCK_C)
            c_mask = c < CHANNELS[i]
            g = tl.load(
                grad + rows[:, None] + (COLUMNS[i] + c)[None, :], mask=c_mask[None, :], other=0.0
            ).to(tl.float32)
            channel = c.to(tl.int64)[None, :] * stride_across(layers[i])
            # A corner's values serve both axes: read and summed up once, corner by corner, they
            # need few registers.
            for j in tl.static_range(4):
                address = layers[i].map + offsets[j][:, None] + channel
                seen = (slopes_x[j] != 0.0) | (slopes_y[j] != 0.0)
                dot = tl.sum(g * corner_tile(address, seen, c_mask, True), axis=1)
                grad_x += weighed(slopes_x[j], dot)
                grad_y += weighed(slopes_y[j], dot)
    address = out + 2 * p.to(tl.int64)
    tl.store(address, grad_x, mask=p < points.total)
    tl.store(address + 1, grad_y, mask=p < points.total)


def coordinate_gradient(
    grad: Tensor, columns: Sequence[int], s: Sampling, tile: Tile | None = None
) -> Tensor:
    """dL/d(x, y), (P, 2) float32, of bilinear interpolation.

    Layer i reads its upstream gradient from ``grad[:, columns[i] : columns[i] + C_i]``. One program
    owns a point: the sum over layers and channels has a fixed order.
    """
    columns = tuple(columns)
    key = ("coordinate_gradient", columns, grad.shape[1], tile)
    run = s.once(key, lambda: _coordinate_gradient_like(grad, columns, s, tile))
    return run(grad.contiguous(), s)


def _coordinate_gradient_like(
    grad: Tensor, columns: tuple[int, ...], s: Sampling, tile: Tile | None
) -> Callable[[Tensor, Sampling], Tensor]:
    """The gradient for tensors that are laid out as these."""
    if tile is None:
        key = Key(s.features[0].dtype, s.total, channels=min(s.channels))
        trial = partial(coordinate_gradient, grad, columns, s)
        tile = tile_for("coordinate_gradient", GRADIENT_TILES, key, s, trial)
    layers = Layers(s.features, s.geometry.affine)
    launch = Launch(
        _coordinate_gradient_kernel,
        (-(-s.total // tile.rows),),
        "out grad points layers",
        row=grad.shape[1],
        VECTORS=layers.vectors,
        CHANNELS=s.channels,
        COLUMNS=columns,
        MODE=mode_of(s),
        BLOCK_P=tile.rows,
        BLOCK_C=tile.columns,
        **options(tile),
    )

    def run(grad: Tensor, s: Sampling) -> Tensor:
        out = torch.empty((s.total, 2), dtype=torch.float32, device=grad.device)
        launch(out, grad, points_of(s), layers(s.features))
        return out

    return run
