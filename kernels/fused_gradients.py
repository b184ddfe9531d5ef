"""The backward of the one-pass kernel, without the hypercolumns: they are gathered again.

With G = dL/dz (P, D), for the layers that gather first:

    dW_i = G^T (S_i X_i)          weight_gradient: the right operand is interpolated in registers
    dX_i = S_i^T (G W_i)          feature_gradient: the product is scattered from registers

and for those that project first Q_i = S_i^T G, from which dW_i = Q_i^T X_i and dX_i = Q_i W_i
are plain products: transposed_product computes Q_i as a product, with S_i^T in registers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .bilinear import axis_position, gather_corners, hat, layer_corners, load_points
from .configs import (
    FEATURE_GRADIENT_CONFIGS,
    TRANSPOSED_CONFIGS,
    WEIGHT_GRADIENT_CONFIGS,
    GradientConfig,
    TransposedConfig,
    feature_gradient_config,
    transposed_config,
    weight_gradient_config,
)
from .fused_linear import dot
from .launch import (
    LayerAffine,
    channel_blocks,
    launch_options,
    layer_arguments,
    point_arguments,
    precision_arguments,
    row_vector,
)
from .scatter import scatter_corners
from .tuning import tunable

__all__ = ["feature_gradient", "transposed_product", "weight_gradient"]


@triton.jit
def _weight_gradient_kernel(
    out,  # (SPLITS, D, row) float32
    row: tl.constexpr,
    grad,  # (P, D)
    points,
    batch_index,
    total,
    per_image,
    batch,
    share,  # points of each split, a multiple of BLOCK_K
    maps,
    sizes,
    strides,
    affine,
    VECTORS: tl.constexpr,
    RAGGED: tl.constexpr,
    CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr,
    FIRSTS: tl.constexpr,
    D: tl.constexpr,
    BILINEAR: tl.constexpr,
    BORDER: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """dW[d, column_i + c] = sum_p G[p, d] (S_i X_i)[p, c]; the sum runs over one split's points."""
    d = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    d_mask = d < D
    split = tl.program_id(2).to(tl.int64)
    begin = split * share
    end = tl.minimum(begin + share, total)
    for i in tl.static_range(len(maps)):
        block = tl.program_id(1) - FIRSTS[i]
        if (block >= 0) & (block < tl.cdiv(CHANNELS[i], BLOCK_C)):
            c = block * BLOCK_C + tl.arange(0, BLOCK_C)
            c_mask = c < CHANNELS[i]
            acc = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
            for start in range(begin, end, BLOCK_K):
                p = start + tl.arange(0, BLOCK_K)
                x, y, image, _mark = load_points(
                    points, batch_index, p, total, per_image, batch, RAGGED
                )
                offsets, weights = layer_corners(
                    x, y, image, affine[i], sizes[i], strides[i], VECTORS[i], BILINEAR, BORDER
                )
                h = gather_corners(
                    maps[i],
                    offsets,
                    weights,
                    c,
                    c_mask,
                    strides[i][1],
                    BILINEAR,
                    CHANNELS[i] % BLOCK_C != 0,
                )
                # G is read transposed from memory, not transposed in registers: a miscompile of
                # dot(trans(register tile), ...) on Hopper is on record for Triton >= 3.4.
                g = tl.load(
                    grad + p.to(tl.int64)[None, :] * D + d[:, None],
                    mask=d_mask[:, None] & (p < end)[None, :],
                    other=0.0,
                )
                acc = dot(g, h.to(g.dtype), acc, PRECISION, UPCAST)
            address = out + (split * D + d)[:, None] * row + (COLUMNS[i] + c)[None, :]
            tl.store(address, acc, mask=d_mask[:, None] & c_mask[None, :])


