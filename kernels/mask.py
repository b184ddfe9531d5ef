"""What arrives from above: G = dL/dz in the order of the points, and the gradient of the bias.

    G[k, d] = grad[p, d] where y[p, d] > 0, else 0          p = place[k], y = relu(z)
    db[d]   = sum_k G[k, d]

in one pass over grad and y; without y nothing is masked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .blocks import channels_of
from .direct import Launch
from .launch import accounted, options, power_of_2
from .select import Tile

__all__ = ["masked_like"]

# Rows and columns of G at a time. It is not tuned: the order of the sums would depend on it.
TILE = Tile(16, 256, num_warps=4)
SUMS = Tile(32, 64)
# Rows of a program: many, where there are enough for every multiprocessor, for few partial sums.
SHARES = ((1 << 24, 128), (1 << 20, 64), (0, 32))


@accounted
def _account(a: dict[str, Any]) -> tuple[float, float, torch.dtype]:
    """grad and y are read, G is written; partial sums are few."""
    moved = a["grad"].nbytes * (3.0 if a["MASKED"] else 2.0)
    return float(a["grad"].numel()), moved, a["grad"].dtype


@triton.jit
def _rows_of(grad, output, p, p_mask, d, d_mask, D: tl.constexpr, MASKED: tl.constexpr):
    """The rows p of grad and, with MASKED, of output."""
    offset = p[:, None] * D + d[None, :]
    mask = p_mask[:, None] & d_mask[None, :]
    g = tl.load(grad + offset, mask=mask, other=0.0)
    y = g
    if MASKED:
        y = tl.load(output + offset, mask=mask, other=0.0)
    return g, y


@triton.jit(launch_metadata=_account)
def _mask_kernel(
    out,  # (P, D)
    sums,  # (shares of points, D) float32
    grad,  # (P, D)
    output,  # y (P, D)
    place,
    total,
    D: tl.constexpr,
    MASKED: tl.constexpr,
    SUMMED: tl.constexpr,
    SHARE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """out[k] = grad[place[k]], masked; sums[share] = sum of out over the share's places."""
    share = tl.program_id(0).to(tl.int64)
    d, d_mask = channels_of(tl.program_id(1), D, BLOCK_D)
    acc = tl.zeros((BLOCK_P, BLOCK_D), tl.float32)
    k = share * SHARE + tl.arange(0, BLOCK_P)
    g, y = _rows_of(grad, output, tl.load(place + k, k < total, 0), k < total, d, d_mask, D, MASKED)
    p = tl.load(place + k + BLOCK_P, k + BLOCK_P < total, 0)
    # The next rows are read before these are written: no load passes a store.
    for start in tl.static_range(0, SHARE, BLOCK_P):
        k = share * SHARE + start + tl.arange(0, BLOCK_P)
        value = g
        if MASKED:
            value = tl.where(y.to(tl.float32) <= 0.0, 0.0, g)
        if start + BLOCK_P < SHARE:
            after = k + BLOCK_P
            g, y = _rows_of(grad, output, p, after < total, d, d_mask, D, MASKED)
            p = tl.load(place + after + BLOCK_P, after + BLOCK_P < total, 0)
        mask = (k < total)[:, None] & d_mask[None, :]
        tl.store(out + k[:, None] * D + d[None, :], value, mask=mask)
        if SUMMED:
            acc += value.to(tl.float32)
    if SUMMED:
        tl.store(sums + share * D + d, tl.sum(acc, axis=0), mask=d_mask)


@accounted
def _sum_account(a: dict[str, Any]) -> tuple[float, float, torch.dtype]:
    """Partial sums are read."""
    return float(a["sums"].numel()), float(a["sums"].nbytes), a["sums"].dtype


@triton.jit(launch_metadata=_sum_account)
def _sum_kernel(out, sums, rows, D: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr):
    """out[d] = sum of sums[r, d], in a fixed order."""
    d, d_mask = channels_of(tl.program_id(0), D, BLOCK_D)
    acc = tl.zeros((BLOCK_R, BLOCK_D), tl.float32)
    for start in range(0, rows, BLOCK_R):
        r = start + tl.arange(0, BLOCK_R)
        mask = (r < rows)[:, None] & d_mask[None, :]
        acc += tl.load(sums + r.to(tl.int64)[:, None] * D + d[None, :], mask=mask, other=0.0)
    tl.store(out + d, tl.sum(acc, axis=0).to(out.dtype.element_ty), mask=d_mask)


Masked = tuple[Tensor, "Tensor | None"]


def masked_like(
    grad: Tensor, is_masked: bool, bias: bool
) -> Callable[[Tensor, Tensor | None, Tensor], Masked]:
    """(G, db) in grad's dtype, for grad (P, D), y (P, D) or None, and the places of an order.

    For contiguous tensors that are laid out as `grad`. Without `bias` db is None.
    """
    total, outputs = grad.shape
    columns = min(TILE.columns, power_of_2(outputs))
    share = next(rows for values, rows in SHARES if total * outputs >= values)
    shares, blocks = -(-total // share), -(-outputs // columns)
    mask = Launch(
        _mask_kernel,
        (shares, blocks),
        "out sums grad output place",
        total=total,
        D=outputs,
        MASKED=is_masked,
        SUMMED=bias,
        SHARE=share,
        BLOCK_P=TILE.rows,
        BLOCK_D=columns,
        **options(TILE),
    )
    add = Launch(
        _sum_kernel,
        (-(-outputs // SUMS.columns),),
        "out sums",
        rows=shares,
        D=outputs,
        BLOCK_R=SUMS.rows,
        BLOCK_D=SUMS.columns,
        **options(SUMS),
    )

    def run(grad: Tensor, output: Tensor | None, place: Tensor) -> Masked:
        out = grad.new_empty(total, outputs)
        output = grad if output is None else output
        if not bias:
            mask(out, grad, grad, output, place)
            return out, None
        sums = grad.new_empty(shares, outputs, dtype=torch.float32)
        mask(out, sums, grad, output, place)
        db = grad.new_empty(outputs)
        add(db, sums)
        return out, db

    return run
