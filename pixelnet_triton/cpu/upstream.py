"""The gradient that comes from above, masked and converted block by block, and what it is for.

    G = dL/dz = dL/dy where y > 0        (P, D)

Nothing of the size of G is made: at D = 4,096 a fresh copy of it costs page faults that take as
long as a fifth of the products, and its memory. A block fits the cache, and every use of it is
made while it is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Targets", "Upstream", "column_blocks", "dtype_of_sums"]

# One block of output columns: malloc hands it out again without fresh pages (20 MB raised the peak
# of 10,000 x 4,096 outputs by a third). Short rows keep one image's table
# in the L2 cache (bags of 8 from 980 cells: 4.6 ms per 2,000 x 4,096 values with 256 columns, 16
# with 4,096), but every block starts its operators' threads anew: no more blocks than needed.
BLOCK_BYTES = 1 << 22
COLUMN_BLOCK, WIDEST_BLOCK = 256, 2048


def column_blocks(points: int, out_features: int, itemsize: int) -> list[slice]:
    """The columns of `points` rows of outputs, in blocks that are worked on together.

    `itemsize`: bytes of an operand of the products.
    """
    width = BLOCK_BYTES // itemsize // points // COLUMN_BLOCK * COLUMN_BLOCK
    width = min(max(width, COLUMN_BLOCK), WIDEST_BLOCK)
    return [slice(at, min(at + width, out_features)) for at in range(0, out_features, width)]


def dtype_of_sums(points: int, weight: Tensor, wide: torch.dtype) -> torch.dtype:
    """What G W is summed in, for the operand W = `weight` (D, C): as it is if in one product."""
    blocks = column_blocks(points, weight.shape[0], weight.element_size())
    return weight.dtype if len(blocks) == 1 else wide


@dataclass(frozen=True)
class Targets:
    """What a backward pass is to find.

    feature_grads: which maps want a gradient. weight: dW (D, sum C), written. points: (P, 2),
    added to. None where not asked for.
    """

    feature_grads: Sequence[bool]
    weight: Tensor | None
    points: Tensor | None


class Accepts(Protocol):
    """Layers that take the upstream gradient by blocks of columns."""

    def add(self, columns: slice, grad: Tensor) -> None:
        """Some columns of D, and G (n, d) of them."""


@dataclass(frozen=True)
class Upstream:
    """G (P, D) = `grad` where `output` is positive; all of it without one. Computed in `dtype`."""

    grad: Tensor
    output: Tensor | None
    dtype: torch.dtype

    def block(self, rows: slice, columns: slice) -> Tensor:
        """A piece of G, contiguous."""
        own = self.grad[rows, columns]
        if self.output is not None:
            own = torch.ops.aten.threshold_backward.default(own, self.output[rows, columns], 0)
        return own.to(self.dtype).contiguous()

    def pass_to(self, layers: Sequence[Accepts], rows: slice, sums: Tensor | None) -> None:
        """Hand G of some points to each of `layers`, by blocks; add their sum to `sums` (D,)."""
        points, out_features = rows.stop - rows.start, self.grad.shape[1]
        for columns in column_blocks(points, out_features, self.dtype.itemsize):
            own = self.block(rows, columns)
            if sums is not None:
                sums[columns] += own.sum(0)
            for each in layers:
                each.add(columns, own)

    def whole(self) -> Tensor:
        """G, for small calls."""
        return self.block(slice(None), slice(None))
