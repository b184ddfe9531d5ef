"""Q_i = S_i^T G of one layer as a product: the interpolation matrix is built in registers.

    Q[cell, d] = sum_p w(p, cell) G[p, d]

From it dW_i = Q_i^T X_i and dX_i = Q_i W_i of a projected layer are plain products.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..call.sampling import Sampling
from .bilinear import hat, layer_position, load_points
from .blocks import dot
from .launch import accounted, layer_arguments, options, point_arguments, precision
from .select import Key, Tile, tile_for

__all__ = ["TILES", "transposed_product"]

# Cells (raised to one row of the map) times outputs, points a step.
TILES = (
    Tile(64, 128, 32, num_warps=4, num_stages=3),
    Tile(32, 64, 32, num_warps=4, num_stages=2),
)


@accounted
def _account(a: dict[str, Any]) -> tuple[float, float, torch.dtype]:
    """Every block of cells reads the points and the rows of G of its image."""
    total, outputs, grad = a["points"].total, a["D"], a["grad"]
    moved = a["row_blocks"] * total * outputs * grad.itemsize + a["out"].nbytes
    return 2.0 * a["row_blocks"] * a["BLOCK_S"] * total * outputs, moved, grad.dtype


@triton.jit(launch_metadata=_account)
def _transposed_product_kernel(
    out,  # (B, H_i, W_i, D)
    grad,  # (B * N, D)
    points,
    layer,
    row_blocks,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    MODE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Q[cell, d] = sum_p w(p, cell) G[p, d], the weights of BLOCK_S cells built in registers.

    One program owns its cells and walks over all points of their image: a fixed order.
    """
    image = tl.program_id(0) // row_blocks
    size = layer.size
    k = tl.arange(0, BLOCK_S)
    column = k % WIDTH
    row = tl.program_id(0) % row_blocks * (BLOCK_S // WIDTH) + k // WIDTH
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    d_mask = d < D
    acc = tl.zeros((BLOCK_S, BLOCK_D), tl.float32)
    for start in range(0, points.per_image, BLOCK_P):
        n = start + tl.arange(0, BLOCK_P)
        p = image.to(tl.int64) * points.per_image + tl.minimum(n, points.per_image - 1)
        x, y, finite = load_points(points, p)
        x, y = tl.where(finite, x, 0.0), tl.where(finite, y, 0.0)
        tx, ty = layer_position(x, y, layer, MODE)
        s = hat(tx[None, :], column[:, None].to(tl.float32), MODE)
        s *= hat(ty[None, :], row[:, None].to(tl.float32), MODE)
        g = tl.load(
            grad + p[:, None] * D + d[None, :],
            mask=(n < points.per_image)[:, None] & d_mask[None, :],
            other=0.0,
        )
        acc = dot(s.to(g.dtype), g, acc, PRECISION)
    inside = (column < size[1]) & (row < size[0])
    cell = (image.to(tl.int64) * size[0] + row) * size[1] + column
    tl.store(
        out + cell[:, None] * D + d[None, :],
        acc.to(out.dtype.element_ty),
        mask=inside[:, None] & d_mask[None, :],
    )


def transposed_product(grad: Tensor, s: Sampling, tile: Tile | None = None) -> Tensor:
    """Q = S^T G as (B, H, W, D) in grad's dtype, for the one layer of `s`, whose size alone counts.

    Points come in equal shares. Deterministic by itself. The work grows with the cells, so it is
    for coarse maps.
    """
    ((height, width),), outputs = s.sizes, grad.shape[1]
    if tile is None:
        key = Key(grad.dtype, s.total, outputs)
        trial = partial(transposed_product, grad, s)
        tile = tile_for("transposed_product", TILES, key, s, trial)
    padded = max(16, triton.next_power_of_2(width))
    cells = max(tile.rows, padded)
    row_blocks = -(-height // (cells // padded))
    out = torch.empty((s.batch, height, width, outputs), dtype=grad.dtype, device=grad.device)
    _transposed_product_kernel[(s.batch * row_blocks, -(-outputs // tile.columns))](
        out,
        grad.contiguous(),
        **point_arguments(s),
        layer=layer_arguments(s.features, s.geometry.affine)["layers"][0],
        row_blocks=row_blocks,
        D=outputs,
        WIDTH=padded,
        BLOCK_S=cells,
        BLOCK_D=tile.columns,
        BLOCK_P=tile.terms,
        PRECISION=precision(grad.dtype),
        **options(tile),
    )
    return out
