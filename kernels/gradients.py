"""The backward of the one-pass kernel, without the hypercolumns: they are gathered again.

With G = dL/dz (P, D), for the layers that gather first:

    dW_i = G^T (S_i X_i)          weight_gradient: the right operand is interpolated in registers
    dX_i = S_i^T (G W_i)          feature_gradient: the product is scattered from registers
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..call.sampling import Sampling
from .bilinear import gather_corners, layer_corners, locate
from .blocks import block_of, channels_of, dot
from .launch import (
    accounted,
    channel_blocks,
    matrix,
    options,
    precision,
    row_vector,
    sampling_arguments,
    starts,
)
from .scatter import cleared, scatter_corners
from .select import Key, Tile, tile_for

__all__ = ["FEATURE_TILES", "WEIGHT_TILES", "feature_gradient", "weight_gradient"]

# Outputs times channels, points a step. sm_90, bfloat16, registers a thread: 128x64 158, 64x64 122,
# 128x128 163, 32x32 64; none spilled.
WEIGHT_TILES = (
    Tile(128, 64, 32, num_warps=4, num_stages=3, programs=264),
    Tile(64, 64, 32, num_warps=4, num_stages=3, programs=264),
    Tile(128, 128, 32, num_warps=8, num_stages=3, programs=264),
    Tile(32, 32, 32, num_warps=4, num_stages=2, programs=264),
)


@accounted
def _weight_account(a: dict[str, Any]) -> tuple[float, float, torch.dtype]:
    """Corners are read once for each tile of outputs, G once for each block of channels."""
    total, outputs, grad = a["points"].total, a["D"], a["grad"]
    channels, (rows, blocks) = sum(a["CHANNELS"]), (-(-a["D"] // a["BLOCK_D"]), a["FIRSTS"][-1] + 1)
    corners = 4 if a["MODE"].bilinear else 1
    read = corners * total * channels * rows + total * outputs * blocks
    return 2.0 * total * channels * outputs, read * grad.itemsize + a["out"].nbytes, grad.dtype


@triton.jit(launch_metadata=_weight_account)
def _weight_gradient_kernel(
    out,  # (SPLITS, D, row) float32
    row: tl.constexpr,
    grad,  # (P, D)
    points,
    share,  # points of each split, a multiple of BLOCK_P
    layers,
    VECTORS: tl.constexpr,
    CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr,
    FIRSTS: tl.constexpr,
    D: tl.constexpr,
    MODE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """dW[d, column_i + c] = sum_p G[p, d] (S_i X_i)[p, c]; the sum runs over one split's points."""
    d = tl.program_id(0) * BLOCK_D + tl.arange(0, BLOCK_D)
    d_mask = d < D
    split = tl.program_id(2).to(tl.int64)
    begin = split * share
    end = tl.minimum(begin + share, points.total)
    for i in tl.static_range(len(layers)):
        block, inside = block_of(FIRSTS[i], CHANNELS[i], BLOCK_C)
        if inside:
            c, c_mask = channels_of(block, CHANNELS[i], BLOCK_C)
            acc = tl.zeros((BLOCK_D, BLOCK_C), tl.float32)
            for start in range(begin, end, BLOCK_P):
                p = start + tl.arange(0, BLOCK_P)
                at = locate(points, p, MODE)
                corners = layer_corners(at, layers[i], VECTORS[i], MODE)
                h = gather_corners(layers[i], corners, c, c_mask, CHANNELS[i] % BLOCK_C != 0, MODE)
                # G is read transposed from memory, not transposed in registers: a miscompile of
                # dot(trans(register tile), ...) on Hopper is on record for Triton >= 3.4.
                g = tl.load(
                    grad + p.to(tl.int64)[None, :] * D + d[:, None],
                    mask=d_mask[:, None] & (p < end)[None, :],
                    other=0.0,
                )
                acc = dot(g, h.to(g.dtype), acc, PRECISION)
            address = out + (split * D + d)[:, None] * row + (COLUMNS[i] + c)[None, :]
            tl.store(address, acc, mask=d_mask[:, None] & c_mask[None, :])


