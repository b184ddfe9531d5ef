"""Layers that are gathered first, then multiplied.

    z  = (or +=) [S_i X_i | ...] [W_i | ...]^T
    dW_i = G^T (S_i X_i),    dX_i = S_i^T (G W_i)

Adjacent layers share one product: three of 64, 128 and 256 columns take 1.2 times as long as
one of 448. The gathered columns are made again in the backward pass, part by part of the points.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .products import add_product, product_dtype
from .sampling import Sampling
from .upstream import Targets, dtype_of_sums

__all__ = ["Gathered", "GatheredBackward"]


class Gathered:
    """The forward pass of `layers` at the points of `call`, for weight (D, sum C)."""

    def __init__(self, call: Sampling, weight: Tensor, layers: Sequence[int]) -> None:
        self._h, self._weight = _hypercolumns(call, layers), weight
        self._runs = list(_runs(call.columns(), layers))

    def add_to(self, z: Tensor, columns: slice, onto: Tensor | None) -> None:
        """z (P, d), columns of D, = onto + their product; `onto` is z itself, the bias or None."""
        for own, weight_columns in self._runs:
            left, right = self._h[:, own], self._weight[columns, weight_columns].t()
            add_product(z, left, right, onto)
            onto = z


class GatheredBackward:
    """The backward pass of `layers`, part by part of the points and block by block of D.

    dX_i come from :meth:`finish`; the rest goes where `targets` say.
    """

    def __init__(
        self, call: Sampling, weight: Tensor, layers: Sequence[int], targets: Targets
    ) -> None:
        self._call, self._weight, self._layers = call, weight, layers
        self._targets = targets
        moving = targets.points is not None
        self._wanted = [i for i in layers if targets.feature_grads[i] or moving]
        columns = call.columns()
        self._widths = [call.features[i].shape[1] for i in self._wanted]
        self._runs = list(_runs(columns, layers))
        self._wanted_runs = list(_runs(columns, self._wanted))
        # G W_i of each layer: contiguous tables for the bags, or columns of the planes.
        self._found = {i: call.new_columns(i) for i in self._wanted}

    def start(self, part: slice, piece: Sampling) -> None:
        """The points of `part` are next; `piece` is the call with these alone."""
        self._part = part
        self._h = _hypercolumns(piece, self._layers) if self._targets.weight is not None else None
        points = part.stop - part.start
        dtype = dtype_of_sums(points, self._weight, piece.dtype)
        self._product = self._weight.new_empty((points, sum(self._widths)), dtype=dtype)

    def add(self, columns: slice, grad: Tensor) -> None:
        """Some columns of D, of which grad (n, d) is the part's upstream gradient."""
        if self._targets.weight is not None and self._h is not None:
            for own, weight_columns in self._runs:
                out = self._targets.weight[columns, weight_columns]
                onto = None if self._part.start == 0 else out
                add_product(out, grad.t(), self._h[:, own], onto)
        for own, weight_columns in self._wanted_runs:
            out = self._product[:, own]
            onto = None if columns.start == 0 else out
            add_product(out, grad, self._weight[columns, weight_columns], onto)

    def end(self) -> None:
        """All columns of the part were there."""
        each = self._product.split(self._widths, 1)
        for table, columns in zip(self._found.values(), each, strict=True):
            table[self._part] = columns

    def finish(self) -> dict[int, Tensor]:
        """dX_i by layer, laid out as the maps."""
        del self._h, self._product  # their memory is of use for the maps' gradients
        if self._targets.points is not None:
            for i in self._wanted:
                self._call.add_point_grad(self._targets.points, i, self._found[i])
        found = {i: self._found.pop(i) for i in self._wanted if self._targets.feature_grads[i]}
        return self._call.scatter(found)


def _hypercolumns(call: Sampling, layers: Sequence[int]) -> Tensor:
    """[S_i X_i | ...], (P, sum of C_i), as an operand of products."""
    dtype = product_dtype(call.features[0].dtype)
    parts = [part.to(dtype) for part in call.read(layers)]
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
