"""Small calls, which dispatch bounds: as few operators as can be, and autograd's own backward.

    y = act([S_1 X_1 | ...] W^T + b)

It keeps the hypercolumns for the backward pass, two megabytes at most, where larger calls sample
again (and what it converts of half precision, eight at most); and the gradients of maps come as
`grid_sample` makes them, contiguous in NCHW.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, linear

from ..call.geometry import Geometry
from . import native
from .choice import keeps_hypercolumns
from .products import product_dtype

__all__ = ["SmallCall", "small_call"]


def small_call(
    features: Sequence[Tensor],
    points: Tensor,
    batch_index: Tensor | None,
    weight: Tensor | None,
    geometry: Geometry,
    training: bool,
) -> SmallCall | None:
    """How to compute calls of these shapes, if that is the better way. Points (B, N, 2), (P, 2).

    Where nobody is `training` nothing is kept, and somewhat larger calls are small ones, too.
    """
    rows, channels = points.numel() // 2, sum([feature.shape[1] for feature in features])
    batch, dtype = features[0].shape[0], features[0].dtype
    ragged = batch_index is not None and batch > 1
    if rows == 0 or batch == 0 or not native.defines_alike(features, geometry):
        return None
    operand = product_dtype(dtype) if dtype.itemsize == 2 else None
    converted = 0
    if operand is not None:
        converted = sum([feature.numel() for feature in features])
        converted += weight.numel() if weight is not None and operand != dtype else 0
    small = keeps_hypercolumns(rows, channels, len(features), converted)
    if not small and not training and not ragged:
        small = native.suits_reading(features, rows, None, geometry)
    if not small:
        return None
    scale, offset = native.grid_affine(geometry.affine, tuple([f.shape[2:] for f in features]))
    padding = native.PADDING[geometry.padding_mode]
    leading = tuple(points.shape[:-1])
    return SmallCall(batch, ragged, (channels, rows), leading, operand, padding, scale, offset)


@dataclass(frozen=True)
class SmallCall:
    """Constants of calls with the same shapes; grids are scale * points + offset.

    `ragged`: several images, and a batch_index. `planes` is (sum C, P), `leading` the points'
    shape without the last dimension. `operand`: the dtype of products of half-precision maps, None
    for others. scale, offset: (M, 1, 2) by layer; (2,) if they are alike.
    """

    batch: int
    ragged: bool
    planes: tuple[int, int]
    leading: tuple[int, ...]
    operand: torch.dtype | None
    padding: int
    scale: Tensor
    offset: Tensor

    def __call__(
        self,
        features: Sequence[Tensor],
        points: Tensor,
        batch_index: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        activation: str | None,
    ) -> Tensor | None:
        """(..., D), or (..., sum C) without a weight, for points (..., 2).

        None for ragged points so unevenly spread that this way would be the longer one.
        """
        if self.ragged and batch_index is not None:
            padded = _padded(points, batch_index, self.batch)
            if padded is None:
                return None
            h = self._sampled(features, padded.points)
            rows = h.squeeze(2).transpose(1, 2).flatten(0, 1).index_select(0, padded.row)
        elif self.batch == 1:
            rows = self._sampled(features, points).view(self.planes).t()  # (P, sum C)
        else:
            rows = self._sampled(features, points).squeeze(2).transpose(1, 2)  # (B, N, sum C)
            if len(self.leading) == 1:
                rows = rows.flatten(0, 1)
        if self.operand is not None:
            value = _in_half(rows, weight, bias, features[0].dtype, self.operand)
        else:
            value = rows.contiguous() if weight is None else linear(rows, weight, bias)
        if activation == "relu":
            value.relu_()
        elif activation == "gelu":
            value = gelu(value)
        return value.unsqueeze(0) if value.dim() == len(self.leading) else value

    def _sampled(self, features: Sequence[Tensor], points: Tensor) -> Tensor:
        """(B, sum C, 1, N), in the dtype that is computed in."""
        if self.operand is not None:
            features = [feature.float() for feature in features]
        grids = native.grids_of(self.scale, self.offset, points, features)
        return native.sampled_planes(features, grids, self.padding)


def _in_half(
    rows: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    dtype: torch.dtype,
    operand: torch.dtype,
) -> Tensor:
    """What comes of `rows` (..., sum C), in `dtype`; the product is made in `operand`."""
    if weight is None:
        return rows.to(dtype, memory_format=torch.contiguous_format)
    bias = None if bias is None else bias.to(operand)
    return linear(rows.to(operand), weight.to(operand), bias).to(dtype)


class _Padded(NamedTuple):
    """Ragged points as equally many an image, (B, N, 2), and the row that each point became."""

    points: Tensor
    row: Tensor


def _padded(points: Tensor, batch_index: Tensor, batch: int) -> _Padded | None:
    """None where an image has so many points that the padding would be most of it."""
    index = batch_index.long()
    counts = index.bincount(minlength=batch)
    longest = int(counts.max())
    if batch * longest > 2 * len(points):
        return None
    order = index.argsort(stable=True)
    shift = torch.arange(0, batch * longest, longest) - counts.cumsum(0) + counts
    row = torch.empty_like(order)
    row[order] = torch.arange(len(order)) + shift[index[order]]
    padded = points.new_zeros((batch * longest, 2)).index_copy_(0, row, points)
    return _Padded(padded.view(batch, longest, 2), row)
