"""Scatter: the transpose of the gather, from points back to the cells of every layer.

    dX_i[image, c, cell] = sum over points p and corners j with cell_j(p) = cell of
                           w_j(p) grad[p, column_i + c]

in two ways. `scatter_atomic` adds every corner to its cell, in whatever order programs arrive.
`scatter_sorted` is deterministic: corners are sorted by cell once (stably, by PyTorch), and one
program owns a cell and adds its corners in that order. One launch serves all layers either way.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .bilinear import layer_corners, load_points
from .configs import (
    GATHER_CONFIGS,
    SEGMENT_CONFIGS,
    GatherConfig,
    SegmentConfig,
    gather_config,
)
from .launch import (
    LayerAffine,
    channel_blocks,
    launch_options,
    layer_arguments,
    point_arguments,
)
from .tuning import tunable

__all__ = ["scatter_atomic", "scatter_corners", "scatter_sorted"]

_CORNER_BLOCK = 128


@triton.jit
def scatter_corners(
    target,
    value,
    offsets,
    weights,
    c,
    mask,
    stride_c,
    BILINEAR: tl.constexpr,
):
    """target[offset_j + c * stride_c] += w_j * value, for a tile (BLOCK_P, BLOCK_C) in float32."""
    channel = c.to(tl.int64)[None, :] * stride_c
    for j in tl.static_range(4 if BILINEAR else 1):
        tl.atomic_add(
            target + offsets[j][:, None] + channel,
            value * weights[j][:, None],
            mask=mask,
            sem="relaxed",
        )


@triton.jit
def _scatter_atomic_kernel(
    grad,  # (P, row)
    row: tl.constexpr,
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
    BILINEAR: tl.constexpr,
    BORDER: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    x, y, image, _mark = load_points(points, batch_index, p, total, per_image, batch, RAGGED)
    for i in tl.static_range(len(maps)):
        block = tl.program_id(1) - FIRSTS[i]
        if (block >= 0) & (block < tl.cdiv(CHANNELS[i], BLOCK_C)):
            offsets, weights = layer_corners(
                x, y, image, affine[i], sizes[i], strides[i], VECTORS[i], BILINEAR, BORDER
            )
            c = block * BLOCK_C + tl.arange(0, BLOCK_C)
            mask = (p < total)[:, None] & (c < CHANNELS[i])[None, :]
            address = grad + p.to(tl.int64)[:, None] * row + (COLUMNS[i] + c)[None, :]
            value = tl.load(address, mask=mask, other=0.0).to(tl.float32)
            scatter_corners(maps[i], value, offsets, weights, c, mask, strides[i][1], BILINEAR)


@tunable(GATHER_CONFIGS, adds_to="accumulators")
def scatter_atomic(
    grad: Tensor,
    columns: Sequence[int],
    accumulators: Sequence[Tensor],
    points: Tensor,
    batch_index: Tensor | None,
    affine: Sequence[LayerAffine],
    bilinear: bool,
    border: bool,
    config: GatherConfig | None = None,
) -> None:
    """Add the transpose of the gather to `accumulators`, float32 (B, C_i, H_i, W_i), any strides.

    Layer i takes ``grad[:, columns[i] : columns[i] + C_i]``. Rows of channels_last accumulators
    are added by 16-byte reductions where the hardware has them.
    """
    channels = tuple(a.shape[1] for a in accumulators)
    config = config or gather_config(accumulators)
    firsts, blocks = channel_blocks(channels, config.block_c)
    grad = grad.contiguous()
    _scatter_atomic_kernel[(triton.cdiv(points.shape[0], config.block_p), blocks)](
        grad,
        grad.stride(0),
        **point_arguments(points, batch_index, accumulators[0].shape[0]),
        **layer_arguments(accumulators, affine),
        CHANNELS=channels,
        COLUMNS=tuple(columns),
        FIRSTS=firsts,
        BILINEAR=bilinear,
        BORDER=border,
        BLOCK_P=config.block_p,
        BLOCK_C=config.block_c,
        **launch_options(config),
    )


@triton.jit
def _corner_kernel(
    cells,  # (M, P, CORNERS) int64: the cell of each corner, counted over images and layers
    weights_out,  # (M, P, CORNERS) float32
    points,
    batch_index,
    total,
    per_image,
    batch,
    sizes,
    strides,
    affine,
    firsts,
    starts,  # i * P
    RAGGED: tl.constexpr,
    BILINEAR: tl.constexpr,
    BORDER: tl.constexpr,
    CORNERS: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    x, y, image, _mark = load_points(points, batch_index, p, total, per_image, batch, RAGGED)
    for i in tl.static_range(len(sizes)):
        offsets, weights = layer_corners(
            x, y, image, affine[i], sizes[i], strides[i], 1, BILINEAR, BORDER
        )
        entry = (p.to(tl.int64) + starts[i]) * CORNERS
        for j in tl.static_range(CORNERS):
            tl.store(cells + entry + j, offsets[j] + firsts[i], mask=p < total)
            tl.store(weights_out + entry + j, weights[j], mask=p < total)


@triton.jit
def _segment_kernel(
    grad,  # (P, row)
    row: tl.constexpr,
    order,  # corners sorted by cell, (M * P * CORNERS,)
    weights,  # of the corners, unsorted, same length
    ends,  # for each cell of all layers the end of its run in `order`
    starts,  # i * P, the points of the layers before
    maps,
    sizes,
    strides,
    programs,  # for each layer its first program; then their number
    firsts,  # for each layer the number of its first cell
    CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CORNERS: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    program = tl.program_id(0)
    for i in tl.static_range(len(maps)):
        if (program >= programs[i]) & (program < programs[i + 1]):
            blocks = (CHANNELS[i] + BLOCK_C - 1) // BLOCK_C
            cell = (program - programs[i]) // blocks
            c = (program - programs[i]) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
            c_mask = c < CHANNELS[i]
            number = firsts[i] + cell
            begin = tl.load(ends + number - 1, mask=number > 0, other=0)
            end = tl.load(ends + number)
            value = tl.zeros((BLOCK_C,), tl.float32)
            while begin < end:
                e = begin + tl.arange(0, BLOCK_E)
                entry = tl.load(order + e, mask=e < end, other=0)
                weight = tl.load(weights + entry, mask=e < end, other=0.0)
                p = entry // CORNERS - starts[i]
                address = grad + p[:, None] * row + (COLUMNS[i] + c)[None, :]
                mask = (e < end)[:, None] & c_mask[None, :]
                g = tl.load(address, mask=mask, other=0.0).to(tl.float32)
                value += tl.sum(g * weight[:, None], axis=0)
                begin += BLOCK_E
            x = cell % sizes[i][1]
            y = cell // sizes[i][1] % sizes[i][0]
            image = cell // sizes[i][1] // sizes[i][0]
            offset = (
                image.to(tl.int64) * strides[i][0]
                + y.to(tl.int64) * strides[i][2]
                + x.to(tl.int64) * strides[i][3]
            )
            address = maps[i] + offset + c.to(tl.int64) * strides[i][1]
            tl.store(address, value.to(maps[i].dtype.element_ty), mask=c_mask)


def scatter_sorted(
    grad: Tensor,
    columns: Sequence[int],
    targets: Sequence[Tensor],
    points: Tensor,
    batch_index: Tensor | None,
    affine: Sequence[LayerAffine],
    bilinear: bool,
    border: bool,
    config: SegmentConfig | None = None,
) -> None:
    """Write the transpose of the gather to every cell of `targets` (B, C_i, H_i, W_i).

    Any dtype and strides; sums are float32. The same inputs give the same bits.
    """
    config = config or SEGMENT_CONFIGS[0]
    batch = targets[0].shape[0]
    channels = tuple(t.shape[1] for t in targets)
    sizes = tuple((t.shape[2], t.shape[3]) for t in targets)
    corners = 4 if bilinear else 1
    cells = torch.empty(
        (len(targets), points.shape[0], corners), dtype=torch.int64, device=points.device
    )
    weights = torch.empty(cells.shape, dtype=torch.float32, device=points.device)
    starts = tuple(i * points.shape[0] for i in range(len(targets)))
    firsts, programs = [0], [0]
    for (rows, width), count in zip(sizes, channels, strict=True):
        firsts.append(firsts[-1] + batch * rows * width)
        blocks = triton.cdiv(count, config.block_c)
        programs.append(programs[-1] + batch * rows * width * blocks)
    _corner_kernel[(triton.cdiv(points.shape[0], _CORNER_BLOCK),)](
        cells,
        weights,
        **point_arguments(points, batch_index, batch),
        sizes=sizes,
        # With these "strides" the offset of a cell is its number within the layer.
        strides=tuple((rows * width, 0, width, 1) for rows, width in sizes),
        affine=tuple(affine),
        firsts=tuple(firsts[:-1]),
        starts=starts,
        BILINEAR=bilinear,
        BORDER=border,
        CORNERS=corners,
        BLOCK_P=_CORNER_BLOCK,
        **launch_options(),
    )
    ordered, order = torch.sort(cells.view(-1), stable=True)
    numbers = torch.arange(firsts[-1], device=points.device)
    ends = torch.searchsorted(ordered, numbers, right=True)
    grad = grad.contiguous()
    layers = layer_arguments(targets, affine)
    _segment_kernel[(programs[-1],)](
        grad,
        grad.stride(0),
        order,
        weights,
        ends,
        starts,
        layers["maps"],
        layers["sizes"],
        layers["strides"],
        tuple(programs),
        tuple(firsts[:-1]),
        CHANNELS=channels,
        COLUMNS=tuple(columns),
        CORNERS=corners,
        BLOCK_E=config.block_e,
        BLOCK_C=config.block_c,
        **launch_options(config),
    )
