"""What the two kernels of a first layer share: operands, where a program works, projected layers.

    y = act( sum_i z_i + b ),   z_i = S_i X_i W_i^T

The strategies of a plan say what stands for a layer, and how its z_i comes about:

    gather            the map X_i, gathered by the kernel (fused_linear.py), or the rows S_i X_i
                      of an earlier launch (product.py); multiplied by W_i tile by tile
    project_product   the projected map Z_i = X_i W_i^T; S_i is built in registers, and the
                      product S_i Z_i gathers nothing at all
    project_gather    the projected map Z_i; its rows are gathered into the accumulator

Interpolation and product are both linear, so all are the same function; the planner chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..call.linear import Linear
from ..call.sampling import Sampling
from .bilinear import add_corners, hat, layer_corners, layer_position, size_of, strides_of
from .blocks import dot
from .direct import Launch
from .launch import (
    Layers,
    capability,
    decoded,
    matrix,
    mode_of,
    options,
    points_of,
    power_of_2,
    precision,
    row_vector,
    starts,
)
from .select import Key, Tile, tile_for

__all__ = [
    "Operand",
    "add_projected",
    "launch_linear",
    "linear_account",
    "points_and_outputs",
]


class Operand(NamedTuple):
    """What stands for a layer: its strategy, and a map (B, C_i or D, H_i, W_i) or rows (P, C_i).

    Projected maps are channels_last.
    """

    strategy: str
    tensor: Tensor


@triton.jit
def points_and_outputs(
    points,
    tiles,
    GROUPED: tl.constexpr,
    D: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """p (BLOCK_P,), which of them exist, the image of them all, d (BLOCK_D,), which of them exist.

    Tiles of outputs of the same points run next to each other, so that their corners come from L2.
    GROUPED: a tile's points belong to one image, which has `tiles` tiles. Points past the end
    repeat the last one.
    """
    output_tiles: tl.constexpr = (D + BLOCK_D - 1) // BLOCK_D
    tile = tl.program_id(0) // output_tiles
    d = tl.program_id(0) % output_tiles * BLOCK_D + tl.arange(0, BLOCK_D)
    if GROUPED:
        image = (tile // tiles).to(tl.int64)
        n = tile % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
        p_mask = n < points.per_image
        p = image * points.per_image + tl.minimum(n, points.per_image - 1)
    else:
        image = tl.full((), 0, tl.int64)
        p = tile * BLOCK_P + tl.arange(0, BLOCK_P)
        p_mask = p < points.total
        p = tl.minimum(p, points.total - 1)
    return p, p_mask, image, d, d < D


@triton.jit
def add_projected(
    acc,
    at,
    image,
    d,
    d_mask,
    layers,
    STRATEGIES: tl.constexpr,
    VECTORS: tl.constexpr,
    WIDTHS: tl.constexpr,
    MASKED_D: tl.constexpr,
    MODE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """acc + sum of S_i Z_i over the projected layers.

    Rows that are gathered come first: beside an accumulator that is still zero their four corners
    fit into the registers; after the products they spill. Interpolation products next: they gather
    nothing, so the loads of what follows can start meanwhile.
    """
    for i in tl.static_range(len(layers)):
        if STRATEGIES[i] == "project_gather":
            corners = layer_corners(at, layers[i], VECTORS[i], MODE)
            acc = add_corners(acc, layers[i], corners, d, d_mask, MASKED_D, MODE)
    for i in tl.static_range(len(layers)):
        if STRATEGIES[i] == "project_product":
            acc = _add_interpolated(
                acc,
                layers[i],
                layer_position(at.x, at.y, layers[i], MODE),
                image,
                d,
                d_mask,
                VECTORS[i],
                WIDTHS[i],
                MODE,
                PRECISION,
                max(BLOCK_S, WIDTHS[i]),
            )
    return acc


@triton.jit
def _add_interpolated(
    acc,
    layer,
    position,
    image,
    d,
    d_mask,
    VECTOR: tl.constexpr,
    WIDTH: tl.constexpr,
    MODE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """acc + S_i Z_i, Z_i = X_i W_i^T the projected map of the one image this tile belongs to.

    Cells are numbered k = row * WIDTH + column with WIDTH a power of two (at least 16, the
    shortest product), so that both come from k by shifts; columns past the map weigh nothing.
    """
    tx, ty = position
    size, strides = size_of(layer), strides_of(layer)
    k = tl.arange(0, BLOCK_S)
    column = k % WIDTH
    sx = hat(tx[:, None], column[None, :].to(tl.float32), MODE)
    for start in range(0, size[0], BLOCK_S // WIDTH):
        row = start + k // WIDTH
        s = sx * hat(ty[:, None], row[None, :].to(tl.float32), MODE)
        inside = (column < size[1]) & (row < size[0])
        cell = image * strides[0] + row.to(tl.int64) * strides[2] + column.to(tl.int64) * strides[3]
        cell *= VECTOR  # as in bilinear.py
        z = tl.load(
            layer.map + cell[:, None] + d[None, :],
            mask=inside[:, None] & d_mask[None, :],
            other=0.0,
        )
        acc = dot(s.to(z.dtype), z, acc, PRECISION)
    return acc


def linear_account(a: dict[str, Any]) -> tuple[float, float, torch.dtype]:
    """Products of gathered columns and of interpolation weights; their operands, and the output.

    Maps and weight are read once for each tile of outputs or points; a tile of points reads all
    cells of a map that is interpolated as a product.
    """
    total, outputs, size = a["points"].total, a["D"], a["out"].itemsize
    tiles = -(-total // a["BLOCK_P"])
    corners = 4 if a["MODE"].bilinear else 1
    flops, read = 0.0, 0.0
    for strategy, channels, width, layer in zip(
        a["STRATEGIES"], a["CHANNELS"], a["WIDTHS"], a["layers"], strict=True
    ):
        if strategy == "gather":
            copies = corners if layer.map.ndim == 4 else 1
            flops += 2.0 * total * channels * outputs
            read += copies * total * channels * -(-outputs // a["BLOCK_D"])
            read += tiles * channels * outputs
        elif strategy == "project_gather":
            flops += 2.0 * corners * total * outputs
            read += corners * total * outputs
        else:
            height, across = map(decoded, layer.size)
            flops += 2.0 * total * height * width * outputs
            read += tiles * height * across * outputs
    return flops, size * (read + total * outputs), a["out"].dtype


def _key(operands: Sequence[Operand], s: Sampling, head: Linear) -> Key:
    """What the choice of a tile may depend on."""
    return Key(
        head.weight.dtype,
        s.total,
        head.out_features,
        min(s.channels),
        capability(),
        tuple([operand.strategy for operand in operands]),
        head.activation,
    )


def launch_linear(
    kernel: Any,
    name: str,
    tiles: Sequence[Tile],
    operands: Sequence[Operand],
    s: Sampling,
    head: Linear,
    tile: Tile | None,
    trial: Callable[[Tile], object],
) -> Tensor:
    """A first layer by one kernel, (P, D); without a tile one of its table is chosen."""

    def like() -> Callable[..., Tensor]:
        chosen = tile
        if chosen is None:
            chosen = tile_for(name, tiles, _key(operands, s, head), s, trial)
        return _linear_like(kernel, operands, s, head, chosen)

    strategies = tuple([operand.strategy for operand in operands])
    return s.once((name, strategies, head.layout, tile), like)(operands, s, head)


def _linear_like(
    kernel: Any, operands: Sequence[Operand], s: Sampling, head: Linear, tile: Tile
) -> Callable[[Sequence[Operand], Sampling, Linear], Tensor]:
    """A first layer by either kernel, (P, D), for tensors that are laid out as these."""
    weight, bias, activation = head
    total, outputs, dtype, device = s.total, head.out_features, weight.dtype, weight.device
    strategies = tuple([operand.strategy for operand in operands])
    grouped = "project_product" in strategies
    if grouped and s.batch_index is not None:
        raise ValueError("project_product needs equal numbers of points per image, in order")
    groups = s.batch if grouped else 1
    tiles = -(-(total // groups) // tile.rows)
    layers = Layers([operand.tensor for operand in operands], s.geometry.affine)
    launch = Launch(
        kernel,
        (tiles * groups * -(-outputs // tile.columns),),
        "out weight bias points layers",
        tiles=tiles,
        VECTORS=layers.vectors,
        GROUPED=grouped,
        STRATEGIES=strategies,
        CHANNELS=s.channels,
        COLUMNS=starts(s.channels),
        WIDTHS=_widths(s.sizes),
        WEIGHT_VECTOR=row_vector(weight),
        D=outputs,
        HAS_BIAS=bias is not None,
        ACTIVATION=activation,
        MODE=mode_of(s),
        BLOCK_P=tile.rows,
        BLOCK_D=tile.columns,
        BLOCK_C=tile.terms,
        BLOCK_S=tile.cells,
        PRECISION=precision(dtype),
        **options(tile),
    )

    def run(operands: Sequence[Operand], s: Sampling, head: Linear) -> Tensor:
        out = torch.empty((total, outputs), dtype=dtype, device=device)
        launch(
            out,
            matrix(head.weight),
            head.weight if head.bias is None else head.bias.contiguous(),
            points_of(s),
            layers([operand.tensor for operand in operands]),
        )
        return out

    return run


@lru_cache(maxsize=1024)
def _widths(sizes: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    """Columns of each map as an interpolation product counts them."""
    return tuple([max(16, power_of_2(width)) for _, width in sizes])
