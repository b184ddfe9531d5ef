"""Layers that are gathered first, then multiplied.

    z  = (or +=) [S_i X_i | ...] [W_i | ...]^T
    dW_i = G^T (S_i X_i),    dX_i = S_i^T (G W_i)

Adjacent layers share one product: three of 64, 128 and 256 columns take 1.2 times as long as
one of 448. The gathered columns are made again in the backward pass, part by part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .sampling import Sampling
from .upstream import Upstream, column_blocks

__all__ = ["add_gathered", "gathered_backward"]


def add_gathered(
    z: Tensor, call: Sampling, weight: Tensor, layers: Sequence[int], onto: Tensor | None
) -> None:
    """z (P, D) = onto + [S_i X_i | ...] [W_i | ...]^T; `onto` is z itself, the bias or None."""
    h = _hypercolumns(call, layers)
    for columns, weight_columns in _runs(call.columns(), layers):
        left, right = h[:, columns], weight[:, weight_columns].t()
        if onto is None:
            torch.mm(left, right, out=z)
        else:
            torch.addmm(onto, left, right, out=z)
        onto = z


def gathered_backward(
    call: Sampling,
    upstream: Upstream,
    weight: Tensor,
    layers: Sequence[int],
    feature_grads: Sequence[bool],
    weight_out: Tensor | None,
    bias_out: Tensor | None,
    points_out: Tensor | None,
) -> dict[int, Tensor]:
    """dX_i by layer, where asked for; dW_i into `weight_out`, (D, sum C); points_out +=.

    `bias_out` (D,) takes the sum over points of G.
    """
    wanted = [i for i in layers if feature_grads[i] or points_out is not None]
    found = _products(call, upstream, weight, layers, wanted, weight_out, bias_out)
    if points_out is not None:
        for i in wanted:
            call.add_point_grad(points_out, i, found[i])
    return call.scatter({i: found.pop(i) for i in wanted if feature_grads[i]})


def _products(
    call: Sampling,
    upstream: Upstream,
    weight: Tensor,
    layers: Sequence[int],
    wanted: Sequence[int],
    weight_out: Tensor | None,
    bias_out: Tensor | None,
) -> dict[int, Tensor]:
    """dW_i into `weight_out`; G W_i of each layer of `wanted`, (P, C_i).

    These are contiguous: tables for the bags of the scatter.
    """
    points, widths = call.points.shape[0], [call.features[i].shape[1] for i in wanted]
    found = {i: weight.new_empty((points, width)) for i, width in zip(wanted, widths, strict=True)}
    for part, piece in call.parts():
        rows = part.stop - part.start
        h = _hypercolumns(piece, layers) if weight_out is not None else None
        product = weight.new_empty((rows, sum(widths)))
        for block in column_blocks(rows, weight.shape[0]):
            own = upstream.block(part, block)
            if bias_out is not None:
                bias_out[block] += own.sum(0)
            if weight_out is not None and h is not None:
                beta = 0 if part.start == 0 else 1
                for columns, weight_columns in _runs(call.columns(), layers):
                    out = weight_out[block, weight_columns]
                    torch.addmm(out, own.t(), h[:, columns], beta=beta, out=out)
            beta = 0 if block.start == 0 else 1
            for columns, weight_columns in _runs(call.columns(), wanted):
                out = product[:, columns]
                torch.addmm(out, own, weight[block, weight_columns], beta=beta, out=out)
        for table, columns_of_layer in zip(found.values(), product.split(widths, 1), strict=True):
            table[part] = columns_of_layer
    return found


def _hypercolumns(call: Sampling, layers: Sequence[int]) -> Tensor:
    """[S_i X_i | ...], (P, sum of C_i)."""
    parts = call.read(layers)
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _runs(columns: Sequence[slice], layers: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Each run of adjacent layers: its columns among those of `layers`, and in the weight."""
    done = first = 0
    for n, layer in enumerate(layers):
        if n + 1 == len(layers) or layers[n + 1] != layer + 1:
            own = slice(columns[layers[first]].start, columns[layer].stop)
            width = own.stop - own.start
            yield slice(done, done + width), own
            done, first = done + width, n + 1
