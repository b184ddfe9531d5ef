"""Both ways to bring a layer to the points, forward and backward, block by block of D.

    gathered     z  = (or +=) [S_i X_i | ...] [W_i | ...]^T
                 dW_i = G^T (S_i X_i),    dX_i = S_i^T (G W_i)
    projected    T = [X_j W_j^T ; ...]  (cells of all layers, D),   z = S T,   S = [S_j ...]
                 Q = S^T G,   dW_j = Q_j^T X_j,   dX_j = Q_j W_j

Adjacent gathered layers share one product: three of 64, 128 and 256 columns take 1.2 times as
long as one of 448. Gathered columns are made again in the backward pass, part by part of the
points. Projected cells lie in one table, read by one bag; T and Q are of one block of columns, so
that they stay in the cache.

Backward, an object is a step: within ``with step.at(points, piece) as take``, `take` is given G
of these points, block by block; scratch memory of the part goes at the end of the block, the rest
with :meth:`finish`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from ..call import Wanted
from .bags import TransposedLists, gather_rows
from .corners import Corners
from .maps import laid_out_like, matrices, new_gradient
from .products import add_product, dtype_of_sums, product_dtype
from .reading import Reading
from .routes import PART_POINTS_OF_ONE_IMAGE, blocks, column_blocks

__all__ = ["Gathered", "GatheredBackward", "Projected", "ProjectedBackward", "Targets"]

Take = Callable[[slice, Tensor], None]


class Targets(NamedTuple):
    """Where a backward pass puts what it finds: dW (D, sum C) written, points (P, 2) added to."""

    wanted: Wanted
    weight: Tensor | None
    points: Tensor | None


class Gathered:
    """The forward pass of `layers` at the points of `reading`, for weight (D, sum C)."""

    def __init__(self, reading: Reading, weight: Tensor, layers: Sequence[int]) -> None:
        self._h, self._weight = _hypercolumns(reading, layers), weight
        self._runs = list(_runs(reading.s.columns, layers))

    def add_to(self, z: Tensor, columns: slice, onto: Tensor | None) -> None:
        """z (P, d), columns of D, = onto + their product; `onto` is z itself, the bias or None."""
        for h_columns, weight_columns in self._runs:
            left, right = self._h[:, h_columns], self._weight[columns, weight_columns].t()
            add_product(z, left, right, onto)
            onto = z


class GatheredBackward:
    """The backward pass of `layers`."""

    def __init__(
        self, reading: Reading, weight: Tensor, layers: Sequence[int], targets: Targets
    ) -> None:
        self._reading, self._weight, self._layers = reading, weight, layers
        self._targets = targets
        moving = targets.points is not None
        self._wanted = [i for i in layers if targets.wanted.features[i] or moving]
        columns = reading.s.columns
        self._widths = [reading.s.channels[i] for i in self._wanted]
        self._runs = list(_runs(columns, layers))
        self._wanted_runs = list(_runs(columns, self._wanted))
        # G W_i of each layer: contiguous tables for the bags, or columns of the planes.
        self._columns = {i: reading.new_columns(i) for i in self._wanted}

    @contextmanager
    def at(self, points: slice, piece: Reading) -> Iterator[Take]:
        """`piece` is the call with these points alone."""
        weight_out = self._targets.weight
        h = _hypercolumns(piece, self._layers) if weight_out is not None else None
        count = points.stop - points.start
        dtype = dtype_of_sums(count, self._weight, piece.dtype)
        product = self._weight.new_empty((count, sum(self._widths)), dtype=dtype)

        def take(columns: slice, grad: Tensor) -> None:
            if weight_out is not None and h is not None:
                for h_columns, weight_columns in self._runs:
                    out = weight_out[columns, weight_columns]
                    onto = None if points.start == 0 else out
                    add_product(out, grad.t(), h[:, h_columns], onto)
            for product_columns, weight_columns in self._wanted_runs:
                out = product[:, product_columns]
                onto = None if columns.start == 0 else out
                add_product(out, grad, self._weight[columns, weight_columns], onto)

        yield take
        pieces = product.split(self._widths, 1)
        for table, part in zip(self._columns.values(), pieces, strict=True):
            table[points] = part

    def finish(self) -> dict[int, Tensor]:
        """dX_i by layer, laid out as the maps."""
        if self._targets.points is not None:
            for i in self._wanted:
                self._reading.add_point_gradient(self._targets.points, i, self._columns[i])
        wanted = [i for i in self._wanted if self._targets.wanted.features[i]]
        return self._reading.write({i: self._columns.pop(i) for i in wanted})


def _hypercolumns(reading: Reading, layers: Sequence[int]) -> Tensor:
    """[S_i X_i | ...], (P, sum of C_i), as an operand of products."""
    dtype = product_dtype(reading.s.features[0].dtype)
    columns = [read.to(dtype) for read in reading.read(layers)]
    return columns[0] if len(columns) == 1 else torch.cat(columns, 1)


def _runs(columns: Sequence[slice], layers: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Each run of adjacent layers: its columns among those of `layers`, and in the weight."""
    done = first = 0
    for n, layer in enumerate(layers):
        if n + 1 == len(layers) or layers[n + 1] != layer + 1:
            in_weight = slice(columns[layers[first]].start, columns[layer].stop)
            width = in_weight.stop - in_weight.start
            yield slice(done, done + width), in_weight
            done, first = done + width, n + 1


class _Piece(NamedTuple):
    """Cells of a layer as a matrix (n, C_j), at `rows` of the table."""

    layer: int
    rows: slice
    matrix: Tensor
    first_of_layer: bool