def weight_gradient(grad: Tensor, s: Sampling, tile: Tile | None = None) -> Tensor:
    """G^T (S X), (D, sum C_i) float32, for grad = G (P, D).

    Points are split over programs where outputs alone do not fill the device; the partial sums
    are added in a fixed order, so the result is the same from run to run.
    """
    (total, outputs), channels = grad.shape, s.channels
    if tile is None:
        key = Key(grad.dtype, total, outputs, min(channels))
        trial = partial(weight_gradient, grad, s)
        tile = tile_for("weight_gradient", WEIGHT_TILES, key, s, trial)
    firsts, blocks = channel_blocks(channels, tile.columns)
    rows, steps = -(-outputs // tile.rows), -(-total // tile.terms)
    splits = max(1, min(tile.programs // (rows * blocks), steps))
    share = -(-steps // splits) * tile.terms
    splits = -(-total // share)
    out = torch.empty((splits, outputs, sum(channels)), dtype=torch.float32, device=grad.device)
    _weight_gradient_kernel[(rows, blocks, splits)](
        out,
        out.stride(1),
        grad.contiguous(),
        share=share,
        **sampling_arguments(s),
        COLUMNS=starts(channels),
        FIRSTS=firsts,
        D=outputs,
        BLOCK_D=tile.rows,
        BLOCK_C=tile.columns,
        BLOCK_P=tile.terms,
        PRECISION=precision(grad.dtype),
        **options(tile),
    )
    return out[0] if splits == 1 else out.sum(0)


# Points times channels, outputs a step. sm_90, bfloat16: 128x64 190, 64x64 216, 32x32 56; none
# spilled. A tile of 128x128, whose four scatters follow each other, spills 1,336 bytes.
FEATURE_TILES = (
    Tile(128, 64, 32, num_warps=4, num_stages=3),
    Tile(64, 64, 32, num_warps=4, num_stages=3),
    Tile(32, 32, 32, num_warps=4, num_stages=2),
)


@accounted
def _feature_account(a: dict[str, Any]) -> tuple[float, float, torch.dtype]:
    """G is read for each block of channels, W for each tile of points; corners add in float32."""
    total, outputs, grad = a["points"].total, a["D"], a["grad"]
    channels, blocks = sum(a["CHANNELS"]), a["FIRSTS"][-1] + 1
    corners = 4 if a["MODE"].bilinear else 1
    read = total * outputs * blocks + -(-total // a["BLOCK_P"]) * outputs * channels
    moved = read * grad.itemsize + 4.0 * corners * total * channels
    return 2.0 * total * channels * (outputs + corners), moved, grad.dtype


@triton.jit(launch_metadata=_feature_account)
def _feature_gradient_kernel(
    grad,  # (P, D)
    weight,  # (D, sum of all layers' channels)
    outputs,  # D once more
    points,
    layers,  # of float32 accumulators
    VECTORS: tl.constexpr,
    CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr,
    FIRSTS: tl.constexpr,
    WEIGHT_VECTOR: tl.constexpr,
    D: tl.constexpr,
    MODE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """dX_i[c, cell_j(p)] += w_j(p) sum_d G[p, d] W[d, column_i + c]."""
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    p_mask = p < points.total
    rows = tl.minimum(p, points.total - 1).to(tl.int64) * D
    at = locate(points, p, MODE)
    for i in tl.static_range(len(layers)):
        block, inside = block_of(FIRSTS[i], CHANNELS[i], BLOCK_C)
        if inside:
            c, c_mask = channels_of(block, CHANNELS[i], BLOCK_C)
            acc = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
            # In the loop the compiler lifts this out too late: 32 bytes were spilled on sm_100.
            column = (COLUMNS[i] + c).to(tl.int64) * weight.strides[1]
            # The bound is a runtime value: with a constant one the compiler unrolls the whole loop,
            # which spilled 1,384 bytes of registers at D = 512 and took minutes to compile.
            for start in range(0, outputs, BLOCK_D):
                d = start + tl.arange(0, BLOCK_D)
                d_mask = d < D
                g = tl.load(
                    grad + rows[:, None] + d[None, :],
                    mask=p_mask[:, None] & d_mask[None, :],
                    other=0.0,
                )
                w_row = tl.multiple_of(d.to(tl.int64) * weight.strides[0], WEIGHT_VECTOR)
                w = tl.load(
                    weight.data + w_row[:, None] + column[None, :],
                    mask=d_mask[:, None] & c_mask[None, :],
                    other=0.0,
                )
                acc = dot(g, w, acc, PRECISION)
            corners = layer_corners(at, layers[i], VECTORS[i], MODE)
            mask = p_mask[:, None] & c_mask[None, :]
            scatter_corners(layers[i], acc, corners, c, mask, MODE)


def feature_gradient(
    grad: Tensor, weight: Tensor, columns: Sequence[int], s: Sampling, tile: Tile | None = None
) -> None:
    """Add S_i^T (G W_i) to ``s.features``, float32 accumulators (B, C_i, H_i, W_i), by atomics.

    Layer i uses ``weight[:, columns[i] : columns[i] + C_i]``.
    """
    (total, outputs), channels = grad.shape, s.channels
    if tile is None:
        key = Key(grad.dtype, total, outputs, min(channels))

        def trial(tile: Tile) -> None:
            feature_gradient(grad, weight, columns, cleared(s), tile)

        tile = tile_for("feature_gradient", FEATURE_TILES, key, s, trial)
    firsts, blocks = channel_blocks(channels, tile.columns)
    _feature_gradient_kernel[(-(-total // tile.rows), blocks)](
        grad.contiguous(),
        matrix(weight),
        outputs,
        **sampling_arguments(s),
        COLUMNS=tuple(columns),
        FIRSTS=firsts,
        WEIGHT_VECTOR=row_vector(weight),
        D=outputs,
        BLOCK_P=tile.rows,
        BLOCK_C=tile.columns,
        BLOCK_D=tile.terms,
        PRECISION=precision(grad.dtype),
        **options(tile),
    )
