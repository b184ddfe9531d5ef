"""The steps of a backward pass on a GPU, for points in order (by image, then by y).

With G = dL/dz (P, D):

    scatter    U = G W_i,       dX_i = S_i^T U     dW_i = G^T (S_i X_i)
    collect    Q_i = S_i^T G,   dX_i = Q_i W_i     dW_i = Q_i^T X_i

The order is made anew: kept from the forward pass it would spare some 10 us, and be one tensor
more that the operator returns.
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
from ..kernels.mask import masked
from ..kernels.order import Order, order_points
from .parts import cells_of, columns_of, layout, weight_of
from .routes import layers_written

__all__ = ["hypercolumn_gradients", "linear_gradients"]


def hypercolumn_gradients(s: Sampling, grad: Tensor, wanted: Wanted) -> Gradients:
    """Gradients of maps and points, for grad = dL/dh (P, sum C_i)."""
    order = order_points(s)
    grad, _ = masked(grad, None, order, bias=False)
    starts = [columns.start for columns in s.columns]
    features = _scattered(grad, starts, s, wanted.layers, order)
    points = _coordinates(grad, starts, s, order) if wanted.points else None
    return _gradients(s, features, points, None, None)


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
    order = order_points(s)
    grad, bias = masked(grad, output, order, wanted.bias)
    weight = torch.empty_like(head.weight) if wanted.weight else None
    features: dict[int, Tensor] = {}
    points: Tensor | None = None
    if layers := layers_written(route, "scatter"):
        if weight is not None:
            columns = gather(order.of(s).of(layers))
            _put_product(weight, s, layers, grad.t(), columns)
            del columns
        if wanted.points or any(wanted.features[i] for i in layers):
            upstream = torch.mm(grad, weight_of(head.weight, s, layers))
            starts = [columns.start for columns in s.of(layers).columns]
            places = [n for n, i in enumerate(layers) if wanted.features[i]]
            found = _scattered(upstream, starts, s.of(layers), places, order)
            features |= {layers[n]: gradient for n, gradient in found.items()}
            if wanted.points:
                points = _coordinates(upstream, starts, s.of(layers), order)
            del upstream
    layers = layers_written(route, "collect")
    if layers := [i for i in layers if wanted.features[i] or wanted.weight]:
        for i, q in zip(layers, _collected(grad, s.of(layers), order), strict=True):
            if weight is not None:
                _put_product(weight, s, [i], q.t(), cells_of(s.features[i]))
            if wanted.features[i]:
                features[i] = _multiplied(q, weight_of(head.weight, s, [i]), s.features[i])
    return _gradients(s, features, points, weight, bias)


def _scattered(
    rows: Tensor, columns: Sequence[int], s: Sampling, layers: Sequence[int], order: Order
) -> dict[int, Tensor]:
    """S_i^T rows of some layers, in the shape, dtype and layout of each map."""
    if not layers:
        return {}
    targets = [torch.empty_like(s.features[i], memory_format=layout(s.features[i])) for i in layers]
    band(rows, [columns[i] for i in layers], s.of(layers, targets), order)
    return dict(zip(layers, targets, strict=True))


def _collected(grad: Tensor, s: Sampling, order: Order) -> list[Tensor]:
    """Q_i = S_i^T G of every layer of `s`, (B cells, D), by one launch."""
    outputs = grad.shape[1]
    qs = [grad.new_empty(s.batch * height * width, outputs) for height, width in s.sizes]
    targets = [
        q.view(s.batch, *size, outputs).permute(0, 3, 1, 2)
        for q, size in zip(qs, s.sizes, strict=True)
    ]
    band(grad, [0] * len(qs), s._replace(features=targets), order)
    return qs


def _put_product(
    weight: Tensor, s: Sampling, layers: Sequence[int], left: Tensor, right: Tensor
) -> None:
    """Write left times right, the gradient of the columns of `layers`, where it belongs."""
    columns = columns_of(s, layers)
    if columns is not None:
        torch.mm(left, right, out=weight[:, columns])
        return
    parts = torch.mm(left, right).split([s.channels[i] for i in layers], dim=1)
    for i, part in zip(layers, parts, strict=True):
        weight[:, s.columns[i]] = part


def _multiplied(q: Tensor, weight: Tensor, feature: Tensor) -> Tensor:
    """dX = Q W in the shape and layout of the map, for Q (B cells, D) and W (D, C)."""
    batch, channels, height, width = feature.shape
    if layout(feature) is torch.channels_last:
        return torch.mm(q, weight).view(batch, height, width, channels).permute(0, 3, 1, 2)
    by_image = q.view(batch, height * width, -1).transpose(1, 2)
    return torch.matmul(weight.t(), by_image).view(feature.shape)


def _coordinates(rows: Tensor, columns: Sequence[int], s: Sampling, order: Order) -> Tensor:
    """dL/d(x, y), (P, 2) float32, of rows in order; 0 where nothing is interpolated."""
    gradient = torch.zeros_like(s.points, dtype=torch.float32)
    if s.geometry.bilinear:
        found = coordinate_gradient(rows, columns, order.of(s))
        gradient.index_copy_(0, order.place, found)
    return gradient


def _gradients(
    s: Sampling,
    features: dict[int, Tensor],
    points: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
) -> Gradients:
    """The answer; the gradient of the points in their own dtype."""
    return Gradients(
        [features.get(i) for i in range(len(s.features))],
        None if points is None else points.to(s.points.dtype),
        weight,
        bias,
    )
