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
from ..kernels.launch import Points, starts
from ..kernels.order import Order
from .parts import Columns, strided_like

__all__ = ["Collect", "Scatter"]


class Scatter:
    """From U (P, columns of some layers) to the gradients of their maps, and of the points."""

    def __init__(self, s: Sampling, layers: Sequence[int], wanted: Wanted) -> None:
        self.layers, self.points = list(layers), wanted.points
        self.targets = [i for i in self.layers if wanted.features[i]]
        self.written = [strided_like(s.features[i]) for i in self.targets]
        self.columns = starts(s.of(self.layers).channels)
        start = dict(zip(self.layers, self.columns, strict=True))
        self.target_columns = tuple([start[i] for i in self.targets])
        self.band: Callable[[Tensor, Points, Tensor, Sequence[Tensor]], None] | None = None

    def __call__(
        self, rows: Tensor, s: Sampling, order: Order, points: Points, features: list[Tensor | None]
    ) -> Tensor | None:
        """The gradient of the points, if it is wanted; those of maps are put into `features`."""
        if self.targets:
            new = s.features[0].new_empty_strided
            written = [new(shape, strides) for shape, strides in self.written]
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
        self.outputs = grad.shape[1]
        self.layers = [
            (i, columns.part[i], Cells(s.features[i]), wanted.features[i]) for i in layers
        ]
        self.cells = [cells.count for _, _, cells, _ in self.layers]
        qs = [
            cells.as_map(grad.new_empty(cells.count, self.outputs))
            for _, _, cells, _ in self.layers
        ]
        collected = s.of(layers, qs, "collected")
        self.band = band_like(grad, None, collected, order)

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
        outputs = self.outputs
        qs = [grad.new_empty(count, outputs) for count in self.cells]
        self.band(grad, points, starts, qs)
        for q, (i, part, cells, is_wanted) in zip(qs, self.layers, strict=True):
            if slices is not None:
                torch.mm(q.mT, cells.rows_of(maps[i]), out=slices[part])
            if is_wanted:
                features[i] = cells.product(q, weights[part])


class Cells:
    """The cells of maps (B, C, H, W) that are laid out like one, as rows of matrices."""

    def __init__(self, feature: Tensor) -> None:
        batch, channels, height, width = self.shape = feature.shape
        self.count = batch * height * width
        self.rows = ((self.count, channels), (channels, 1))
        self.written = strided_like(feature)
        gradient = torch.empty_strided(*self.written, device="meta")
        self.reads_rows, self.writes_rows = (
            tensor.is_contiguous(memory_format=torch.channels_last)
            for tensor in (feature, gradient)
        )

    def as_map(self, rows: Tensor) -> Tensor:
        """(B H W, D) as a map (B, D, H, W)."""
        batch, _, height, width = self.shape
        return rows.view(batch, height, width, -1).permute(0, 3, 1, 2)

    def rows_of(self, feature: Tensor) -> Tensor:
        """(B H W, C): a view of a channels_last map, a copy of others."""
        if self.reads_rows:
            return feature.as_strided(*self.rows)
        return feature.permute(0, 2, 3, 1).reshape(*self.rows[0])

    def product(self, q: Tensor, weight: Tensor) -> Tensor:
        """Q W (B, C, H, W), in the layout of a gradient, for Q (B H W, D) and W (D, C)."""
        if self.writes_rows:
            return torch.mm(q, weight).as_strided(*self.written)
        by_image = q.unflatten(0, (self.shape[0], -1)).transpose(1, 2)
        planes = torch.matmul(weight.t(), by_image).view(self.shape)
        if self.written[1] == planes.stride():
            return planes
        return q.new_empty_strided(*self.written).copy_(planes)