@tunable(WEIGHT_GRADIENT_CONFIGS)
def weight_gradient(
    grad: Tensor,
    maps: Sequence[Tensor],
    points: Tensor,
    batch_index: Tensor | None,
    affine: Sequence[LayerAffine],
    bilinear: bool,
    border: bool,
    config: GradientConfig | None = None,
) -> Tensor:
    """(D, sum C_i) float32 over the given layers, in their order, for grad (P, D).

    Points are split over programs where outputs alone do not fill the device; the partial sums
    are added in a fixed order, so the result is the same from run to run.
    """
    total, features_out = grad.shape
    channels = tuple(m.shape[1] for m in maps)
    config = config or weight_gradient_config(grad.dtype)
    firsts, blocks = channel_blocks(channels, config.block_n)
    rows = triton.cdiv(features_out, config.block_m)
    steps = triton.cdiv(total, config.block_k)
    splits = max(1, min(config.programs // (rows * blocks), steps))
    share = triton.cdiv(steps, splits) * config.block_k
    splits = triton.cdiv(total, share)
    out = torch.empty(
        (splits, features_out, sum(channels)), dtype=torch.float32, device=grad.device
    )
    _weight_gradient_kernel[(rows, blocks, splits)](
        out,
        out.stride(1),
        grad.contiguous(),
        **point_arguments(points, batch_index, maps[0].shape[0]),
        share=share,
        **layer_arguments(maps, affine),
        CHANNELS=channels,
        COLUMNS=tuple(sum(channels[:i]) for i in range(len(channels))),
        FIRSTS=firsts,
        D=features_out,
        BILINEAR=bilinear,
        BORDER=border,
        BLOCK_M=config.block_m,
        BLOCK_C=config.block_n,
        BLOCK_K=config.block_k,
        **precision_arguments(grad.dtype),
        **launch_options(config),
    )
    return out[0] if splits == 1 else out.sum(0)


@triton.jit
def _feature_gradient_kernel(
    grad,  # (P, D)
    weight,  # (D, sum of all layers' channels)
    stride_wd,
    stride_wc,
    outputs,  # D once more
    points,
    batch_index,
    total,
    per_image,
    batch,
    maps,  # float32 accumulators
    sizes,
    strides,
    affine,
    VECTORS: tl.constexpr,
    RAGGED: tl.constexpr,
    CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr,
    FIRSTS: tl.constexpr,
    WEIGHT_VECTOR: tl.constexpr,
    D: tl.constexpr,
    BILINEAR: tl.constexpr,
    BORDER: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """dX_i[c, cell_j(p)] += w_j(p) sum_d G[p, d] W[d, column_i + c]."""
    p = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    p_mask = p < total
    rows = tl.minimum(p, total - 1).to(tl.int64) * D
    x, y, image, _mark = load_points(points, batch_index, p, total, per_image, batch, RAGGED)
    for i in tl.static_range(len(maps)):
        block = tl.program_id(1) - FIRSTS[i]
        if (block >= 0) & (block < tl.cdiv(CHANNELS[i], BLOCK_C)):
            c = block * BLOCK_C + tl.arange(0, BLOCK_C)
            c_mask = c < CHANNELS[i]
            column = (COLUMNS[i] + c).to(tl.int64) * stride_wc
            acc = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
            # The bound is a runtime value: with a constant one the compiler unrolls the whole loop,
            # which spilled 1,384 bytes of registers at D = 512 and took minutes to compile.
            for start in range(0, outputs, BLOCK_K):
                d = start + tl.arange(0, BLOCK_K)
                d_mask = d < D
                g = tl.load(
                    grad + rows[:, None] + d[None, :],
                    mask=p_mask[:, None] & d_mask[None, :],
                    other=0.0,
                )
                w_row = tl.multiple_of(d.to(tl.int64) * stride_wd, WEIGHT_VECTOR)
                w = tl.load(
                    weight + w_row[:, None] + column[None, :],
                    mask=d_mask[:, None] & c_mask[None, :],
                    other=0.0,
                )
                acc = dot(g, w, acc, PRECISION, UPCAST)
            offsets, weights = layer_corners(
                x, y, image, affine[i], sizes[i], strides[i], VECTORS[i], BILINEAR, BORDER
            )
            mask = p_mask[:, None] & c_mask[None, :]
            scatter_corners(maps[i], acc, offsets, weights, c, mask, strides[i][1], BILINEAR)


@tunable(FEATURE_GRADIENT_CONFIGS, adds_to="accumulators")
def feature_gradient(
    grad: Tensor,
    weight: Tensor,
    columns: Sequence[int],
    accumulators: Sequence[Tensor],
    points: Tensor,
    batch_index: Tensor | None,
    affine: Sequence[LayerAffine],
    bilinear: bool,
    border: bool,
    config: GradientConfig | None = None,
) -> None:
    """Add S_i^T (G W_i) to `accumulators`, float32 (B, C_i, H_i, W_i), by atomics.

    Layer i uses ``weight[:, columns[i] : columns[i] + C_i]``.
    """
    total, features_out = grad.shape
    channels = tuple(a.shape[1] for a in accumulators)
    config = config or feature_gradient_config(grad.dtype)
    firsts, blocks = channel_blocks(channels, config.block_n)
    _feature_gradient_kernel[(triton.cdiv(total, config.block_m), blocks)](
        grad.contiguous(),
        weight,
        *weight.stride(),
        features_out,
        **point_arguments(points, batch_index, accumulators[0].shape[0]),
        **layer_arguments(accumulators, affine),
        CHANNELS=channels,
        COLUMNS=tuple(columns),
        FIRSTS=firsts,
        WEIGHT_VECTOR=row_vector(weight),
        D=features_out,
        BILINEAR=bilinear,
        BORDER=border,
        BLOCK_M=config.block_m,
        BLOCK_C=config.block_n,
        BLOCK_K=config.block_k,
        **precision_arguments(grad.dtype),
        **launch_options(config),
    )


@triton.jit
def _transposed_product_kernel(
    out,  # (B, H_i, W_i, D)
    grad,  # (B * N, D)
    points,
    per_image,
    size,
    affine,
    row_blocks,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    BILINEAR: tl.constexpr,
    BORDER: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Q[cell, d] = sum_p w(p, cell) G[p, d], the weights of BLOCK_M cells built in registers.

    One program owns its cells and walks over all points of their image: a fixed order.
    """
    image = tl.program_id(0) // row_blocks
    k = tl.arange(0, BLOCK_M)
    column = k % WIDTH
    row = tl.program_id(0) % row_blocks * (BLOCK_M // WIDTH) + k // WIDTH
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    d_mask = d < D
    acc = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for start in range(0, per_image, BLOCK_K):
        n = start + tl.arange(0, BLOCK_K)
        p = image.to(tl.int64) * per_image + tl.minimum(n, per_image - 1)
        x = tl.load(points + 2 * p).to(tl.float32)
        y = tl.load(points + 2 * p + 1).to(tl.float32)
        tx = axis_position(x, affine[0], affine[1], size[1], BORDER)
        ty = axis_position(y, affine[2], affine[3], size[0], BORDER)
        s = hat(tx[None, :], column[:, None].to(tl.float32), BILINEAR)
        s *= hat(ty[None, :], row[:, None].to(tl.float32), BILINEAR)
        g = tl.load(
            grad + p[:, None] * D + d[None, :],
            mask=(n < per_image)[:, None] & d_mask[None, :],
            other=0.0,
        )
        acc = dot(s.to(g.dtype), g, acc, PRECISION, UPCAST)
    inside = (column < size[1]) & (row < size[0])
    cell = (image.to(tl.int64) * size[0] + row) * size[1] + column
    tl.store(
        out + cell[:, None] * D + d[None, :],
        acc.to(out.dtype.element_ty),
        mask=inside[:, None] & d_mask[None, :],
    )


@tunable(TRANSPOSED_CONFIGS)
def transposed_product(
    grad: Tensor,
    points: Tensor,
    batch: int,
    size: tuple[int, int],
    affine: LayerAffine,
    bilinear: bool,
    border: bool,
    config: TransposedConfig | None = None,
) -> Tensor:
    """Q_i = S_i^T G as (B, H_i, W_i, D) in grad's dtype, for equal shares of points per image.

    Deterministic by itself. The work grows with the cells, so it is for coarse maps.
    """
    rows, width = size
    features_out = grad.shape[1]
    padded = max(16, triton.next_power_of_2(width))
    config = config or transposed_config(grad.dtype)
    block_m = max(config.block_m, padded)
    row_blocks = triton.cdiv(rows, block_m // padded)
    out = torch.empty((batch, rows, width, features_out), dtype=grad.dtype, device=grad.device)
    _transposed_product_kernel[(batch * row_blocks, triton.cdiv(features_out, config.block_d))](
        out,
        grad.contiguous(),
        points.contiguous(),
        points.shape[0] // batch,
        size,
        affine,
        row_blocks,
        D=features_out,
        WIDTH=padded,
        BILINEAR=bilinear,
        BORDER=border,
        BLOCK_M=block_m,
        BLOCK_D=config.block_d,
        BLOCK_K=config.block_k,
        **precision_arguments(grad.dtype),
        **launch_options(config),
    )
    return out
