"""The one-pass kernel: gather, concatenation, matrix product, bias and activation in one launch.

    y = act( sum_i  (S_i X_i) W_i^T  +  b )

The left operand of a gathered layer is interpolated in registers, tile by tile, and is never
written. Projected layers are added as linear.py says.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import triton
import triton.language as tl
from torch import Tensor

from ..call.linear import Linear
from ..call.sampling import Sampling
from .bilinear import gather_corners, layer_corners, locate
from .blocks import dot, finish, weight_block
from .launch import accounted
from .linear import (
    Operand,
    add_projected,
    launch_linear,
    linear_account,
    points_and_outputs,
)
from .select import Tile

__all__ = ["LEAN_TILE", "TILES", "Operand", "fused_linear"]

# Four warps do where every layer is gathered and no GELU follows: 255 registers, none spilled. On
# an H200 the first layer W5 of the benchmarks (five layers, 5 x 2,000 points, 256 outputs) took
# 56 us with it, 77 with eight warps. Under a GELU, or beside a projected layer, it spills 100 to
# 1,732 bytes.
LEAN_TILE = Tile(64, 256, 32, 32, num_warps=4, num_stages=3)

# Points times outputs, channels a step, cells a step. Compiled for sm_90 from bfloat16, five layers
# of which two are projected (registers a thread, none spilled): 64x256 210, 128x128 222, 64x128 of
# four warps 254, of eight warps 222 in float32 and 188 in TF32, 32x64 128. 128x256 spills under a
# GELU, so it is not here.
TILES = (
    LEAN_TILE,
    Tile(64, 256, 32, 32, num_warps=8, num_stages=3),
    Tile(128, 128, 32, 32, num_warps=8, num_stages=3),
    Tile(64, 128, 32, 32, num_warps=4, num_stages=3),
    Tile(64, 128, 32, 32, num_warps=8, num_stages=3),
    # By itself the compiler aims at 96 registers here and spills four bytes under a GELU.
    Tile(32, 64, 32, 32, num_warps=4, num_stages=2, maxnreg=128),
)


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


@triton.jit(launch_metadata=accounted(linear_account))
def _fused_linear_kernel(
    out,  # (P, D)
    weight,  # (D, sum C_i)
    bias,
    points,
    tiles,  # of points in each group
    layers,
    VECTORS: tl.constexpr,
    GROUPED: tl.constexpr,
    STRATEGIES: tl.constexpr,
    CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTHS: tl.constexpr,
    WEIGHT_VECTOR: tl.constexpr,
    D: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    MODE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """y[p, d] = act(sum_i z_i[p, d] + b[d]) for BLOCK_P points and BLOCK_D outputs."""
    MASKED_D: tl.constexpr = D % BLOCK_D != 0
    p, p_mask, image, d, d_mask = points_and_outputs(points, tiles, GROUPED, D, BLOCK_P, BLOCK_D)
    at = locate(points, p, MODE)
    acc = tl.zeros((BLOCK_P, BLOCK_D), tl.float32)
    acc = add_projected(
        acc,
        at,
        image,
        d,
        d_mask,
        layers,
        STRATEGIES,
        VECTORS,
        WIDTHS,
        MASKED_D,
        MODE,
        PRECISION,
        BLOCK_S,
    )
    for i in tl.static_range(len(layers)):
        if STRATEGIES[i] == "gather":
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
                MASKED_D,
                MODE,
                PRECISION,
                BLOCK_C,
            )
    y = finish(acc, bias, d, d_mask, HAS_BIAS, ACTIVATION) + at.mark[:, None]
    address = out + p.to(tl.int64)[:, None] * D + d[None, :]
    tl.store(address, y.to(out.dtype.element_ty), mask=p_mask[:, None] & d_mask[None, :])


def fused_linear(
    operands: Sequence[Operand], s: Sampling, head: Linear, tile: Tile | None = None
) -> Tensor:
    """act(sum_i z_i + b), (P, D) in the weight's dtype; ``operands[i]`` stands for layer i of `s`.

    An operand "gather" is the map (B, C_i, H_i, W_i), of any strides.
    """
    trial = partial(fused_linear, operands, s, head)
    return launch_linear(
        _fused_linear_kernel, "fused_linear", TILES, operands, s, head, tile, trial
    )
