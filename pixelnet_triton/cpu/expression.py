"""Few points: one expression, which autograd differentiates.

    y = act([S_1 X_1 | ...] W^T + b)

Such calls are bound by the 2-5 us that an operator takes to dispatch; everything here is as few as
possible. Small maps are sampled as a whole (sampled.py); of large ones the cells that are touched
are picked (picked.py). Both give channels first, (B, C_i, 1, N), so the hypercolumns are transposed
here: views, where there is one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, linear, pad

from ..call import CallShape, Geometry, Gradients, Linear, Sampling, Wanted
from .picked import Picked
from .products import compute_dtype, product_dtype, width
from .sampled import Sampled

__all__ = ["Expression"]


@dataclass(frozen=True)
class Expression:
    """See :class:`pixelnet_triton.call.Executor`.

    It keeps the hypercolumns for the backward pass, and maps as they are sampled.

    Args:
        readers: which layers each of them reads.
        channels: sum C_i. ragged: with a batch_index. half: in half precision.
    """

    readers: tuple[tuple[tuple[int, ...], Sampled | Picked], ...]
    channels: int
    ragged: bool
    half: bool

    @staticmethod
    def of(geometry: Geometry, shape: CallShape, read: Sequence[str]) -> Expression:
        """That of calls of that shape; `read` says how each map is read, as a route does."""
        kinds = [
            (word, word == "picked" and layer.channels_last)
            for word, layer in zip(read, shape.layers, strict=True)
        ]
        readers: list[tuple[tuple[int, ...], Sampled | Picked]] = []
        for kind in dict.fromkeys(kinds):
            word, rows = kind
            layers = tuple([i for i, other in enumerate(kinds) if other == kind])
            of_layers = geometry.of(layers)
            if word == "picked":
                readers.append((layers, Picked(of_layers, rows, shape.training)))
            else:
                readers.append((layers, Sampled.of(of_layers, shape, layers)))
        return Expression(tuple(readers), shape.channels, shape.ragged, shape.itemsize < 4)

    def forward(self, s: Sampling, head: Linear | None) -> Tensor:
        """(..., D), or (..., sum C_i) without a head, for points (..., 2)."""
        features, points, batch_index, _ = s
        dtype = features[0].dtype
        if self.ragged and batch_index is not None:
            rows = self._ragged(features, points, batch_index)
        elif features[0].shape[0] == 1:
            rows = self._planes(features, points).view(self.channels, -1).t()  # (P, sum C)
        else:
            rows = self._planes(features, points).squeeze(2).transpose(1, 2)  # (B, N, sum C)
            if points.dim() == 2:
                rows = rows.flatten(0, 1)
        if head is None:
            value = rows.to(dtype, memory_format=torch.contiguous_format)
            return value.unsqueeze(0) if value.dim() < points.dim() else value
        weight, bias, activation = head
        value = _in_half(rows, head, dtype) if self.half else _linear(rows, weight, bias)
        if activation is not None:
            value = value.relu_() if activation == "relu" else gelu(value)
        return value.unsqueeze(0) if value.dim() < points.dim() else value

    def backward(
        self, s: Sampling, head: Linear | None, grad: Tensor, output: Tensor | None, wanted: Wanted
    ) -> Gradients:
        raise RuntimeError("autograd differentiates an expression by itself")

    def _planes(self, features: Sequence[Tensor], points: Tensor) -> Tensor:
        """[S_1 X_1 | ...] as (B, sum C_i, 1, N), in the dtype that is computed in."""
        computed = compute_dtype(features[0].dtype)
        if len(self.readers) == 1:
            values = self.readers[0][1](features, points)
        else:
            by_layer: dict[int, Tensor] = {}
            for layers, read in self.readers:
                some = read([features[i] for i in layers], points)
                by_layer |= zip(layers, [value.to(computed) for value in some], strict=True)
            values = [by_layer[i] for i in range(len(features))]
        together = values[0] if len(values) == 1 else torch.cat(values, 1)
        return together if together.dtype == computed else together.to(computed)

    def _ragged(self, features: Sequence[Tensor], points: Tensor, index: Tensor) -> Tensor:
        """(P, sum C_i), the points of all images padded to equally many, if that is not much."""
        batch, index = features[0].shape[0], index.long()
        counts = index.bincount(minlength=batch)
        order = index.argsort(stable=True)
        longest = int(counts.max())
        if batch * longest <= 2 * len(points):
            padded = _padded(points, index, order, counts, longest)
            planes = self._planes(features, padded.points)
            return planes.squeeze(2).transpose(1, 2).flatten(0, 1).index_select(0, padded.row)
        images = zip(*[feature.split(1) for feature in features], strict=True)
        sorted_points = points.index_select(0, order).split(counts.tolist())
        rows = [
            self._planes(maps, image_points)[0, :, 0].t()
            for maps, image_points in zip(images, sorted_points, strict=True)
            if len(image_points)
        ]
        return torch.cat(rows).index_select(0, order.argsort())


class _Padded(NamedTuple):
    """Ragged points as equally many an image, (B, N, 2), and the row that each point became."""

    points: Tensor
    row: Tensor


def _padded(points: Tensor, index: Tensor, order: Tensor, counts: Tensor, longest: int) -> _Padded:
    batch = len(counts)
    shift = torch.arange(0, batch * longest, longest, device="cpu") - counts.cumsum(0) + counts
    row = torch.empty_like(order)
    row[order] = torch.arange(len(order), device="cpu") + shift[index[order]]
    padded = points.new_zeros((batch * longest, 2)).index_copy_(0, row, points)
    return _Padded(padded.view(batch, longest, 2), row)


def _linear(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(..., D), of few outputs as products.py makes it."""
    out_features = weight.shape[0]
    more = width(rows, out_features) - out_features
    if more == 0:
        return linear(rows, weight, bias)
    value = linear(rows, pad(weight, (0, 0, 0, more)))[..., :out_features]
    return value.contiguous() if bias is None else value + bias


def _in_half(rows: Tensor, head: Linear, dtype: torch.dtype) -> Tensor:
    """(..., D) in `dtype`, the product made in the dtype that this CPU multiplies."""
    operand = product_dtype(dtype)
    bias = None if head.bias is None else head.bias.to(operand)
    return linear(rows.to(operand), head.weight.to(operand), bias).to(dtype)
