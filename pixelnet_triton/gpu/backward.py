"""The steps of a backward pass on a GPU, for points in order (by image, then by y).

With G = dL/dz (P, D):

    scatter    U = G W_i,       dX_i = S_i^T U     dW_i = G^T (S_i X_i)
    collect    Q_i = S_i^T G,   dX_i = Q_i W_i     dW_i = Q_i^T X_i

The order is that of the forward pass, if it made one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..call.linear import Gradients, Linear, Wanted
from ..call.route import Route
from ..call.sampling import Sampling
from ..kernels.band import band
from ..kernels.gather import coordinate_gradient, gather
from ..kernels.launch import starts
from ..kernels.mask import masked
from ..kernels.order import Order, order_points
from .parts import cells_of, layout, put_columns, weight_of
from .routes import layers_written

__all__ = ["hypercolumn_gradients", "linear_gradients"]


def hypercolumn_gradients(s: Sampling, grad: Tensor, wanted: Wanted) -> Gradients:
    """Gradients of maps and points, for grad = dL/dh (P, sum C_i)."""
    order = order_points(s)
    grad, _ = masked(grad, None, s, order, bias=False)
    upstream = s.once(("upstream", wanted), lambda: Upstream(s, range(len(s.channels)), wanted))
    return Gradients(*upstream(grad, s, order), None, None)


def linear_gradients(
    s: Sampling,
    head: Linear,
    route: Route,
    grad: Tensor,
    output: Tensor | None,
    wanted: Wanted,
) -> Gradients:
    """Gradients of maps, points, weight and bias, for grad = dL/dy (P, D).

    `output` is y after a ReLU, whose zeros mask grad; None if grad is dL/dz.
    """
    steps = s.once((route.write, wanted), lambda: LinearGradients(s, route, wanted))
    return steps(s, head, grad, output)


class LinearGradients:
    """The steps of a backward pass, settled for calls like one."""

    def __init__(self, s: Sampling, route: Route, wanted: Wanted) -> None:
        self.wanted = wanted
        self.scatter = layers_written(route, "scatter")
        self.upstream = Upstream(s, self.scatter, wanted) if self.scatter else None
        layers = layers_written(route, "collect")
        self.collect = [i for i in layers if wanted.features[i] or wanted.weight]
        self.collected = [Collected(s, i, wanted) for i in self.collect]

    def __call__(self, s: Sampling, head: Linear, grad: Tensor, output: Tensor | None) -> Gradients:
        order = order_points(s) if s.kept is None else s.kept
        grad, bias = masked(grad, output, s, order, self.wanted.bias)
        weight = torch.empty_like(head.weight) if self.wanted.weight else None
        features: list[Tensor | None] = [None] * len(s.features)
        points = None
        if self.upstream is not None:
            if weight is not None:
                rows = gather(order.of(s).of(self.scatter))
                put_columns(weight, s, self.scatter, grad.t(), rows)
                del rows
            if self.upstream.is_wanted:
                rows = torch.mm(grad, weight_of(head.weight, s, self.scatter))
                features, points = self.upstream(rows, s, order)
                del rows
        if self.collect:
            qs = [grad.new_empty(layer.cells, grad.shape[1]) for layer in self.collected]
            maps = [layer.as_map(q) for layer, q in zip(self.collected, qs, strict=True)]
            band(grad, (0,) * len(qs), s.of(self.collect, maps, "collected"), order)
            for layer, q in zip(self.collected, qs, strict=True):
                features[layer.index] = layer(q, s.features[layer.index], head.weight, weight)
        return Gradients(features, points, weight, bias)


class Collected:
    """From Q_i (B cells, D) to the gradient of map i and its columns of the weight's gradient."""

    def __init__(self, s: Sampling, index: int, wanted: Wanted) -> None:
        self.index, self.columns = index, s.columns[index]
        self.is_wanted = wanted.features[index]
        batch, _, height, width = self.shape = s.features[index].shape
        self.cells = batch * height * width
        self.channels_last = layout(s.features[index]) is torch.channels_last

    def as_map(self, rows: Tensor) -> Tensor:
        """Rows of cells as a map (B, ., H_i, W_i)."""
        (batch, _, height, width), columns = self.shape, rows.shape[1]
        strides = (height * width * columns, 1, width * columns, columns)
        return rows.as_strided((batch, columns, height, width), strides)

    def __call__(
        self, q: Tensor, feature: Tensor, weight: Tensor, weight_gradient: Tensor | None
    ) -> Tensor | None:
        """dX_i in the layout of the map, if it is wanted; dW_i goes where it belongs."""
        if weight_gradient is not None:
            torch.mm(q.t(), cells_of(feature), out=weight_gradient[:, self.columns])
        if not self.is_wanted:
            return None
        weight = weight[:, self.columns]
        if self.channels_last:
            return self.as_map(torch.mm(q, weight))
        by_image = q.unflatten(0, (self.shape[0], -1)).transpose(1, 2)
        return torch.matmul(weight.t(), by_image).view(self.shape)


class Upstream:
    """From U, whose columns are those of some layers, to the gradients of their maps and points."""

    def __init__(self, s: Sampling, layers: Sequence[int], wanted: Wanted) -> None:
        self.layers, self.points = list(layers), wanted.points
        self.targets = [i for i in self.layers if wanted.features[i]]
        self.is_wanted = bool(self.targets) or wanted.points
        self.formats = [layout(s.features[i]) for i in self.targets]
        start = dict(zip(self.layers, starts(s.of(self.layers).channels), strict=True))
        self.columns = tuple(start.values())
        self.target_columns = tuple([start[i] for i in self.targets])

    def __call__(
        self, rows: Tensor, s: Sampling, order: Order
    ) -> tuple[list[Tensor | None], Tensor | None]:
        features: list[Tensor | None] = [None] * len(s.features)
        if self.targets:
            gradients = [
                torch.empty_like(s.features[i], memory_format=memory_format)
                for i, memory_format in zip(self.targets, self.formats, strict=True)
            ]
            band(rows, self.target_columns, s.of(self.targets, gradients, "gradients"), order)
            for i, gradient in zip(self.targets, gradients, strict=True):
                features[i] = gradient
        return features, self._points(rows, s, order) if self.points else None

    def _points(self, rows: Tensor, s: Sampling, order: Order) -> Tensor:
        """dL/d(x, y), (P, 2) in the dtype of the points; 0 where nothing is interpolated."""
        gradient = torch.zeros_like(s.points, dtype=torch.float32)
        if s.geometry.bilinear:
            found = coordinate_gradient(rows, self.columns, order.of(s).of(self.layers))
            gradient.index_copy_(0, order.place, found)
        return gradient.to(s.points.dtype)
