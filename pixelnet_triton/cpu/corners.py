"""Corner cells of the points and their weights: rows of S, four non-zeros each (locating.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Array", "CornerArrays", "Corners"]

Array = NDArray[Any]


class CornerArrays(NamedTuple):
    """Those of :class:`Corners`, whose index is `cells`."""

    cells: Array
    weight: Array | None
    slope: Array | None

    def of(self, part: slice) -> CornerArrays:
        """Some points."""
        cells, weight, slope = self
        return CornerArrays(
            cells[:, part],
            None if weight is None else weight[:, part],
            None if slope is None else slope[:, :, part],
        )


@dataclass(frozen=True)
class Corners:
    """Rows of S for M layers, as lists of K cells a point.

    index (M, P, K) integer; weight (M, P, K), None where every weight is 1; slope (2, M, P, K),
    dweight/dx and dweight/dy, where asked for. Without M for a single layer or a stack.
    """

    index: Tensor
    weight: Tensor | None
    slope: Tensor | None = None

    def layer(self, i: int) -> Corners:
        """Layer i alone: index (P, K)."""
        weight = None if self.weight is None else self.weight[i]
        return Corners(self.index[i], weight, None if self.slope is None else self.slope[:, i])

    def layers(self, chosen: Sequence[int]) -> Corners:
        """Some of the layers: index (M, P, K)."""
        index = self.index[list(chosen)]
        return Corners(index, None if self.weight is None else self.weight[list(chosen)])

    def arrays(self) -> CornerArrays:
        """The same memory, of M layers."""
        weight = None if self.weight is None else self.weight.numpy()
        slope = None if self.slope is None else self.slope.numpy()
        return CornerArrays(self.index.numpy(), weight, slope)

    def of_points(self, part: slice) -> Corners:
        """Some points of a single layer."""
        weight = None if self.weight is None else self.weight[part]
        return Corners(
            self.index[part], weight, None if self.slope is None else self.slope[:, part]
        )

    def unseen_at(self, row: int) -> Corners:
        """Corners (P, K); those without weight at `row`, of zeros: 0 times infinity is NaN."""
        if self.weight is None:
            return self
        return Corners(self.index.masked_fill(self.weight == 0, row), self.weight, self.slope)

    def outside(self) -> Tensor | None:
        """Where no corner has weight, (P, 1); None if there is no such point. Corners (P, K)."""
        if self.weight is None:
            return None
        outside = self.weight.any(1).logical_not_()
        return outside.unsqueeze(1) if bool(outside.any()) else None

    def blank_outside(self, rows: Tensor) -> Tensor:
        """`rows` (P, C), in place 0 :meth:`outside`: 0 times infinity would be NaN."""
        outside = self.outside()
        return rows if outside is None else rows.masked_fill_(outside, 0)

    def stacked(self) -> Corners:
        """All layers in one list a point, index (P, M * K): S = [S_1 | ... | S_M]."""
        if self.index.shape[0] == 1:
            return self.layer(0)
        weight = None if self.weight is None else self.weight.transpose(0, 1).flatten(1)
        slope = None if self.slope is None else self.slope.transpose(1, 2).flatten(2)
        return Corners(self.index.transpose(0, 1).flatten(1), weight, slope)
