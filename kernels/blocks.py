"""What the kernels share beyond interpolation: blocks of channels, products, bias and activation.

`block_of` is for the gather, which counts blocks of channels over all layers on grid axis 1.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["all_finite", "block_of", "channels_of", "dot", "finish", "relu", "weight_block"]


@triton.jit
def block_of(FIRST: tl.constexpr, CHANNELS: tl.constexpr, BLOCK_C: tl.constexpr):
    """Which of a layer's blocks of channels this program works on, and whether it is one of them.

    FIRST is the number of the layer's first block.
    """
    block = tl.program_id(1) - FIRST
    return block, (block >= 0) & (block < tl.cdiv(CHANNELS, BLOCK_C))


@triton.jit
def channels_of(block, CHANNELS: tl.constexpr, BLOCK_C: tl.constexpr):
    """The channels (BLOCK_C,) of a block, and which of them exist."""
    c = block * BLOCK_C + tl.arange(0, BLOCK_C)
    return c, c < CHANNELS


@triton.jit
def all_finite(x):
    """Is every number of a float32 tile finite? All bits of the exponents of others are set."""
    return tl.max(x.to(tl.int32, bitcast=True) & 0x7F800000) != 0x7F800000


@triton.jit
def dot(a, b, acc, PRECISION: tl.constexpr):
    """acc + a b, in float32."""
    if PRECISION == "widened":
        return tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision="ieee")
    else:
        return tl.dot(a, b, acc, input_precision=PRECISION)


@triton.jit
def weight_block(weight, d, d_mask, c, c_mask, VECTOR: tl.constexpr, MASKED: tl.constexpr):
    """W^T[c, d] as a right operand (BLOCK_C, BLOCK_D); rows of W start at multiples of VECTOR.

    Without MASKED every entry exists.
    """
    row = tl.multiple_of(d.to(tl.int64) * weight.strides[0], VECTOR)
    address = weight.data + c.to(tl.int64)[:, None] * weight.strides[1] + row[None, :]
    if MASKED:
        return tl.load(address, mask=c_mask[:, None] & d_mask[None, :], other=0.0)
    else:
        return tl.load(address)


@triton.jit
def relu(x):
    """max(x, 0), and NaN where x is NaN, as torch has it; a plain maximum makes that 0 on a GPU."""
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def finish(acc, bias, d, d_mask, HAS_BIAS: tl.constexpr, ACTIVATION: tl.constexpr):
    """act(acc + b), (BLOCK_P, BLOCK_D)."""
    if HAS_BIAS:
        acc += tl.load(bias + d, mask=d_mask, other=0.0).to(tl.float32)[None, :]
    if ACTIVATION == "relu":
        acc = relu(acc)
    if ACTIVATION == "gelu":
        acc = 0.5 * acc * (1.0 + tl.math.erf(acc * 0.7071067811865476))
    return acc