class Projected:
    """The forward pass of `layers`, for weight (D, sum C), bias (D,)."""

    def __init__(
        self, reading: Reading, weight: Tensor, bias: Tensor | None, layers: Sequence[int]
    ) -> None:
        self._reading, self._weight, self._bias = reading, weight, bias
        self._corners, self._pieces = reading.stacked_corners(layers), _pieces(reading, layers)
        if not reading.s.geometry.border:
            self._corners = self._corners.unseen_at(self._pieces[-1].rows.stop)
        #: (P, D), of the output.
        self.shape = torch.Size((reading.s.total, weight.shape[0]))
        # With border padding the weights of a layer sum to 1: the bias rides on the first one.
        self._rides = reading.s.geometry.border

    def column_blocks(self) -> list[slice]:
        """D in blocks for :meth:`block`."""
        return column_blocks(self.shape[0], self.shape[1], self._weight.element_size())

    def block(self, columns: slice) -> Iterator[tuple[slice, Tensor]]:
        """S T + bias for some columns of D: points, and their rows in the weight's dtype."""
        bias = None if self._bias is None else self._bias[columns]
        in_table = bias if self._rides else None
        table = _table(self._reading, self._pieces, self._weight[columns], in_table)
        for points in blocks(self.shape[0], PART_POINTS_OF_ONE_IMAGE):
            corners = self._corners.of_points(points)
            z = gather_rows(table, corners.index, corners.weight)
            if bias is not None and not self._rides:
                z.add_(bias)
            yield points, z.to(self._weight.dtype)


class ProjectedBackward:
    """The backward pass of `layers`; it takes all points at once, or part by part of D alone."""

    def __init__(
        self, reading: Reading, weight: Tensor, layers: Sequence[int], targets: Targets
    ) -> None:
        self._reading, self._weight, self._targets = reading, weight, targets
        self._pieces = _pieces(reading, layers)
        corners, cells = reading.stacked_corners(layers), self._pieces[-1].rows.stop
        self._lists = TransposedLists.of_stack(corners, cells, not reading.s.geometry.border)
        self._slopes = None
        if targets.points is not None:
            self._slopes = reading.stacked_corners(layers, slopes=True)
        wanted = [i for i in layers if targets.wanted.features[i]]
        dtype = dtype_of_sums(reading.s.total, weight, reading.dtype)
        self._gradients = {i: new_gradient(reading.s.features[i], dtype) for i in wanted}
        # For each piece the rows of its layer's gradient, None where none is wanted.
        self._gradient_rows: list[Tensor | None] = []
        for i in layers:
            count = sum(piece.layer == i for piece in self._pieces)
            known = self._gradients.get(i)
            self._gradient_rows += [None] * count if known is None else matrices(known)

    @contextmanager
    def at(self, points: slice, piece: Reading) -> Iterator[Take]:
        """All points, which is all that this step takes."""
        yield self._take

    def _take(self, columns: slice, grad: Tensor) -> None:
        q = self._lists.scatter(grad.to(self._reading.dtype)).to(grad.dtype)
        of_layers, weight_out = self._reading.s.columns, self._targets.weight
        for piece, rows in zip(self._pieces, self._gradient_rows, strict=True):
            q_piece, of_layer = q[piece.rows], of_layers[piece.layer]
            if weight_out is not None:
                out = weight_out[columns, of_layer]
                onto = None if piece.first_of_layer else out
                add_product(out, q_piece.t(), piece.matrix, onto)
            if rows is not None:
                onto = None if columns.start == 0 else rows
                add_product(rows, q_piece, self._weight[columns, of_layer], onto)
        if self._targets.points is not None and self._slopes is not None:
            table = _table(self._reading, self._pieces, self._weight[columns], None)
            _add_point_gradient(self._targets.points, table, self._slopes, grad)

    def finish(self) -> dict[int, Tensor]:
        """dX_j by layer, laid out as the maps."""
        features = self._reading.s.features
        return {i: laid_out_like(features[i], grad) for i, grad in self._gradients.items()}


def _pieces(reading: Reading, layers: Sequence[int]) -> list[_Piece]:
    """The maps of `layers` in the order of the table's rows."""
    pieces: list[_Piece] = []
    start = 0
    for i in layers:
        for n, matrix in enumerate(matrices(reading.s.features[i])):
            pieces.append(_Piece(i, slice(start, start + matrix.shape[0]), matrix, n == 0))
            start += matrix.shape[0]
    return pieces


def _table(
    reading: Reading, pieces: Sequence[_Piece], weight: Tensor, bias: Tensor | None
) -> Tensor:
    """T, (cells, D), for weight (D, sum C); the bias is added to the cells of the first layer.

    With zero padding a row of zeros follows, for corners that see nothing.
    """
    beyond = 0 if reading.s.geometry.border else 1
    rows = pieces[-1].rows.stop + beyond
    table = weight.new_empty((rows, weight.shape[0]), dtype=reading.dtype)
    if beyond:
        table[-1] = 0
    columns = reading.s.columns
    for piece in pieces:
        right, out = weight[:, columns[piece.layer]].t(), table[piece.rows]
        add_product(out, piece.matrix, right, bias if piece.layer == pieces[0].layer else None)
    return table


def _add_point_gradient(out: Tensor, table: Tensor, corners: Corners, grad: Tensor) -> None:
    """out (P, 2) += sum over columns of grad (P, D) * d(S T) / d(x, y)."""
    if corners.slope is None:  # nearest cells do not change with the point
        return
    for axis, slope in enumerate(corners.slope):
        for points in blocks(grad.shape[0], PART_POINTS_OF_ONE_IMAGE):
            moved = gather_rows(table, corners.index[points], slope[points])
            out[points, axis] += moved.mul_(grad[points]).sum(1)
