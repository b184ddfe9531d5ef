"""Matrix products, the dtype that goes into them, and the upstream gradient they multiply.

    G = dL/dz = dL/dy where y > 0        (P, D)

bfloat16 operands go as they are where the CPU has matrix units for them (Intel's AMX): they
multiply at eight times the rate of float32 and sum in it. Everything else is multiplied in the
dtype that it is computed in.

Nothing of the size of G is made: at D = 4,096 a fresh copy of it costs page faults that take as
long as a fifth of the products, and its memory. A block fits the cache, and every use of it is
made while it is there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from .routes import column_blocks

__all__ = [
    "TILE",
    "Upstream",
    "activate_",
    "add_product",
    "compute_dtype",
    "dtype_of_sums",
    "multiplies_half",
    "product_dtype",
    "width",
]

# BLAS multiplies by 16 columns in less time than by 9 to 15 of them, and planes in a tenth of what
# 2 to 11 take; four rows in less than two or three. What it does for fewer is also one long sum,
# four to eight times as far off. So operands of float32 are filled up with zeros, where the other
# one has so many values, or sums so many terms.
TILE, ROWS = 16, 4
NARROW, UNEVEN, LONG = 1 << 14, 1 << 18, 1 << 11


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """What features of `dtype` are interpolated and summed in: faster than half, more accurate."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@lru_cache(maxsize=1)
def _has_matrix_units() -> bool:
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return supported is not None and torch.backends.mkldnn.is_available() and bool(supported())


def multiplies_half(dtype: torch.dtype) -> bool:
    """Is that a dtype of half precision which this CPU multiplies in units of its own?"""
    return dtype == torch.bfloat16 and _has_matrix_units()


def product_dtype(dtype: torch.dtype) -> torch.dtype:
    """What the operands of products are, for features of `dtype`."""
    return dtype if multiplies_half(dtype) else compute_dtype(dtype)


def dtype_of_sums(points: int, weight: Tensor, wide: torch.dtype) -> torch.dtype:
    """What G W is summed in, for the operand W = `weight` (D, C): as it is if in one product."""
    blocks = column_blocks(points, weight.shape[0], weight.element_size())
    return weight.dtype if len(blocks) == 1 else wide


def add_product(out: Tensor, left: Tensor, right: Tensor, onto: Tensor | None) -> None:
    """out = onto + left @ right; `onto` is `out` itself, a row, or None.

    A product of bfloat16 is rounded once before it is added to something wider.
    """
    rows, columns = left.shape[0], right.shape[1]
    height, wide = _height(rows, right), width(left, columns)
    if (height, wide) == (rows, columns) and left.dtype == out.dtype:
        if onto is None:
            torch.mm(left, right, out=out)
        else:
            torch.addmm(onto, left, right, out=out)
        return
    left = _filled(left, height)
    right = _filled(right.t(), wide).t()
    # `out=` because autocast, already obeyed by the caller, leaves it alone.
    product = torch.mm(left, right, out=left.new_empty((height, wide)))[:rows, :columns]
    if onto is None:
        out.copy_(product)
    else:
        torch.add(onto, product, out=out)


def width(left: Tensor, columns: int) -> int:
    """With how many columns, some of zeros, the product of `left` and a narrow operand is made.

    `left`: (n, K), or (B, n, K).
    """
    if not 1 < columns < TILE or left.dtype != torch.float32:
        return columns
    planes = left.stride(-2) == 1 and left.shape[-1] > 1
    worth = NARROW if planes and columns < 12 else UNEVEN if columns > 8 else math.inf
    return TILE if left.numel() >= worth else columns


def _height(rows: int, right: Tensor) -> int:
    """With how many rows the product of a low operand and `right` is made.

    Calls of a few points are such products, too: theirs are too small for it to be worth it.
    """
    if not 1 < rows < TILE or right.dtype != torch.float32:
        return rows
    if right.numel() < UNEVEN and right.shape[0] < LONG:
        return rows
    return -(-rows // ROWS) * ROWS


def _filled(matrix: Tensor, rows: int) -> Tensor:
    """`matrix` over rows of zeros, in its layout."""
    count = matrix.shape[0]
    if count == rows:
        return matrix
    if matrix.stride(0) == 1:
        filled = matrix.new_zeros((matrix.shape[1], rows)).t()
    else:
        filled = matrix.new_zeros((rows, matrix.shape[1]))
    filled[:count] = matrix
    return filled


def activate_(z: Tensor, activation: str | None) -> None:
    """z = act(z), in place."""
    if activation == "relu":
        z.relu_()
    elif activation == "gelu":
        torch.ops.aten.gelu_(z)


@dataclass(frozen=True)
class Upstream:
    """G (P, D) = `grad` where `output` is positive; all of it without one. Computed in `dtype`."""

    grad: Tensor
    output: Tensor | None
    dtype: torch.dtype

    @staticmethod
    def of(grad: Tensor, output: Tensor | None) -> Upstream:
        """Both (P, D) or (B, N, D)."""
        if grad.dim() == 3:
            grad = grad.flatten(0, 1)
            output = None if output is None else output.flatten(0, 1)
        return Upstream(grad, output, product_dtype(grad.dtype))

    def block(self, points: slice, columns: slice) -> Tensor:
        """A piece of G, contiguous."""
        piece = self.grad[points, columns]
        if self.output is not None:
            output = self.output[points, columns]
            piece = torch.ops.aten.threshold_backward.default(piece, output, 0)
        return piece.to(self.dtype).contiguous()

    def pass_to(
        self,
        takers: Sequence[Callable[[slice, Tensor], None]],
        points: slice,
        sums: Tensor | None,
    ) -> None:
        """Hand columns (a slice) and G of some points to each taker; add G to `sums` (D,)."""
        count, out_features = points.stop - points.start, self.grad.shape[1]
        for columns in column_blocks(count, out_features, self.dtype.itemsize):
            block = self.block(points, columns)
            if sums is not None:
                sums[columns] += block.sum(0)
            for take in takers:
                take(columns, block)

    def whole(self) -> Tensor:
        """G, for calls of few points."""
        return self.block(slice(None), slice(None))
