"""Layers that are multiplied first: their projected cells lie in one table, read by one bag.

    T = [X_j W_j^T ; ...]   (cells of all layers, D),      z = S T,   S = [S_j ...]
    Q = S^T G,   dW_j = Q_j^T X_j,   dX_j = Q_j W_j

All of it goes by blocks of columns of D, so that T and Q stay small and in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .bags import TransposedLists, gather_rows
from .corners import Corners
from .maps import laid_out_like, matrices, new_gradient
from .sampling import Sampling, blocks
from .upstream import Upstream, column_blocks

__all__ = ["projected", "projected_backward"]

# Points read together: bounds the scratch memory of dense inference.
POINT_BLOCK = 16384


@dataclass(frozen=True)
class _Piece:
    """Cells of a layer as a matrix (n, C_j), at `rows` of the table."""

    layer: int
    rows: slice
    matrix: Tensor
    first_of_layer: bool


def projected(call: Sampling, weight: Tensor, bias: Tensor | None, layers: Sequence[int]) -> Tensor:
    """z (P, D) = S T + bias, for weight (D, sum C), bias (D,)."""
    corners = call.stacked_corners(layers)
    pieces = _pieces(call, layers)
    points, out_features = call.points.shape[0], weight.shape[0]
    # With border padding the weights of a layer sum to 1: the bias rides on the first one.
    rides = call.geometry.padding_mode == "border"
    columns = column_blocks(points, out_features)
    whole = points <= POINT_BLOCK and len(columns) == 1
    z = weight.new_empty((0 if whole else points, out_features))
    for block in columns:
        own_bias = None if bias is None else bias[block]
        table = _table(call, pieces, weight[block], own_bias if rides else None)
        for part in blocks(points, POINT_BLOCK):
            weights = None if corners.weight is None else corners.weight[part]
            rows = gather_rows(table, corners.index[part], weights)
            if own_bias is not None and not rides:
                rows.add_(own_bias)
            if whole:
                return rows
            z[part, block] = rows
    return z


def projected_backward(
    call: Sampling,
    upstream: Upstream,
    weight: Tensor,
    layers: Sequence[int],
    feature_grads: Sequence[bool],
    weight_out: Tensor | None,
    bias_out: Tensor | None,
    points_out: Tensor | None,
) -> dict[int, Tensor]:
    """dX_j by layer, where asked for; dW_j into `weight_out`, (D, sum C); points_out +=.

    `bias_out` (D,) takes the sum over points of G.
    """
    corners = call.stacked_corners(layers, slopes=points_out is not None)
    pieces, columns = _pieces(call, layers), call.columns()
    lists = TransposedLists.of_stack(corners, pieces[-1].rows.stop)
    found = {i: new_gradient(call.features[i]) for i in layers if feature_grads[i]}
    targets = [
        m for i in layers for m in (matrices(found[i]) if i in found else _absent(pieces, i))
    ]
    for block in column_blocks(call.points.shape[0], weight.shape[0]):
        own_grad = upstream.block(slice(None), block)
        if bias_out is not None:
            torch.sum(own_grad, 0, out=bias_out[block])
        q = lists.scatter(own_grad)
        for piece, target in zip(pieces, targets, strict=True):
            own, of_layer = q[piece.rows], columns[piece.layer]
            if weight_out is not None:
                out = weight_out[block, of_layer]
                beta = 0 if piece.first_of_layer else 1
                torch.addmm(out, own.t(), piece.matrix, beta=beta, out=out)
            if target is not None:
                beta = 0 if block.start == 0 else 1
                torch.addmm(target, own, weight[block, of_layer], beta=beta, out=target)
        if points_out is not None:
            table = _table(call, pieces, weight[block], None)
            _add_point_grad(points_out, table, corners, own_grad)
    return {i: laid_out_like(call.features[i], gradient) for i, gradient in found.items()}


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
    table = weight.new_empty((pieces[-1].rows.stop, weight.shape[0]))
    columns = call.columns()
    for piece in pieces:
        right, out = weight[:, columns[piece.layer]].t(), table[piece.rows]
        if bias is not None and piece.layer == pieces[0].layer:
            torch.addmm(bias, piece.matrix, right, out=out)
        else:
            torch.mm(piece.matrix, right, out=out)
    return table


def _add_point_grad(out: Tensor, table: Tensor, corners: Corners, grad: Tensor) -> None:
    """out (P, 2) += sum over columns of grad (P, D) * d(S T) / d(x, y)."""
    if corners.slope is None:  # nearest cells do not change with the point
        return
    for axis, slope in enumerate(corners.slope):
        for part in blocks(grad.shape[0], POINT_BLOCK):
            moved = gather_rows(table, corners.index[part], slope[part])
            out[part, axis] += moved.mul_(grad[part]).sum(1)
