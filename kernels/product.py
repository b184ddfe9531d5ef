"""The second step: one product over what earlier launches gathered and projected.

    y = act( sum_i  H_i W_i^T  +  sum_k  S_k Z_k  +  b )

H_i = S_i X_i are gathered rows, Z_k = X_k W_k^T projected maps (linear.py). Where nothing is
projected, PyTorch's own product does the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import triton
import triton.language as tl
from torch import Tensor

from ..call.linear import Linear
from ..call.sampling import Sampling
from .bilinear import locate, number
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

__all__ = ["TILES", "Operand", "product"]

# Points times outputs, channels a step, cells a step. Compiled for sm_90 from bfloat16, three
# layers gathered and two projected (registers a thread, none spilled): 64x256 255, 128x128 248,
# 64x128 of four warps 255, of eight warps 240 in float32 and 200 in TF32, 32x64 127. With 32 cells
# a step 64x256 spills 28 bytes.
TILES = (
    Tile(64, 256, 32, 64, num_warps=8, num_stages=3),
    Tile(128, 128, 32, 32, num_warps=8, num_stages=3),
    Tile(64, 128, 32, 32, num_warps=4, num_stages=3),
    Tile(64, 128, 32, 32, num_warps=8, num_stages=3),
    Tile(32, 64, 32, 32, num_warps=4, num_stages=2, maxnreg=128),
)


@triton.jit
def _add_dense(
    acc,
    p,
    rows,
    weight,
    d,
    d_mask,
    VECTOR: tl.constexpr,
    CHANNELS: tl.constexpr,
    COLUMN: tl.constexpr,
    WEIGHT_VECTOR: tl.constexpr,
    MASKED_D: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """acc + H_i W_i^T for one layer; `rows` is H_i as a map of P images of one cell."""
    MASKED_C: tl.constexpr = CHANNELS % BLOCK_C != 0
    offset = p.to(tl.int64) * number(rows.strides[0]) * VECTOR
    for start in range(0, CHANNELS, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        c_mask = c < CHANNELS
        address = rows.map + offset[:, None] + c[None, :]
        if MASKED_C:
            h = tl.load(address, mask=c_mask[None, :], other=0.0)
        else:
            h = tl.load(address)
        masked: tl.constexpr = MASKED_C or MASKED_D
        w = weight_block(weight, d, d_mask, COLUMN + c, c_mask, WEIGHT_VECTOR, masked)
        acc = dot(h, w, acc, PRECISION)
    return acc


@triton.jit(launch_metadata=accounted(linear_account))
def _product_kernel(
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
            acc = _add_dense(
                acc,
                p,
                layers[i],
                weight,
                d,
                d_mask,
                VECTORS[i],
                CHANNELS[i],
                COLUMNS[i],
                WEIGHT_VECTOR,
                MASKED_D,
                PRECISION,
                BLOCK_C,
            )
    y = finish(acc, bias, d, d_mask, HAS_BIAS, ACTIVATION) + at.mark[:, None]
    address = out + p.to(tl.int64)[:, None] * D + d[None, :]
    tl.store(address, y.to(out.dtype.element_ty), mask=p_mask[:, None] & d_mask[None, :])


def product(
    operands: Sequence[Operand], s: Sampling, head: Linear, tile: Tile | None = None
) -> Tensor:
    """act(sum_i z_i + b), (P, D) in the weight's dtype; ``operands[i]`` stands for layer i of `s`.

    An operand "gather" is the rows (P, C_i), each of them dense.
    """
    trial = partial(product, operands, s, head)
    return launch_linear(_product_kernel, "product", TILES, operands, s, head, tile, trial)
