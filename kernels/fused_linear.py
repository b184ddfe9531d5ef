"""The one-pass kernel: gather, concatenation, matrix product, bias and activation in one launch.

    y = act( sum_i  (S_i X_i) W_i^T  +  b )

Each layer contributes to one accumulator in one of four ways:

    GATHER       (S_i X_i) W_i^T    corners are loaded, interpolated and multiplied tile by tile
    DENSE        H_i W_i^T          rows H_i = S_i X_i were gathered by an earlier launch
    PRODUCT      S_i (X_i W_i^T)    S_i is built in registers; the right operand is the projected
                                    map, so that nothing is gathered at all
    PROJECTED    S_i (X_i W_i^T)    projected rows are gathered into the accumulator

Interpolation and product are both linear, so all are the same function; the planner chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from .bilinear import add_corners, axis_position, gather_corners, hat, layer_corners, load_points
from .configs import LINEAR_CONFIGS, LinearConfig, linear_config
from .launch import (
    LayerAffine,
    launch_options,
    layer_arguments,
    point_arguments,
    precision_arguments,
    row_vector,
)
from .tuning import tunable

__all__ = ["DENSE", "GATHER", "PRODUCT", "PROJECTED", "Operand", "dot", "fused_linear"]

GATHER = tl.constexpr(0)
DENSE = tl.constexpr(1)
PRODUCT = tl.constexpr(2)
PROJECTED = tl.constexpr(3)


@dataclass(frozen=True)
class Operand:
    """A layer as the kernel reads it.

    `tensor` is, by `kind`: the map (B, C_i, H_i, W_i); gathered rows (P, C_i); or the projected
    map seen as (B, D, H_i, W_i), channels_last. `column` is where the layer starts in the weight.
    """

    kind: int
    tensor: Tensor
    column: int
    affine: LayerAffine


@triton.jit
def dot(a, b, acc, PRECISION: tl.constexpr, UPCAST: tl.constexpr):
    if UPCAST:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision="ieee")
    else:
        return tl.dot(a, b, acc, input_precision=PRECISION)


@triton.jit
def _weight_tile(
    weight, stride_d, stride_c, d, d_mask, c, c_mask, VECTOR: tl.constexpr, MASKED: tl.constexpr
):
    """W[d, c] as a right operand (BLOCK_K, BLOCK_D); its rows start at multiples of VECTOR."""
    rows = tl.multiple_of(d.to(tl.int64) * stride_d, VECTOR)
    address = weight + c.to(tl.int64)[:, None] * stride_c + rows[None, :]
    if MASKED:
        return tl.load(address, mask=c_mask[:, None] & d_mask[None, :], other=0.0)
    else:
        return tl.load(address)


@triton.jit
def _add_gathered(
    acc,
    feature,
    offsets,
    weights,
    stride_c,
    weight,
    stride_wd,
    stride_wc,
    d,
    d_mask,
    CHANNELS: tl.constexpr,
    COLUMN: tl.constexpr,
    WEIGHT_VECTOR: tl.constexpr,
    MASKED_D: tl.constexpr,
    BILINEAR: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """acc += (S_i X_i) W_i^T for one layer; the left operand is interpolated in registers."""
    MASKED_C: tl.constexpr = CHANNELS % BLOCK_K != 0
    for start in range(0, CHANNELS, BLOCK_K):
        c = start + tl.arange(0, BLOCK_K)
        c_mask = c < CHANNELS
        h = gather_corners(feature, offsets, weights, c, c_mask, stride_c, BILINEAR, MASKED_C)
        w = _weight_tile(
            weight,
            stride_wd,
            stride_wc,
            d,
            d_mask,
            COLUMN + c,
            c_mask,
            WEIGHT_VECTOR,
            MASKED_C or MASKED_D,
        )
        acc = dot(h.to(w.dtype), w, acc, PRECISION, UPCAST)
    return acc


@triton.jit
def _add_dense(
    acc,
    rows,
    offset,
    weight,
    stride_wd,
    stride_wc,
    d,
    d_mask,
    VECTOR: tl.constexpr,
    CHANNELS: tl.constexpr,
    COLUMN: tl.constexpr,
    WEIGHT_VECTOR: tl.constexpr,
    MASKED_D: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """acc += H_i W_i^T, the rows H_i already gathered."""
    offset = tl.multiple_of(offset, VECTOR)
    MASKED_C: tl.constexpr = CHANNELS % BLOCK_K != 0
    for start in range(0, CHANNELS, BLOCK_K):
        c = start + tl.arange(0, BLOCK_K)
        c_mask = c < CHANNELS
        address = rows + offset[:, None] + c[None, :]
        if MASKED_C:
            h = tl.load(address, mask=c_mask[None, :], other=0.0)
        else:
            h = tl.load(address)
        w = _weight_tile(
            weight,
            stride_wd,
            stride_wc,
            d,
            d_mask,
            COLUMN + c,
            c_mask,
            WEIGHT_VECTOR,
            MASKED_C or MASKED_D,
        )
        acc = dot(h, w, acc, PRECISION, UPCAST)
    return acc


@triton.jit
def _add_product(
    acc,
    projected,
    tx,
    ty,
    image,
    size,
    strides,
    d,
    d_mask,
    WIDTH: tl.constexpr,
    BILINEAR: tl.constexpr,
    BLOCK_S: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """acc += S_i Z_i, Z_i = X_i W_i^T the projected map of the one image this tile belongs to.

    Cells are numbered k = row * WIDTH + column with WIDTH a power of two (at least 16, the
    shortest product), so that both come from k by shifts; columns past the map weigh nothing.
    """
    k = tl.arange(0, BLOCK_S)
    column = k % WIDTH
    sx = hat(tx[:, None], column[None, :].to(tl.float32), BILINEAR)
    for start in range(0, size[0], BLOCK_S // WIDTH):
        row = start + k // WIDTH
        s = sx * hat(ty[:, None], row[None, :].to(tl.float32), BILINEAR)
        inside = (column < size[1]) & (row < size[0])
        cell = image * strides[0] + row.to(tl.int64) * strides[2] + column.to(tl.int64) * strides[3]
        z = tl.load(
            projected + cell[:, None] + d[None, :],
            mask=inside[:, None] & d_mask[None, :],
            other=0.0,
        )
        acc = dot(s.to(z.dtype), z, acc, PRECISION, UPCAST)
    return acc


@triton.jit
def _fused_linear_kernel(
    out,  # (P, D)
    weight,  # (D, sum C_i)
    stride_wd,
    stride_wc,
    bias,
    points,
    batch_index,
    total,
    per_image,
    batch,
    maps,
    sizes,
    strides,
    affine,
    tiles,  # tiles of points in each group
    VECTORS: tl.constexpr,
    RAGGED: tl.constexpr,
    GROUPED: tl.constexpr,
    KINDS: tl.constexpr,
    CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTHS: tl.constexpr,
    WEIGHT_VECTOR: tl.constexpr,
    D: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BILINEAR: tl.constexpr,
    BORDER: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """y[p, d] = act(sum_i z_i[p, d] + b[d]) for BLOCK_M points and BLOCK_D outputs.

    Column tiles of the same points run next to each other, so that their corners come from L2.
    GROUPED: a tile's points belong to one image, as PRODUCT layers need.
    """
    MASKED_D: tl.constexpr = D % BLOCK_D != 0
    column_tiles: tl.constexpr = (D + BLOCK_D - 1) // BLOCK_D
    tile = tl.program_id(0) // column_tiles
    d = tl.program_id(0) % column_tiles * BLOCK_D + tl.arange(0, BLOCK_D)
    d_mask = d < D
    if GROUPED:
        group = (tile // tiles).to(tl.int64)
        m = tile % tiles * BLOCK_M + tl.arange(0, BLOCK_M)
        p_mask = m < per_image
        p = group * per_image + tl.minimum(m, per_image - 1)
    else:
        group = 0
        p = tile * BLOCK_M + tl.arange(0, BLOCK_M)
        p_mask = p < total
        p = tl.minimum(p, total - 1)
    x, y, image, mark = load_points(points, batch_index, p, total, per_image, batch, RAGGED)
    acc = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    # Projected rows first: beside an accumulator that is still zero their four corners fit into
    # the registers; after the products they spill. PRODUCT layers next: they gather nothing, so
    # the loads of the gathers can start meanwhile.
    for i in tl.static_range(len(maps)):
        if KINDS[i] == PROJECTED:
            offsets, weights = layer_corners(
                x, y, image, affine[i], sizes[i], strides[i], VECTORS[i], BILINEAR, BORDER
            )
            acc = add_corners(acc, maps[i], offsets, weights, d, d_mask, 1, BILINEAR, MASKED_D)
    for i in tl.static_range(len(maps)):
        if KINDS[i] == PRODUCT:
            acc = _add_product(
                acc,
                maps[i],
                axis_position(x, affine[i][0], affine[i][1], sizes[i][1], BORDER),
                axis_position(y, affine[i][2], affine[i][3], sizes[i][0], BORDER),
                group,
                sizes[i],
                strides[i],
                d,
                d_mask,
                WIDTHS[i],
                BILINEAR,
                max(BLOCK_S, WIDTHS[i]),
                PRECISION,
                UPCAST,
            )
    for i in tl.static_range(len(maps)):
        if KINDS[i] == GATHER:
            offsets, weights = layer_corners(
                x, y, image, affine[i], sizes[i], strides[i], VECTORS[i], BILINEAR, BORDER
            )
            acc = _add_gathered(
                acc,
                maps[i],
                offsets,
                weights,
                strides[i][1],
                weight,
                stride_wd,
                stride_wc,
                d,
                d_mask,
                CHANNELS[i],
                COLUMNS[i],
                WEIGHT_VECTOR,
                MASKED_D,
                BILINEAR,
                BLOCK_K,
                PRECISION,
                UPCAST,
            )
        if KINDS[i] == DENSE:
            acc = _add_dense(
                acc,
                maps[i],
                p.to(tl.int64) * strides[i][0],
                weight,
                stride_wd,
                stride_wc,
                d,
                d_mask,
                VECTORS[i],
                CHANNELS[i],
                COLUMNS[i],
                WEIGHT_VECTOR,
                MASKED_D,
                BLOCK_K,
                PRECISION,
                UPCAST,
            )
    if HAS_BIAS:
        acc += tl.load(bias + d, mask=d_mask, other=0.0).to(tl.float32)[None, :]
    if ACTIVATION == "relu":
        acc = tl.maximum(acc, 0.0)
    if ACTIVATION == "gelu":
        acc = 0.5 * acc * (1.0 + tl.math.erf(acc * 0.7071067811865476))
    address = out + p.to(tl.int64)[:, None] * D + d[None, :]
    value = (acc + mark[:, None]).to(out.dtype.element_ty)
    tl.store(address, value, mask=p_mask[:, None] & d_mask[None, :])


@tunable(LINEAR_CONFIGS)
def fused_linear(
    operands: Sequence[Operand],
    points: Tensor,
    batch_index: Tensor | None,
    batch: int,
    weight: Tensor,
    bias: Tensor | None,
    activation: str | None,
    bilinear: bool,
    border: bool,
    config: LinearConfig | None = None,
) -> Tensor:
    """(P, D) = act(sum of the operands' contributions + bias), in the weight's dtype."""
    total, features_out = points.shape[0], weight.shape[0]
    maps = [_as_map(o) for o in operands]
    kinds = tuple(o.kind for o in operands)
    grouped = PRODUCT.value in kinds
    if grouped and batch_index is not None:
        raise ValueError("PRODUCT operands need equal numbers of points per image, in order")
    config = config or linear_config(weight.dtype, features_out, total)
    per_group = total // batch if grouped else total
    tiles = triton.cdiv(per_group, config.block_m)
    grid = tiles * (batch if grouped else 1) * triton.cdiv(features_out, config.block_d)
    out = torch.empty((total, features_out), dtype=weight.dtype, device=points.device)
    _fused_linear_kernel[(grid,)](
        out,
        weight,
        *weight.stride(),
        weight if bias is None else bias.contiguous(),
        **point_arguments(points, batch_index, batch),
        **layer_arguments(maps, [o.affine for o in operands]),
        tiles=tiles,
        GROUPED=grouped,
        KINDS=kinds,
        CHANNELS=tuple(m.shape[1] for m in maps),
        COLUMNS=tuple(o.column for o in operands),
        WIDTHS=tuple(max(16, triton.next_power_of_2(m.shape[3])) for m in maps),
        WEIGHT_VECTOR=row_vector(weight),
        D=features_out,
        HAS_BIAS=bias is not None,
        ACTIVATION=activation,
        BILINEAR=bilinear,
        BORDER=border,
        BLOCK_M=config.block_m,
        BLOCK_D=config.block_d,
        BLOCK_K=config.block_k,
        BLOCK_S=config.block_s,
        **precision_arguments(weight.dtype),
        **launch_options(config),
    )
    return out


def _as_map(operand: Operand) -> Tensor:
    """Gathered rows (P, C) as a map (P, C, 1, 1), whose batch stride is that of the rows."""
    tensor = operand.tensor
    return tensor[:, :, None, None] if operand.kind == DENSE.value else tensor
