"""The steps of a backward pass on a GPU, for points in order (by image, then by y).

With G = dL/dz (P, D):

    scatter    U = G W_i,       dX_i = S_i^T U     dW_i = G^T (S_i X_i)
    collect    Q_i = S_i^T G,   dX_i = Q_i W_i     dW_i = Q_i^T X_i

The order is that of the forward pass, if it made one.

What follows from shapes is settled by the first call of a kind, launches included: the others
allocate, launch and multiply. Small calls wait for the host, to which every object and every view
is as much work as a launch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..call.linear import Gradients, Linear, Wanted
from ..call.route import Route
from ..call.sampling import Sampling
from ..kernels.gather import gather_like
from ..kernels.launch import Points, PointsLike
from ..kernels.mask import masked_like
from ..kernels.order import Order, order_like, order_points
from .map_gradients import Collect, Scatter
from .parts import Columns
from .routes import layers_written

__all__ = ["hypercolumn_gradients", "linear_gradients"]


def hypercolumn_gradients(s: Sampling, grad: Tensor, wanted: Wanted) -> Gradients:
    """Gradients of maps and points, for grad = dL/dh (P, sum C_i) or (B, N, sum C_i)."""
    steps = s.once(("hypercolumn", wanted), lambda: HypercolumnGradients(s, grad, wanted))
    return steps(s, grad)


class HypercolumnGradients:
    """The steps of a backward pass without a weight, settled for calls like one."""

    def __init__(self, s: Sampling, grad: Tensor, wanted: Wanted) -> None:
        self.in_order = InOrder(s)
        self.masked = masked_like(grad.reshape(s.total, -1), is_masked=False, bias=False)
        self.scatter = Scatter(s, range(len(s.features)), wanted)

    def __call__(self, s: Sampling, grad: Tensor) -> Gradients:
        order, points = self.in_order(s)
        rows, _ = self.masked(grad.contiguous(), None, order.place)
        features: list[Tensor | None] = [None] * len(s.features)
        moved = self.scatter(rows, s, order, points, features)
        return Gradients(features, moved, None, None)


def linear_gradients(
    s: Sampling,
    head: Linear,
    route: Route,
    grad: Tensor,
    output: Tensor | None,
    wanted: Wanted,
) -> Gradients:
    """Gradients of maps, points, weight and bias, for grad = dL/dy, (P, D) or (B, N, D).

    `output` is y after a ReLU, whose zeros mask grad; None if grad is dL/dz.
    """
    key = (route.write, wanted, output is None)
    steps = s.once(key, lambda: LinearGradients(s, route, grad, output, wanted))
    return steps(s, head, grad, output)


class LinearGradients:
    """The steps of a backward pass with a weight, settled for calls like one."""

    def __init__(
        self,
        s: Sampling,
        route: Route,
        grad: Tensor,
        output: Tensor | None,
        wanted: Wanted,
    ) -> None:
        self.in_order = InOrder(s)
        order, grad = s.kept, grad.reshape(s.total, -1)
        self.scattered, collected = (layers_written(route, w) for w in ("scatter", "collect"))
        self.wants_weight = wanted.weight
        self.masked = masked_like(grad, output is not None, wanted.bias)
        self.columns = Columns(s.channels, self.scattered)
        self.gather: Callable[[Sequence[Tensor], Points], Tensor] | None = None
        self.scatter: Scatter | None = None
        self.collect: Collect | None = None
        if self.scattered and wanted.weight:
            self.gather = gather_like(order.of(s).of(self.scattered))
        if wanted.points or any(wanted.features[i] for i in self.scattered):
            self.scatter = Scatter(s, self.scattered, wanted)
        collected = [i for i in collected if wanted.features[i] or wanted.weight]
        if collected:
            self.collect = Collect(s, collected, self.columns, order, grad, wanted)

    def __call__(self, s: Sampling, head: Linear, grad: Tensor, output: Tensor | None) -> Gradients:
        order, points = self.in_order(s)
        output = None if output is None else output.contiguous()
        grad, bias = self.masked(grad.contiguous(), output, order.place)
        maps, columns = s.features, self.columns
        features: list[Tensor | None] = [None] * len(maps)
        weight = slices = moved = None
        weights = columns.of(head.weight)
        if self.wants_weight:
            weight = torch.empty_like(head.weight)
            slices = columns.of(weight)
            if self.gather is not None:
                rows = self.gather([maps[i] for i in self.scattered], points)
                columns.put(slices, grad.mT, rows)
                del rows
        if self.scatter is not None:
            rows = torch.mm(grad, columns.joined(weights))
            moved = self.scatter(rows, s, order, points, features)
            del rows
        if self.collect is not None:
            self.collect(grad, points, order.starts, maps, weights, slices, features)
        return Gradients(features, moved, weight, bias)


class InOrder:
    """The order of a call's points, and the points in that order as kernels take them.

    It is that of the forward pass, if there it was made: ``s.kept``.
    """

    def __init__(self, s: Sampling) -> None:
        self.order, self.points = s.once("order", lambda: order_like(s)), PointsLike(s)
        if s.kept is None:
            s.kept = order_points(s)

    def __call__(self, s: Sampling) -> tuple[Order, Points]:
        order = s.kept
        if order is None:
            order = self.order(self.points(s.points, s.batch_index))
        return order, self.points(order.xy, order.image)
