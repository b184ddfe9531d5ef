"""Gather: the hypercolumns at sparse points, all layers in one launch.

    h[p, column_i + c] = sum_j w_j(p) X_i[image(p), c, cell_j(p)]        j = 1 ... 4

and the derivative of the same expression with respect to the points' coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .bilinear import (
    axis_corners,
    axis_position,
    axis_slope,
    corner_tile,
    gather_corners,
    layer_corners,
    load_points,
)
from .configs import GATHER_CONFIGS, GatherConfig, gather_config
from .launch import (
    LayerAffine,
    channel_blocks,
    launch_options,
    layer_arguments,
    point_arguments,
)
from .tuning import tunable

__all__ = ["coordinate_gradient", "gather"]


@triton.jit
def _gather_kernel(
    out,  # (P, row)
    row: tl.constexpr,
    points,
    batch_index,
    total,
    per_image,
    batch,
    maps,
    sizes,
    strides,
    affine,
    VECTORS: tl.constexpr,
    RAGGED: tl.constexpr,
    CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr,
    FIRSTS: tl.constexpr,
    BILINEAR: tl.constexpr,
    BORDER: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    x, y, image, mark = load_points(points, batch_index, p, total, per_image, batch, RAGGED)
    for i in tl.static_range(len(maps)):
        block = tl.program_id(1) - FIRSTS[i]
        if (block >= 0) & (block < tl.cdiv(CHANNELS[i], BLOCK_C)):
            offsets, weights = layer_corners(
                x, y, image, affine[i], sizes[i], strides[i], VECTORS[i], BILINEAR, BORDER
            )
            c = block * BLOCK_C + tl.arange(0, BLOCK_C)
            c_mask = c < CHANNELS[i]
            value = gather_corners(
                maps[i],
                offsets,
                weights,
                c,
                c_mask,
                strides[i][1],
                BILINEAR,
                CHANNELS[i] % BLOCK_C != 0,
            )
            address = out + p.to(tl.int64)[:, None] * row + (COLUMNS[i] + c)[None, :]
            value = (value + mark[:, None]).to(out.dtype.element_ty)
            tl.store(address, value, mask=(p < total)[:, None] & c_mask[None, :])


@tunable(GATHER_CONFIGS)
def gather(
    maps: Sequence[Tensor],
    points: Tensor,
    batch_index: Tensor | None,
    affine: Sequence[LayerAffine],
    bilinear: bool,
    border: bool,
    config: GatherConfig | None = None,
) -> Tensor:
    """(P, sum C_i) in the maps' dtype, for points (P, 2)."""
    channels = tuple(m.shape[1] for m in maps)
    columns = tuple(sum(channels[:i]) for i in range(len(channels)))
    config = config or gather_config(maps)
    firsts, blocks = channel_blocks(channels, config.block_c)
    out = torch.empty((points.shape[0], sum(channels)), dtype=maps[0].dtype, device=points.device)
    _gather_kernel[(triton.cdiv(points.shape[0], config.block_p), blocks)](
        out,
        out.stride(0),
        **point_arguments(points, batch_index, maps[0].shape[0]),
        **layer_arguments(maps, affine),
        CHANNELS=channels,
        COLUMNS=columns,
        FIRSTS=firsts,
        BILINEAR=bilinear,
        BORDER=border,
        BLOCK_P=config.block_p,
        BLOCK_C=config.block_c,
        **launch_options(config),
    )
    return out


@triton.jit
def _coordinate_gradient_kernel(
    out,  # (P, 2) float32
    grad,  # (P, row)
    row: tl.constexpr,
    points,
    batch_index,
    total,
    per_image,
    batch,
    maps,
    sizes,
    strides,
    affine,
    VECTORS: tl.constexpr,
    RAGGED: tl.constexpr,
    CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BORDER: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """dL/dx_p = sum_i sum_c grad[p, column_i + c] sum_j dw_j/dx X_i[c, cell_j], dL/dy_p alike."""
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    x, y, image, _mark = load_points(points, batch_index, p, total, per_image, batch, RAGGED)
    grad_x = tl.zeros((BLOCK_P,), tl.float32)
    grad_y = tl.zeros((BLOCK_P,), tl.float32)
    rows = tl.minimum(p, total - 1).to(tl.int64) * row
    for i in tl.static_range(len(maps)):
        offsets, _weights = layer_corners(
            x, y, image, affine[i], sizes[i], strides[i], VECTORS[i], True, BORDER
        )
        tx = axis_position(x, affine[i][0], affine[i][1], sizes[i][1], BORDER)
        ty = axis_position(y, affine[i][2], affine[i][3], sizes[i][0], BORDER)
        _x0, _x1, wx0, wx1 = axis_corners(tx, sizes[i][1], True, BORDER)
        _y0, _y1, wy0, wy1 = axis_corners(ty, sizes[i][0], True, BORDER)
        sx0, sx1 = axis_slope(x, affine[i][0], affine[i][1], sizes[i][1], BORDER)
        sy0, sy1 = axis_slope(y, affine[i][2], affine[i][3], sizes[i][0], BORDER)
        slopes_x = (wy0 * sx0, wy0 * sx1, wy1 * sx0, wy1 * sx1)
        slopes_y = (sy0 * wx0, sy0 * wx1, sy1 * wx0, sy1 * wx1)
        for start in range(0, CHANNELS[i], BLOCK_C):
            c = start + tl.arange(0, BLOCK_C)
            c_mask = c < CHANNELS[i]
            g = tl.load(
                grad + rows[:, None] + (COLUMNS[i] + c)[None, :], mask=c_mask[None, :], other=0.0
            ).to(tl.float32)
            channel = c.to(tl.int64)[None, :] * strides[i][1]
            # A corner's values serve both axes: read and summed up once, corner by corner, they
            # need few registers.
            for j in tl.static_range(4):
                corner = corner_tile(maps[i] + offsets[j][:, None] + channel, c_mask, True)
                dot = tl.sum(g * corner, axis=1)
                grad_x += dot * slopes_x[j]
                grad_y += dot * slopes_y[j]
    address = out + 2 * p.to(tl.int64)
    tl.store(address, grad_x, mask=p < total)
    tl.store(address + 1, grad_y, mask=p < total)


@tunable(GATHER_CONFIGS)
def coordinate_gradient(
    grad: Tensor,
    columns: Sequence[int],
    maps: Sequence[Tensor],
    points: Tensor,
    batch_index: Tensor | None,
    affine: Sequence[LayerAffine],
    border: bool,
    config: GatherConfig | None = None,
) -> Tensor:
    """(P, 2) float32: gradient of bilinear interpolation with respect to (x, y).

    Layer i reads its upstream gradient from ``grad[:, columns[i] : columns[i] + C_i]``, so that
    projected maps, whose gradients add up, may share columns. One program owns a point: the
    sum over layers and channels has a fixed order.
    """
    config = config or gather_config(maps)
    grad = grad.contiguous()
    out = torch.empty((points.shape[0], 2), dtype=torch.float32, device=points.device)
    _coordinate_gradient_kernel[(triton.cdiv(points.shape[0], config.block_p),)](
        out,
        grad,
        grad.stride(0),
        **point_arguments(points, batch_index, maps[0].shape[0]),
        **layer_arguments(maps, affine),
        CHANNELS=tuple(m.shape[1] for m in maps),
        COLUMNS=tuple(columns),
        BORDER=border,
        BLOCK_P=config.block_p,
        BLOCK_C=config.block_c,
        **launch_options(config),
    )
    return out
