"""The first layer of the MLP on the hypercolumns of a tile of neighbouring pixels.

A back end may have a way of its own for pixels in a grid (`Backend.dense`); any other is called as
usual, on the part of the maps under the tile (`SampledLayer`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..call import DenseLayer, Geometry, Linear, Sampling
from ..op import backend_for
from ..op.compute import compute_forward
from ..op.prepare import prepare_executor

__all__ = ["SampledLayer", "first_layer"]


def first_layer(
    features: Sequence[Tensor],
    head: Linear,
    geometry: Geometry,
    image_size: tuple[int, int],
    memory: int,
) -> DenseLayer:
    """The first layer for the features' device: maps (1, C_i, H_i, W_i), head with a bias.

    `memory`: bytes that may be kept from tile to tile.
    """
    dense = backend_for(features[0].device).dense(features, head, geometry, image_size, memory)
    return SampledLayer(features, head, geometry) if dense is None else dense


class SampledLayer:
    """A call of its own for every tile, on the part of the maps under it."""

    kept_bytes = 0

    def __init__(self, features: Sequence[Tensor], head: Linear, geometry: Geometry) -> None:
        dtype = features[0].dtype
        assert head.bias is not None
        self.features = features
        self.head = Linear(head.weight.to(dtype), head.bias.to(dtype), head.activation)
        self.geometry = geometry

    def scratch_bytes(self, rows: int, columns: int) -> int:
        """Result, points, hypercolumns and projected cells: all that any plan may allocate."""
        pixels, (out_features, channels) = rows * columns, self.head.weight.shape
        cells = 0
        for feature, affine in zip(self.features, self.geometry.affine, strict=True):
            down = min(feature.shape[2], math.ceil((rows - 1) * affine[2]) + 2)
            cells += down * min(feature.shape[3], math.ceil((columns - 1) * affine[0]) + 2)
        values = pixels * (out_features + channels) + cells * out_features
        return values * self.head.weight.element_size() + pixels * 16

    def __call__(self, rows: slice, columns: slice) -> Tensor:
        """act(z) of the pixels in some rows and columns, (pixels, D), row by row."""
        cropped, affine = [], []
        for feature, layer in zip(self.features, self.geometry.affine, strict=True):
            scale_x, offset_x, scale_y, offset_y = layer
            y = _cells_under(scale_y, offset_y, feature.shape[2], rows)
            x = _cells_under(scale_x, offset_x, feature.shape[3], columns)
            cropped.append(feature[:, :, y, x])
            # The tile's first pixel becomes (0, 0), its first cell cell 0.
            shift_x = offset_x + scale_x * columns.start - x.start
            affine.append((scale_x, shift_x, scale_y, offset_y + scale_y * rows.start - y.start))
        height, width = rows.stop - rows.start, columns.stop - columns.start
        pixels = _grid_of_points(height, width, self.head.weight.device)
        s = Sampling(cropped, pixels, None, Geometry(tuple(affine)))
        flags = {"training": False, "moving_points": False}
        executor = prepare_executor("auto", s, self.head.weight, **flags)[1]
        return compute_forward(executor, s, self.head)


def _cells_under(scale: float, offset: float, cells: int, pixels: slice) -> slice:
    """The cells of an axis that the first to the last of some pixels read."""
    first = min(max(scale * pixels.start + offset, 0), cells - 1)
    last = min(max(scale * (pixels.stop - 1) + offset, 0), cells - 1)
    return slice(min(math.floor(first), max(cells - 2, 0)), min(math.floor(last) + 2, cells))


def _grid_of_points(rows: int, columns: int, device: torch.device) -> Tensor:
    """(x, y) of a tile's pixels, row by row: (rows * columns, 2) int64."""
    y = torch.arange(rows, device=device)[:, None].expand(rows, columns)
    x = torch.arange(columns, device=device).expand(rows, columns)
    return torch.stack([x, y], dim=-1).flatten(0, 1)
