"""Layers that are multiplied first: their projected cells lie in one table, read by one bag.

    T = [X_j W_j^T ; ...]   (cells of all layers, D),      z = S T,   S = [S_j ...]
    Q = S^T G,   dW_j = Q_j^T X_j,   dX_j = Q_j W_j

All of it goes by blocks of columns of D, so that T and Q stay small and in the cache. The caller
has the blocks: where there are gathered layers too, it adds theirs while a block is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .bags import TransposedLists, gather_rows
from .corners import Corners
from .maps import laid_out_like, matrices, new_gradient
from .products import add_product
from .sampling import PART_POINTS_OF_ONE_IMAGE, Sampling, blocks
from .upstream import Targets, column_blocks, dtype_of_sums

__all__ = ["Projected", "ProjectedBackward"]


@dataclass(frozen=True)
class _Piece:
    """Cells of a layer as a matrix (n, C_j), at `rows` of the table."""

    layer: int
    rows: slice
    matrix: Tensor
    first_of_layer: bool


class Projected:
    """The forward pass of `layers`, for weight (D, sum C), bias (D,)."""

    def __init__(
        self, call: Sampling, weight: Tensor, bias: Tensor | None, layers: Sequence[int]
    ) -> None:
        self._call, self._weight, self._bias = call, weight, bias
        self._corners, self._pieces = call.stacked_corners(layers), _pieces(call, layers)
        #: (P, D), of the output.
        self.shape = torch.Size((call.points.shape[0], weight.shape[0]))
        # With border padding the weights of a layer sum to 1: the bias rides on the first one.
        self._rides = call.geometry.padding_mode == "border"

    def column_blocks(self) -> list[slice]:
        """D in blocks for :meth:`block`."""
        return column_blocks(self.shape[0], self.shape[1], self._weight.element_size())

    def block(self, columns: slice) -> Iterator[tuple[slice, Tensor]]:
        """S T + bias for some columns of D: points, and their rows in the weight's dtype."""
        bias = None if self._bias is None else self._bias[columns]
        in_table = bias if self._rides else None
        table = _table(self._call, self._pieces, self._weight[columns], in_table)
        for part in blocks(self._call.points.shape[0], PART_POINTS_OF_ONE_IMAGE):
            own = self._corners.of_points(part)
            rows = gather_rows(table, own.index, own.weight)
            if bias is not None and not self._rides:
                rows.add_(bias)
            yield part, rows.to(self._weight.dtype)


class ProjectedBackward:
    """The backward pass of `layers`, block by block of the upstream gradient.

    dX_j come from :meth:`finish`; the rest goes where `targets` say.
    """

    def __init__(
        self, call: Sampling, weight: Tensor, layers: Sequence[int], targets: Targets
    ) -> None:
        self._call, self._weight, self._out = call, weight, targets
        self._corners = call.stacked_corners(layers, slopes=targets.points is not None)
        self._pieces = _pieces(call, layers)
        self._lists = TransposedLists.of_stack(self._corners, self._pieces[-1].rows.stop)
        wanted = [i for i in layers if targets.feature_grads[i]]
        dtype = dtype_of_sums(call.points.shape[0], weight, call.dtype)
        self._found = {i: new_gradient(call.features[i], dtype) for i in wanted}
        self._targets = [
            target
            for i in layers
            for target in (
                matrices(self._found[i]) if i in self._found else _absent(self._pieces, i)
            )
        ]

    def add(self, columns: slice, grad: Tensor) -> None:
        """Some columns of D, of which grad (P, d) is the upstream gradient."""
        q, of_layers = self._lists.scatter(grad.to(self._call.dtype)), self._call.columns()
        q, weight_out = q.to(grad.dtype), self._out.weight
        for piece, target in zip(self._pieces, self._targets, strict=True):
            own, of_layer = q[piece.rows], of_layers[piece.layer]
            if weight_out is not None:
                out = weight_out[columns, of_layer]
                onto = None if piece.first_of_layer else out
                add_product(out, own.t(), piece.matrix, onto)
            if target is not None:
                onto = None if columns.start == 0 else target
                add_product(target, own, self._weight[columns, of_layer], onto)
        if self._out.points is not None:
            table = _table(self._call, self._pieces, self._weight[columns], None)
            _add_point_grad(self._out.points, table, self._corners, grad)

    def finish(self) -> dict[int, Tensor]:
        """dX_j by layer, laid out as the maps."""
        features = self._call.features
        return {i: laid_out_like(features[i], gradient) for i, gradient in self._found.items()}


def _pieces(call: Sampling, layers: Sequence[int]) -> list[_Piece]:
    """The maps of `layers` in the order of the table's rows."""
    pieces: list[_Piece] = []
    start = 0
    for i in layers:
        for n, matrix in enumerate(matrices(call.features[i])):
            pieces.append(_Piece(i, slice(start, start + matrix.shape[0]), matrix, n == 0))
            start += matrix.shape[0]
    return pieces


def _absent(pieces: Sequence[_Piece], layer: int) -> list[None]:
    return [None for piece in pieces if piece.layer == layer]


def _table(call: Sampling, pieces: Sequence[_Piece], weight: Tensor, bias: Tensor | None) -> Tensor:
    """T, (cells, D), for weight (D, sum C); the bias is added to the cells of the first layer."""
    table = weight.new_empty((pieces[-1].rows.stop, weight.shape[0]), dtype=call.dtype)
    columns = call.columns()
    for piece in pieces:
        right, out = weight[:, columns[piece.layer]].t(), table[piece.rows]
        add_product(out, piece.matrix, right, bias if piece.layer == pieces[0].layer else None)
    return table


def _add_point_grad(out: Tensor, table: Tensor, corners: Corners, grad: Tensor) -> None:
    """out (P, 2) += sum over columns of grad (P, D) * d(S T) / d(x, y)."""
    if corners.slope is None:  # nearest cells do not change with the point
        return
    for axis, slope in enumerate(corners.slope):
        for part in blocks(grad.shape[0], PART_POINTS_OF_ONE_IMAGE):
            moved = gather_rows(table, corners.index[part], slope[part])
            out[part, axis] += moved.mul_(grad[part]).sum(1)
