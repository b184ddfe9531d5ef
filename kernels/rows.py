"""Rows of projected maps, added to the product of the other layers, and what ends a first layer.

    y[p, d] = act( z[p, d] + sum_k sum_j w_j(p) Z_k[d, cell_j(p)] + b[d] )        j = 1 ... 4

Z_k = X_k W_k^T are projected maps, and z = h W^T, where there is one, the product of the layers
that are gathered. Interpolation and product are both linear, so S_k (X_k W_k^T) is what
(S_k X_k) W_k^T is; a map of fewer cells than there are points is better multiplied before it is
sampled.

z and Z_k come rounded to the maps' dtype; they are added in float32, and the sum is rounded once
more. y takes the place of z, each program that of its own tile.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..call.sampling import Sampling
from .bilinear import gather_corners, layer_corners, locate
from .blocks import finish
from .direct import Launch
from .launch import Layers, accounted, mode_of, options, points_of
from .pieces import piece_of
from .select import Key, Tile, tile_for

__all__ = ["TILES", "add_rows"]

# Points times outputs, in pieces (pieces.py). With this limit of registers corners are read ahead,
# and those of five layers do not spill.
TILES = (
    Tile(16, 128, num_warps=4, maxnreg=160),
    Tile(16, 64, num_warps=4, maxnreg=160),
    Tile(32, 64, num_warps=4, maxnreg=160),
)


@accounted
def _account(a: dict[str, Any]) -> tuple[float, float, torch.dtype]:
    """Corners are read, z too; a corner takes a multiplication and an addition."""
    corners = len(a["layers"]) * (4 if a["MODE"].bilinear else 1)
    values, dtype = a["points"].total * a["D"], a["out"].dtype
    return 2.0 * corners * values, (corners + 1.0 + a["ADDS"]) * values * dtype.itemsize, dtype


@triton.jit(launch_metadata=_account)
def _rows_kernel(
    out,  # (P, D): z, and then y
    bias,
    points,
    layers,  # Z_k
    VECTORS: tl.constexpr,
    D: tl.constexpr,
    ADDS: tl.constexpr,  # there is a z
    HAS_BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    MODE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PIECE: tl.constexpr,
):
    """y[p, d] = act(z[p, d] + sum_k (S_k Z_k)[p, d] + b[d]) for one tile."""
    PIECES: tl.constexpr = BLOCK_D // PIECE
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    first = tl.program_id(1) * BLOCK_D
    at = locate(points, p, MODE)
    p_mask = (p < points.total)[:, None]
    place = out + p.to(tl.int64)[:, None] * D
    sums = ()
    for i in tl.static_range(PIECES):
        d = first + i * PIECE + tl.arange(0, PIECE)
        acc = tl.zeros((BLOCK_P, PIECE), tl.float32)
        if ADDS:
            acc += tl.load(place + d[None, :], p_mask & (d < D)[None, :], 0.0).to(tl.float32)
        sums = sums + (acc,)  # type: ignore[assignment]
    for k in tl.static_range(len(layers)):
        corners = layer_corners(at, layers[k], VECTORS[k], MODE)
        further = ()
        for i in tl.static_range(PIECES):
            d = first + i * PIECE + tl.arange(0, PIECE)
            acc = sums[i] + gather_corners(layers[k], corners, d, d < D, D % BLOCK_D != 0, MODE)
            further = further + (acc,)  # type: ignore[assignment]
        sums = further
    for i in tl.static_range(PIECES):
        d = first + i * PIECE + tl.arange(0, PIECE)
        y = finish(sums[i], bias, d, d < D, HAS_BIAS, ACTIVATION)
        tl.store(place + d[None, :], y.to(out.dtype.element_ty), p_mask & (d < D)[None, :])


def add_rows(
    s: Sampling,
    product: Tensor | None,
    bias: Tensor | None,
    activation: str | None,
    tile: Tile | None = None,
) -> Tensor:
    """act(z + sum_k S_k Z_k + b), (P, D) in the maps' dtype; `s` samples the projected maps Z_k.

    `product` is z, which is written over; None counts as 0.
    """
    key = ("rows", product is None, bias is None, activation, tile)
    run = s.once(key, lambda: _rows_like(s, product, bias, activation, tile))
    return run(s, product, bias)


def _trial(
    s: Sampling, product: Tensor | None, bias: Tensor | None, activation: str | None, tile: Tile
) -> Tensor:
    """The same, and `product` stays as it is."""
    return add_rows(s, None if product is None else product.clone(), bias, activation, tile)


def _rows_like(
    s: Sampling,
    product: Tensor | None,
    bias: Tensor | None,
    activation: str | None,
    tile: Tile | None,
) -> Callable[[Sampling, Tensor | None, Tensor | None], Tensor]:
    """The same for tensors that are laid out as these."""
    total, outputs, dtype = s.total, s.channels[0], s.features[0].dtype
    if tile is None:
        key = Key(dtype, total, outputs)
        tile = tile_for("rows", TILES, key, s, partial(_trial, s, product, bias, activation))
    layers = Layers(s.features, s.geometry.affine)
    piece = piece_of(tile, dtype.itemsize)
    columns = min(tile.columns, -(-outputs // piece) * piece)
    launch = Launch(
        _rows_kernel,
        (-(-total // tile.rows), -(-outputs // columns)),
        "out bias points layers",
        VECTORS=layers.vectors,
        D=outputs,
        ADDS=product is not None,
        HAS_BIAS=bias is not None,
        ACTIVATION=activation,
        MODE=mode_of(s),
        BLOCK_P=tile.rows,
        BLOCK_D=columns,
        PIECE=piece,
        **options(tile),
    )

    def run(s: Sampling, product: Tensor | None, bias: Tensor | None) -> Tensor:
        out = s.features[0].new_empty(total, outputs) if product is None else product
        held = out if bias is None else bias.contiguous()
        launch(out, held, points_of(s), layers(s.features))
        return out

    return run
