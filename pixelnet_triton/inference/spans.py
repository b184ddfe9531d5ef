"""The cells of a map under neighbouring pixels of one axis, and their weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Span", "most_cells", "span"]


@dataclass(frozen=True)
class Span:
    """Cells first ... first + count - 1 under some pixels of an axis, and where these fall.

    low (n,): the lower of each pixel's two cells, counted from `first`; share (n,) float64: the
    weight of the upper one.
    """

    first: int
    count: int
    low: Tensor
    share: Tensor

    @property
    def high(self) -> Tensor:
        return (self.low + 1).clamp_max(self.count - 1)

    def matrix(self, dtype: torch.dtype) -> Tensor:
        """A (n, count): two non-zeros a row."""
        matrix = torch.zeros(len(self.low), self.count, dtype=torch.float64)
        matrix.scatter_(1, self.low[:, None], 1 - self.share[:, None])
        return matrix.scatter_add_(1, self.high[:, None], self.share[:, None]).to(dtype)


def span(scale: float, offset: float, cells: int, start: int, stop: int) -> Span:
    """Pixels start ... stop - 1 at t = scale * x + offset, clamped to the map's cells."""
    t = torch.arange(start, stop, dtype=torch.float64).mul_(scale).add_(offset)
    low = t.clamp_(0, cells - 1).floor().clamp_(max=max(cells - 2, 0))
    first, last = int(low[0]), min(int(low[-1]) + 1, cells - 1)
    return Span(first, last - first + 1, (low - first).long(), t - low)


def most_cells(scale: float, cells: int, pixels: int) -> int:
    """How many cells a span of so many pixels may have."""
    return min(cells, math.ceil((pixels - 1) * scale) + 2)
