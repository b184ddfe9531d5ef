"""The one-pass kernel: gather, concatenation, matrix product, bias and activation in one launch.

    y = act( sum_i  (S_i X_i) W_i^T  +  b )

The left operand is interpolated in registers, tile by tile, and is never written.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..call.linear import Linear
from ..call.sampling import Sampling
from .bilinear import gather_corners, layer_corners, locate
from .blocks import dot, finish, weight_block
from .direct import Launch
from .launch import (
    Layers,
    accounted,
    capability,
    matrix,
    mode_of,
    options,
    points_of,
    precision,
    row_vector,
    starts,
)
from .select import Key, Tile, tile_for

__all__ = ["LEAN_TILE", "TILES", "fused_linear"]

# On Hopper, where no GELU follows, under which it spills: 255 registers, none spilled. On an H200
# the first layer W5 of the benchmarks (five layers, 5 x 2,000 points, 256 outputs) took 56 us with
# it, 77 with eight warps.
LEAN_TILE = Tile(64, 256, 32, num_warps=4, num_stages=3)

# Points times outputs, channels a step. 128x256 spills under a GELU, so it is not here.
TILES = (
    LEAN_TILE,
    Tile(64, 256, 32, num_warps=8, num_stages=3),
    Tile(128, 128, 32, num_warps=8, num_stages=3),
    Tile(64, 128, 32, num_warps=4, num_stages=3),
    Tile(64, 128, 32, num_warps=8, num_stages=3),
    Tile(64, 64, 32, num_warps=4, num_stages=3),
    # By itself the compiler aims at 96 registers here and spills four bytes under a GELU.
    Tile(32, 64, 32, num_warps=4, num_stages=2, maxnreg=128),
)


@accounted
def _account(a: dict[str, Any]) -> tuple[float, float, torch.dtype]:
    """The product; each tile of outputs reads the corners, each tile of points the weight."""
    total, outputs, channels = a["points"].total, a["D"], sum(a["CHANNELS"])
    corners = 4 if a["MODE"].bilinear else 1
    read = corners * total * channels * -(-outputs // a["BLOCK_D"])
    read += -(-total // a["BLOCK_P"]) * channels * outputs
    size = a["out"].itemsize
    return 2.0 * total * channels * outputs, size * (read + total * outputs), a["out"].dtype


@triton.jit
def _add_gathered(
    acc,
    at,
    layer,
    weight,
    d,
    d_mask,
    VECTOR: tl.constexpr,
    CHANNELS: tl.constexpr,
    COLUMN: tl.constexpr,
    WEIGHT_VECTOR: tl.constexpr,
    MASKED_D: tl.constexpr,
    MODE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """acc + (S_i X_i) W_i^T for one layer; the left operand is interpolated in registers."""
    MASKED_C: tl.constexpr = CHANNELS % BLOCK_C != 0
    corners = layer_corners(at, layer, VECTOR, MODE)
    for start in range(0, CHANNELS, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        c_mask = c < CHANNELS
        h = gather_corners(layer, corners, c, c_mask, MASKED_C, MODE)
        masked: tl.constexpr = MASKED_C or MASKED_D
        w = weight_block(weight, d, d_mask, COLUMN + c, c_mask, WEIGHT_VECTOR, masked)
        acc = dot(h.to(w.dtype), w, acc, PRECISION)
    return acc


@triton.jit(launch_metadata=_account)
def _fused_linear_kernel(
    out,  # (P, D)
    weight,  # (D, sum C_i)
    bias,
    points,
    layers,
    VECTORS: tl.constexpr,
    CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WEIGHT_VECTOR: tl.constexpr,
    D: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    MODE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """y[p, d] = act(sum_i z_i[p, d] + b[d]) for BLOCK_P points and BLOCK_D outputs.

    Tiles of outputs of the same points run next to each other, so that their corners come from L2.
    Points past the end repeat the last one.
    """
    output_tiles: tl.constexpr = (D + BLOCK_D - 1) // BLOCK_D
    p = tl.program_id(0) // output_tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    p_mask = p < points.total
    d = tl.program_id(0) % output_tiles * BLOCK_D + tl.arange(0, BLOCK_D)
    d_mask = d < D
    at = locate(points, p, MODE)
    acc = tl.zeros((BLOCK_P, BLOCK_D), tl.float32)
    for i in tl.static_range(len(layers)):
        acc = _add_gathered(
            acc,
            at,
            layers[i],
            weight,
            d,
            d_mask,
            VECTORS[i],
            CHANNELS[i],
            COLUMNS[i],
            WEIGHT_VECTOR,
            D % BLOCK_D != 0,
            MODE,
            PRECISION,
            BLOCK_C,
        )
    y = finish(acc, bias, d, d_mask, HAS_BIAS, ACTIVATION)
    address = out + p.to(tl.int64)[:, None] * D + d[None, :]
    tl.store(address, y.to(out.dtype.element_ty), mask=p_mask[:, None] & d_mask[None, :])


def fused_linear(s: Sampling, head: Linear, tile: Tile | None = None) -> Tensor:
    """act(h W^T + b), (P, D) in the weight's dtype; maps and weight of any strides."""
    run = s.once(("fused_linear", head.layout, tile), lambda: _fused_linear_like(s, head, tile))
    return run(s, head)


def _fused_linear_like(
    s: Sampling, head: Linear, tile: Tile | None
) -> Callable[[Sampling, Linear], Tensor]:
    """The same for tensors that are laid out as these."""
    weight, bias, activation = head
    total, outputs, dtype, device = s.total, head.out_features, weight.dtype, weight.device
    if tile is None:
        key = Key(dtype, total, outputs, min(s.channels), capability(), activation)
        tile = tile_for("fused_linear", TILES, key, s, partial(fused_linear, s, head))
    layers = Layers(s.features, s.geometry.affine)
    launch = Launch(
        _fused_linear_kernel,
        (-(-total // tile.rows) * -(-outputs // tile.columns),),
        "out weight bias points layers",
        VECTORS=layers.vectors,
        CHANNELS=s.channels,
        COLUMNS=starts(s.channels),
        WEIGHT_VECTOR=row_vector(weight),
        D=outputs,
        HAS_BIAS=bias is not None,
        ACTIVATION=activation,
        MODE=mode_of(s),
        BLOCK_P=tile.rows,
        BLOCK_D=tile.columns,
        BLOCK_C=tile.terms,
        PRECISION=precision(dtype),
        **options(tile),
    )

    def run(s: Sampling, head: Linear) -> Tensor:
        out = torch.empty((total, outputs), dtype=dtype, device=device)
        held = head.weight if head.bias is None else head.bias.contiguous()
        launch(out, matrix(head.weight), held, points_of(s), layers(s.features))
        return out

    return run
