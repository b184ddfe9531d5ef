"""The gradients of maps, by the two ways to write them; settled for calls like one.

scatter    dX_i = S_i^T U, for U = G W_i whose columns are those of some layers
collect    Q_i = S_i^T G of some layers by one launch,  dX_i = Q_i W_i,  dW_i = Q_i^T X_i
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..call.linear import Wanted
from ..call.sampling import Sampling
from ..kernels.band import band_like
from ..kernels.gather import coordinate_gradient
from ..kernels.launch import Points, points_of, starts
from ..kernels.order import Order
from .parts import Columns, cells_of, layout

__all__ = ["Collect", "PointsInOrder", "Scatter"]


class PointsInOrder:
    """From an order to the argument `points` of kernels."""

    def __init__(self, s: Sampling, order: Order) -> None:
        _, _, *self.counts = points_of(order.of(s))

    def __call__(self, order: Order) -> Points:
        xy, image = order.xy, order.image
        return Points(xy, xy if image is None else image, *self.counts)


class Scatter:
    """From U (P, columns of some layers) to the gradients of their maps, and of the points."""

    def __init__(self, s: Sampling, layers: Sequence[int], wanted: Wanted) -> None:
        self.layers, self.points = list(layers), wanted.points
        self.targets = [i for i in self.layers if wanted.features[i]]
        self.formats = [(i, layout(s.features[i])) for i in self.targets]
        self.columns = starts(s.of(self.layers).channels)
        start = dict(zip(self.layers, self.columns, strict=True))
        self.target_columns = tuple([start[i] for i in self.targets])
        self.band: Callable[[Tensor, Points, Tensor, Sequence[Tensor]], None] | None = None

    def __call__(
        self, rows: Tensor, s: Sampling, order: Order, points: Points, features: list[Tensor | None]
    ) -> Tensor | None:
        """The gradient of the points, if it is wanted; those of maps are put into `features`."""
        if self.targets:
            maps = s.features
            written = [torch.empty_like(maps[i], memory_format=f) for i, f in self.formats]
            if self.band is None:
                targets = s.of(self.targets, written, "gradients")
                self.band = band_like(rows, self.target_columns, targets, order)
            self.band(rows, points, order.starts, written)
            for i, gradient in zip(self.targets, written, strict=True):
                features[i] = gradient
        return self._points(rows, s, order) if self.points else None

    def _points(self, rows: Tensor, s: Sampling, order: Order) -> Tensor:
        """dL/d(x, y), (P, 2) in the dtype of the points; 0 where nothing is interpolated."""
        gradient = torch.zeros_like(s.points, dtype=torch.float32)
        if s.geometry.bilinear:
            found = coordinate_gradient(rows, self.columns, order.of(s).of(self.layers))
            gradient.index_copy_(0, order.place, found)
        return gradient.to(s.points.dtype)


class Collect:
    """From G (P, D) to the gradients of some maps, and of their columns of the weight."""

    def __init__(
        self,
        s: Sampling,
        layers: Sequence[int],
        columns: Columns,
        order: Order,
        grad: Tensor,
        wanted: Wanted,
    ) -> None:
        outputs = grad.shape[1]
        self.layers = [
            Collected(s.features[i], i, columns.part[i], outputs, wanted.features[i])
            for i in layers
        ]
        maps = [layer.as_map(grad.new_empty(layer.cells, outputs)) for layer in self.layers]
        collected = s.of(layers, maps, "collected")
        self.band = band_like(grad, (0,) * len(maps), collected, order)

    def __call__(
        self,
        grad: Tensor,
        points: Points,
        starts: Tensor,
        maps: Sequence[Tensor],
        weights: Sequence[Tensor],
        slices: Sequence[Tensor] | None,
        features: list[Tensor | None],
    ) -> None:
        """Those of maps are put into `features`, dW_i into the `slices` of the weight's gradient.

        `grad` and `points` stand in order; `weights` are slices of the weight.
        """
        qs = [grad.new_empty(layer.cells, layer.outputs) for layer in self.layers]
        self.band(grad, points, starts, qs)
        for layer, q in zip(self.layers, qs, strict=True):
            if slices is not None:
                torch.mm(q.t(), layer.rows_of(maps[layer.index]), out=slices[layer.part])
            if layer.is_wanted:
                features[layer.index] = layer.gradient(q, weights[layer.part])


class Collected:
    """A layer whose Q_i (B cells, D) is collected; `part` is that of its columns."""

    def __init__(
        self, feature: Tensor, index: int, part: int, outputs: int, is_wanted: bool
    ) -> None:
        self.index, self.part, self.outputs, self.is_wanted = index, part, outputs, is_wanted
        batch, channels, height, width = self.shape = feature.shape
        self.cells = batch * height * width
        self.channels_last = layout(feature) is torch.channels_last
        self.rows = ((self.cells, channels), (channels, 1))
        self.map = (self.shape, (height * width * channels, 1, width * channels, channels))

    def as_map(self, rows: Tensor) -> Tensor:
        """Rows of cells as a map (B, D, H_i, W_i)."""
        batch, _, height, width = self.shape
        return rows.view(batch, height, width, -1).permute(0, 3, 1, 2)

    def rows_of(self, feature: Tensor) -> Tensor:
        """X_i as (B cells, C_i)."""
        return feature.as_strided(*self.rows) if self.channels_last else cells_of(feature)

    def gradient(self, q: Tensor, weight: Tensor) -> Tensor:
        """dX_i in the layout of the map."""
        if self.channels_last:
            return torch.mm(q, weight).as_strided(*self.map)
        by_image = q.unflatten(0, (self.shape[0], -1)).transpose(1, 2)
        return torch.matmul(weight.t(), by_image).view(self.shape)
