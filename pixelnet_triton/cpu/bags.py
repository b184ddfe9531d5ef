"""S X and S^T G by `embedding_bag`, the fastest gather PyTorch has on a CPU.

    gather    out[p]    = sum over k of weight[p, k] * table[index[p, k]]
    scatter   out[cell] = sum over (p, k) with index[p, k] = cell of weight[p, k] * table[p]

The scatter is the same operator over transposed lists: the entries of `index`, sorted by cell.
The sort is stable, so every sum has one order and the result is deterministic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .corners import Corners

__all__ = ["TransposedLists", "gather_rows", "scatter_few"]

# NumPy sorts numbers of 16 bits by radix; PyTorch sorts RADIX_SORT integers and more so, fewer by
# comparison, which takes several times as long each: from PADDED_SORT on it pays to pad.
SHORT = 1 << 16
# Entries of a list that are summed one after another. Sums of so many are as good as those of a
# product of matrices, whose blocks are about as long.
LONGEST = 256
RADIX_SORT = 32768
PADDED_SORT = 6000


def _bags(table: Tensor, rows: Tensor, starts: Tensor, weight: Tensor | None) -> Tensor:
    """out[i] = sum over j from starts[i] up to starts[i + 1] of weight[j] * table[rows[j]]."""
    # A table that requires gradients would take the slower way that prepares for them.
    return torch.embedding_bag(table.detach(), rows, starts, False, 0, False, weight)[0]


def gather_rows(table: Tensor, index: Tensor, weight: Tensor | None) -> Tensor:
    """S @ table: (rows, D) read at index (P, K) with weight (P, K) -> (P, D)."""
    starts = torch.arange(0, index.numel(), index.shape[1], dtype=index.dtype, device="cpu")
    return _bags(table, index.reshape(-1), starts, None if weight is None else weight.reshape(-1))


@dataclass(frozen=True)
class TransposedLists:
    """S^T restricted to some cells: for each, the points that touch it and their weights.

    points (E,) sorted by cell; starts, where the list of each cell begins; weight (E,) or None.
    """

    points: Tensor
    starts: Tensor
    weight: Tensor | None

    @staticmethod
    def of_stack(corners: Corners, cells: int, outside: bool) -> TransposedLists:
        """A list for each of `cells` rows, empty ones included. Corners (P, K).

        `outside`: some may have no weight, and are left out: 0 times NaN would be NaN.
        """
        index = corners.index.reshape(-1)
        order = _order(index, cells)
        if outside and corners.weight is not None:
            weighs = corners.weight.reshape(-1) != 0
            order, index = order[weighs[order]], index[weighs]
        return TransposedLists(
            _divided(order, corners.index.shape[1]), _starts(index, cells), _taken(corners, order)
        )

    @staticmethod
    def of_layers(corners: Corners, cells: Sequence[int]) -> list[TransposedLists]:
        """Such lists for each of M layers, by one sort. Corners (M, P, K), rows by layer."""
        layers, points, per_point = corners.index.shape
        first = _first_rows(tuple(cells), corners.index.dtype)
        index = (corners.index + first.rows).reshape(-1)
        order = _order(index, first.total)
        # Every layer has P K entries, so those of layer m are the m-th piece of the sorted ones.
        layer_points = _divided(order, per_point).view(layers, -1).sub_(first.point * points)
        weight = _taken(corners, order)
        starts = _starts(index, first.total).split(list(cells))
        return [
            TransposedLists(
                layer_points[m],
                starts[m].sub_(m * points * per_point) if m else starts[m],
                None if weight is None else weight.view(layers, -1)[m],
            )
            for m in range(layers)
        ]

    @staticmethod
    def of_touched(corners: Corners, cells: int) -> tuple[Tensor, TransposedLists]:
        """The rows, of `cells`, that any point touches, ascending, and their lists."""
        index = corners.index.reshape(-1)
        order = _order(index, cells)
        touched, counts = torch.unique_consecutive(index.index_select(0, order), return_counts=True)
        points = _divided(order, corners.index.shape[1])
        starts = counts.cumsum(0).sub_(counts)
        return touched.long(), TransposedLists(points, starts, _taken(corners, order))

    def of_images(self, images: slice, batch: int) -> TransposedLists:
        """Those of some images of `batch`, which hold equally many points each, and cells."""
        cells, entries = self.starts.numel() // batch, self.points.numel() // batch
        part = slice(images.start * entries, images.stop * entries)
        starts = self.starts[images.start * cells : images.stop * cells]
        weight = None if self.weight is None else self.weight[part]
        return TransposedLists(self.points[part], starts - part.start, weight)

    def scatter(self, table: Tensor) -> Tensor:
        """S^T @ table: (P, D) -> (number of lists, D).

        Long lists are summed in parts: one after another thousands of numbers err too much.
        """
        # Of a point only one corner has weight on a cell, which sums no more terms than points.
        counts = None if len(table) <= LONGEST else self._counts_of_long()
        if counts is None:
            return _bags(table, self.points, self.starts, self.weight)
        starts = self.starts.numpy()
        parts = -(-counts // LONGEST)
        first = parts.cumsum() - parts
        number = np.arange(parts.sum(), dtype=starts.dtype)
        part_starts = np.repeat(starts - first * LONGEST, parts) + number * LONGEST
        sums = _bags(table, self.points, torch.from_numpy(part_starts), self.weight)
        return _bags(sums, torch.from_numpy(number), torch.from_numpy(first), None)

    def _counts_of_long(self) -> NDArray[Any] | None:
        """The lengths of all lists, if any has more than LONGEST entries.

        None has if no two of these marks lie in one list. Most maps have far more cells than there
        are marks, and looking at all of them takes its time.
        """
        starts, entries = self.starts.numpy(), self.points.numel()
        lists = starts.searchsorted(np.arange(0, entries, LONGEST // 2), side="right")
        if (lists[1:] != lists[:-1]).all():
            return None
        counts: NDArray[Any] = np.diff(starts, append=entries)
        return counts if counts.max() > LONGEST else None


def scatter_few(corners: Corners, table: Tensor, cells: int) -> Tensor:
    """S^T @ table for few points: each corner's row is added to its cell, in order; no lists.

    Corners (P, K), table (P, D) -> (cells, D). It takes K times the memory of `table`.
    """
    rows = table.unsqueeze(1)  # one corner of full weight is the row itself
    if corners.weight is not None:
        rows = rows * corners.weight.unsqueeze(2)
    return torch.ops.aten.embedding_dense_backward.default(
        rows.reshape(-1, table.shape[1]), corners.index.reshape(-1), cells, -1, False
    )


def _order(index: Tensor, cells: int) -> Tensor:
    """The entries of `index` (E,) in the order of the cells; equal ones stay in place."""
    entries = index.numel()
    if cells <= SHORT:
        return torch.from_numpy(index.numpy().astype(np.uint16).argsort(kind="stable"))
    if PADDED_SORT <= entries < RADIX_SORT:  # the padding sorts behind everything
        index = torch.nn.functional.pad(index, (0, RADIX_SORT - entries), value=cells)
    return index.sort(stable=True)[1][:entries]


def _divided(order: Tensor, per_point: int) -> Tensor:
    """The points of entries: a shift takes a third of the time of a division."""
    if per_point == 4:
        return order >> 2
    return order.clone() if per_point == 1 else order // per_point


def _taken(corners: Corners, order: Tensor) -> Tensor | None:
    return None if corners.weight is None else corners.weight.reshape(-1).index_select(0, order)


def _starts(index: Tensor, cells: int) -> Tensor:
    """Where the list of each cell begins, (cells,)."""
    counts = torch.bincount(index, minlength=cells)
    return counts.cumsum(0).sub_(counts)


@dataclass(frozen=True)
class _FirstRows:
    """Constants of :meth:`TransposedLists.of_layers`, kept because small tensors take 5 us each."""

    rows: Tensor  # (M, 1, 1): of each layer among those of all
    point: Tensor  # (M, 1): 0, 1, ..., M - 1
    total: int


@lru_cache(maxsize=256)
def _first_rows(cells: tuple[int, ...], dtype: torch.dtype) -> _FirstRows:
    first = [0, *accumulate(cells)]
    dtype = dtype if first[-1] < 2**31 else torch.int64
    rows = torch.tensor(first[:-1], dtype=dtype, device="cpu").view(-1, 1, 1)
    return _FirstRows(rows, torch.arange(len(cells), device="cpu").unsqueeze(1), first[-1])
