"""S X and S^T G by `embedding_bag`, the fastest gather PyTorch has on a CPU.

    gather    out[p]    = sum over k of weight[p, k] * table[index[p, k]]
    scatter   out[cell] = sum over (p, k) with index[p, k] = cell of weight[p, k] * table[p]

The scatter is the same operator over transposed lists: the entries of `index`, sorted by cell.
The sort is stable, so every sum has one order and the result is deterministic.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .corners import Corners

__all__ = ["TransposedLists", "gather_rows"]

# PyTorch sorts this many integers and more by radix (8 ns each), fewer by comparison (40 ns):
# from 6,000 on it pays to pad.
RADIX_SORT = 32768
PADDED_SORT = 6000


def _bags(table: Tensor, rows: Tensor, starts: Tensor, weight: Tensor | None) -> Tensor:
    """out[i] = sum over j from starts[i] up to starts[i + 1] of weight[j] * table[rows[j]]."""
    # A table that requires gradients would take the slower way that prepares for them.
    return torch.embedding_bag(table.detach(), rows, starts, False, 0, False, weight)[0]


def gather_rows(table: Tensor, index: Tensor, weight: Tensor | None) -> Tensor:
    """S @ table: (rows, D) read at index (P, K) with weight (P, K) -> (P, D)."""
    starts = torch.arange(0, index.numel(), index.shape[1], dtype=index.dtype)
    return _bags(table, index.reshape(-1), starts, None if weight is None else weight.reshape(-1))


@dataclass(frozen=True)
class TransposedLists:
    """S^T restricted to `cells`: for each, the points that touch it and their weights.

    points (P * K,) sorted by cell; starts, where the list of each cell begins; weight (P * K,).
    """

    points: Tensor
    starts: Tensor
    weight: Tensor | None

    @staticmethod
    def of_all(corners: Corners, cells: int) -> TransposedLists:
        """A list for each of `cells` rows, empty ones included. Corners (P, K)."""
        counts = torch.bincount(corners.index.reshape(-1), minlength=cells)
        _, points, weight = _sorted_by_cell(corners, cells)
        return TransposedLists(points, counts.cumsum(0).sub_(counts), weight)

    @staticmethod
    def of_touched(corners: Corners, cells: int) -> tuple[Tensor, TransposedLists]:
        """The rows, of `cells`, that any point touches, ascending, and their lists."""
        index, points, weight = _sorted_by_cell(corners, cells)
        touched, counts = torch.unique_consecutive(index, return_counts=True)
        return touched.long(), TransposedLists(points, counts.cumsum(0).sub_(counts), weight)

    def scatter(self, table: Tensor) -> Tensor:
        """S^T @ table: (P, D) -> (number of lists, D)."""
        return _bags(table, self.points, self.starts, self.weight)


def _sorted_by_cell(corners: Corners, cells: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Cell, point and weight of every corner, in the order of the cells."""
    index = corners.index.reshape(-1)
    entries, per_point = index.numel(), corners.index.shape[-1]
    if PADDED_SORT <= entries < RADIX_SORT:  # the padding sorts behind everything
        index = torch.nn.functional.pad(index, (0, RADIX_SORT - entries), value=cells)
    index, order = (found[:entries] for found in index.sort(stable=True))
    weight = None if corners.weight is None else corners.weight.reshape(-1)[order]
    if per_point == 4:
        return index, order >> 2, weight  # a third of the time of the division
    return index, order if per_point == 1 else order // per_point, weight
