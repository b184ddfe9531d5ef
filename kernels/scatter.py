"""Scatter: the transpose of the gather, from points back to the cells of every layer.

    dX_i[image, c, cell] = sum over points p and corners j with cell_j(p) = cell of
                           w_j(p) grad[p, column_i + c]

in two ways. `scatter_atomic` adds every corner to its cell, in whatever order programs arrive.
`scatter_sorted` is deterministic: corners are sorted by cell once (stably, by PyTorch), and one
program owns a cell and adds its corners in that order. One launch serves all layers either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..call.sampling import Sampling
from .bilinear import layer_corners, locate
from .blocks import block_of, channels_of
from .gather import TILES
from .launch import (
    accounted,
    channel_blocks,
    layer_arguments,
    options,
    point_arguments,
    sampling_arguments,
    starts,
)
from .select import Key, Tile, tile_for

__all__ = ["SORTED_TILES", "cleared", "scatter_atomic", "scatter_corners", "scatter_sorted"]


@triton.jit
def scatter_corners(layer, value, corners, c, mask, MODE: tl.constexpr):
    """map[offset_j + c * stride_c] += w_j * value, for a tile (BLOCK_P, BLOCK_C) in float32."""
    offsets, weights = corners
    channel = c.to(tl.int64)[None, :] * layer.strides[1]
    for j in tl.static_range(4 if MODE.bilinear else 1):
        tl.atomic_add(
            layer.map + offsets[j][:, None] + channel,
            value * weights[j][:, None],
            mask=mask,
            sem="relaxed",
        )


def cleared(s: Sampling) -> Sampling:
    """The same points on maps of zeros, for trials, whose sums nobody wants."""
    return s._replace(features=[torch.zeros_like(feature) for feature in s.features])


@accounted
def _atomic_account(a: dict[str, Any]) -> tuple[float, float, torch.dtype]:
    """A row is read; each corner is multiplied, and added to its cell in float32."""
    corners = 4 if a["MODE"].bilinear else 1
    values, grad = a["points"].total * sum(a["CHANNELS"]), a["grad"]
    return 2.0 * corners * values, values * (grad.itemsize + 4.0 * corners), grad.dtype


@triton.jit(launch_metadata=_atomic_account)
def _scatter_atomic_kernel(
    grad,  # (P, row)
    row: tl.constexpr,
    points,
    layers,  # of float32 accumulators
    VECTORS: tl.constexpr,
    CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr,
    FIRSTS: tl.constexpr,
    MODE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """dX_i[c, cell_j(p)] += w_j(p) grad[p, column_i + c] for one block of one layer."""
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    at = locate(points, p, MODE)
    for i in tl.static_range(len(layers)):
        block, inside = block_of(FIRSTS[i], CHANNELS[i], BLOCK_C)
        if inside:
            corners = layer_corners(at, layers[i], VECTORS[i], MODE)
            c, c_mask = channels_of(block, CHANNELS[i], BLOCK_C)
            mask = (p < points.total)[:, None] & c_mask[None, :]
            address = grad + p.to(tl.int64)[:, None] * row + (COLUMNS[i] + c)[None, :]
            value = tl.load(address, mask=mask, other=0.0).to(tl.float32)
            scatter_corners(layers[i], value, corners, c, mask, MODE)


def scatter_atomic(
    grad: Tensor, columns: Sequence[int], s: Sampling, tile: Tile | None = None
) -> None:
    """Add S_i^T grad to ``s.features``, float32 accumulators (B, C_i, H_i, W_i) of any strides.

    Layer i takes ``grad[:, columns[i] : columns[i] + C_i]``. Rows of channels_last accumulators
    are added by 16-byte reductions where the hardware has them.
    """
    channels = s.channels
    if tile is None:
        key = Key(grad.dtype, s.total, channels=min(channels))

        def trial(tile: Tile) -> None:
            scatter_atomic(grad, columns, cleared(s), tile)

        tile = tile_for("scatter_atomic", TILES, key, s, trial)
    firsts, blocks = channel_blocks(channels, tile.columns)
    grad = grad.contiguous()
    _scatter_atomic_kernel[(-(-s.total // tile.rows), blocks)](
        grad,
        grad.stride(0),
        **sampling_arguments(s),
        COLUMNS=tuple(columns),
        FIRSTS=firsts,
        BLOCK_P=tile.rows,
        BLOCK_C=tile.columns,
        **options(tile),
    )


CORNER_TILE = Tile(128, 1, num_warps=4)


@accounted
def _corner_account(a: dict[str, Any]) -> tuple[float, float, torch.dtype]:
    """A cell (8 bytes) and a weight (4) are written for each corner."""
    return 0.0, a["cells"].numel() * 12.0 + a["points"].xy.nbytes, torch.float32


@triton.jit(launch_metadata=_corner_account)
def _corner_kernel(
    cells,  # (M, P, CORNERS) int64: the cell of each corner, counted over images and layers
    weights_out,  # (M, P, CORNERS) float32
    points,
    layers,  # with strides by which a cell's offset is its number within the layer
    firsts,  # for each layer the number of its first cell
    before,  # i * P, the points of the layers before
    MODE: tl.constexpr,
    CORNERS: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """cells[i, p, j], weights_out[i, p, j] = cell_j(p) on layer i, w_j(p)."""
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    at = locate(points, p, MODE)
    for i in tl.static_range(len(layers)):
        offsets, weights = layer_corners(at, layers[i], 1, MODE)
        entry = (p.to(tl.int64) + before[i]) * CORNERS
        for j in tl.static_range(CORNERS):
            tl.store(cells + entry + j, offsets[j] + firsts[i], mask=p < points.total)
            tl.store(weights_out + entry + j, weights[j], mask=p < points.total)


# Corners at a time, times channels of one cell.
SORTED_TILES = (
    Tile(8, 128, num_warps=2),
    Tile(16, 64, num_warps=2),
)


@accounted
def _segment_account(a: dict[str, Any]) -> tuple[float, float, torch.dtype]:
    """Every corner reads a row, its number and its weight; every cell is written."""
    grad, order = a["grad"], a["order"]
    values = order.numel() // len(a["layers"]) * sum(a["CHANNELS"])  # times corners
    written = sum(layer.map.nbytes for layer in a["layers"])
    return 2.0 * values, values * grad.itemsize + order.numel() * 12.0 + written, grad.dtype


@triton.jit(launch_metadata=_segment_account)
def _segment_kernel(
    grad,  # (P, row)
    row: tl.constexpr,
    order,  # corners sorted by cell, (M * P * CORNERS,)
    weights,  # of the corners, unsorted, same length
    ends,  # for each cell of all layers the end of its run in `order`
    layers,  # gradients
    firsts,  # for each layer the number of its first cell
    before,  # i * P
    programs,  # for each layer its first program; then their number
    CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CORNERS: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """dX_i[c, cell] = sum over the corners e of the cell, in order, of w_e grad[p_e, column_i + c].

    Grid axis 0 counts cells times blocks of channels over all layers.
    """
    program = tl.program_id(0)
    for i in tl.static_range(len(layers)):
        if (program >= programs[i]) & (program < programs[i + 1]):
            size, strides = layers[i].size, layers[i].strides
            blocks = (CHANNELS[i] + BLOCK_C - 1) // BLOCK_C
            cell = (program - programs[i]) // blocks
            c, c_mask = channels_of((program - programs[i]) % blocks, CHANNELS[i], BLOCK_C)
            number = firsts[i] + cell
            begin = tl.load(ends + number - 1, mask=number > 0, other=0)
            end = tl.load(ends + number)
            value = tl.zeros((BLOCK_C,), tl.float32)
            while begin < end:
                e = begin + tl.arange(0, BLOCK_E)
                entry = tl.load(order + e, mask=e < end, other=0)
                weight = tl.load(weights + entry, mask=e < end, other=0.0)
                p = entry // CORNERS - before[i]
                address = grad + p[:, None] * row + (COLUMNS[i] + c)[None, :]
                mask = (e < end)[:, None] & c_mask[None, :]
                g = tl.load(address, mask=mask, other=0.0).to(tl.float32)
                value += tl.sum(g * weight[:, None], axis=0)
                begin += BLOCK_E
            x = cell % size[1]
            y = cell // size[1] % size[0]
            image = cell // size[1] // size[0]
            offset = (
                image.to(tl.int64) * strides[0]
                + y.to(tl.int64) * strides[2]
                + x.to(tl.int64) * strides[3]
            )
            address = layers[i].map + offset + c.to(tl.int64) * strides[1]
            tl.store(address, value.to(layers[i].map.dtype.element_ty), mask=c_mask)


def scatter_sorted(
    grad: Tensor, columns: Sequence[int], s: Sampling, tile: Tile | None = None
) -> None:
    """Write S_i^T grad to every cell of ``s.features`` (B, C_i, H_i, W_i).

    Any dtype and strides; sums are float32. The same inputs give the same bits.
    """
    channels, sizes = s.channels, s.sizes
    # Tiles are not tuned here: the order of a sum depends on them.
    tile = tile or SORTED_TILES[0]
    corners = 4 if s.geometry.bilinear else 1
    counts = tuple([s.batch * height * width for height, width in sizes])
    blocks = [-(-number // tile.columns) for number in channels]
    programs = tuple([count * number for count, number in zip(counts, blocks, strict=True)])
    cells = torch.empty((len(sizes), s.total, corners), dtype=torch.int64, device=grad.device)
    weights = torch.empty(cells.shape, dtype=torch.float32, device=grad.device)
    layers = layer_arguments(s.features, s.geometry.affine)["layers"]
    places = {"firsts": starts(counts), "before": tuple([i * s.total for i in range(len(sizes))])}
    _corner_kernel[(-(-s.total // CORNER_TILE.rows),)](
        cells,
        weights,
        **point_arguments(s),
        # By these strides the offset of a cell is its number within the layer.
        layers=tuple(
            [
                layer._replace(strides=(height * width, 0, width, 1))
                for layer, (height, width) in zip(layers, sizes, strict=True)
            ]
        ),
        **places,
        CORNERS=corners,
        BLOCK_P=CORNER_TILE.rows,
        **options(CORNER_TILE),
    )
    ordered, order = torch.sort(cells.view(-1), stable=True)
    numbers = torch.arange(sum(counts), device=grad.device)
    ends = torch.searchsorted(ordered, numbers, right=True)
    grad = grad.contiguous()
    _segment_kernel[(sum(programs),)](
        grad,
        grad.stride(0),
        order,
        weights,
        ends,
        layers,
        **places,
        programs=(*starts(programs), sum(programs)),
        CHANNELS=channels,
        COLUMNS=tuple(columns),
        CORNERS=corners,
        BLOCK_E=tile.rows,
        BLOCK_C=tile.columns,
        **options(tile),
    )
