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
    grad: Tensor,
    weight: Tensor,
    layers: Sequence[int],
    feature_grads: Sequence[bool],
    weight_out: Tensor | None,
    points_out: Tensor | None,
) -> dict[int, Tensor]:
    """dX_i by layer, where asked for; dW_i into `weight_out`, (D, sum C); points_out +=.

    grad is G (P, D), contiguous.
    """
    wanted = [i for i in layers if feature_grads[i] or points_out is not None]
    if weight_out is not None:
        _weight_backward(call, grad, layers, weight_out)
    found = _columns_backward(call, grad, weight, wanted)
    if points_out is not None:
        for i in wanted:
            call.add_point_grad(points_out, i, found[i])
    return call.scatter({i: found.pop(i) for i in wanted if feature_grads[i]})


def _hypercolumns(call: Sampling, layers: Sequence[int]) -> Tensor:
    """[S_i X_i | ...], (P, sum of C_i)."""
    parts = call.read(layers)
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _weight_backward(
    call: Sampling, grad: Tensor, layers: Sequence[int], weight_out: Tensor
) -> None:
    """dW_i = G^T (S_i X_i), summed over the parts of the points in their order."""
    for n, (part, piece) in enumerate(call.parts()):
        h = _hypercolumns(piece, layers)
        for columns, weight_columns in _runs(call.columns(), layers):
            out = weight_out[:, weight_columns]
            torch.addmm(out, grad[part].t(), h[:, columns], beta=int(n > 0), out=out)


def _columns_backward(
    call: Sampling, grad: Tensor, weight: Tensor, layers: Sequence[int]
) -> dict[int, Tensor]:
    """G W_i of each layer, (P, C_i) and contiguous: tables for the bags of the scatter."""
    out = {i: grad.new_empty((grad.shape[0], call.features[i].shape[1])) for i in layers}
    for part, _ in call.parts():
        for i, product in _products(call, grad[part], weight, layers).items():
            out[i][part] = product
    return out


def _products(
    call: Sampling, grad: Tensor, weight: Tensor, layers: Sequence[int]
) -> dict[int, Tensor]:
    """G W_i of each layer, (P, C_i): views of one product for each run of layers."""
    widths = [call.features[i].shape[1] for i in layers]
    product = grad.new_empty((grad.shape[0], sum(widths)))
    for own, weight_columns in _runs(call.columns(), layers):
        torch.mm(grad, weight[:, weight_columns], out=product[:, own])
    return dict(zip(layers, product.split(widths, 1), strict=True))


def _runs(columns: Sequence[slice], layers: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Each run of adjacent layers: its columns among those of `layers`, and in the weight."""
    done = first = 0
    for n, layer in enumerate(layers):
        if n + 1 == len(layers) or layers[n + 1] != layer + 1:
            own = slice(columns[layers[first]].start, columns[layer].stop)
            width = own.stop - own.start
            yield slice(done, done + width), own
            done, first = done + width, n + 1
