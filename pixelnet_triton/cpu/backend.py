"""The CPU back end, in PyTorch's own operators.

    forward   z = sum_i (S_i X_i) W_i^T        gathered layers
                + [S_j ...] [X_j W_j^T ; ...]  projected layers
    backward  dW_i = G^T (S_i X_i)     dX_i = S_i^T (G W_i)                    gathered
              Q = S^T G                dW_j = Q_j^T X_j       dX_j = Q_j W_j   projected

Every sum has a fixed order: results are deterministic always. Half precision is computed in
float32, but for products of bfloat16 where the CPU has units for them (products.py). Nothing of
size P x sum C is kept for the backward pass but of few points (expression.py). Products write into
`out`, which autocast, already obeyed by the caller, leaves in the dtype given.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from ..call import (
    CallShape,
    DenseLayer,
    Executor,
    Geometry,
    Gradients,
    Linear,
    Plan,
    PlanWork,
    Route,
    Sampling,
    Wanted,
)
from . import dense, grid_sample, routes
from .expression import Expression
from .layers import Gathered, GatheredBackward, Projected, ProjectedBackward, Targets
from .products import Upstream, activate_, multiplies_half, product_dtype
from .reading import Reading
from .work import work

__all__ = ["BACKEND", "CpuBackend"]


class CpuBackend:
    """See :class:`pixelnet_triton.call.Backend`."""

    name = "cpu"
    modes: tuple[str, ...] = ("two_step",)

    def unserved(self, shape: CallShape) -> list[str]:
        """It serves whatever passes the checks."""
        return []

    def multiplies(self, dtype: torch.dtype) -> bool:
        return dtype.itemsize >= 4 or multiplies_half(dtype)

    def routes(self, shape: CallShape, plan: Plan) -> list[Route]:
        return routes.routes(shape, plan)

    def fits(self, shape: CallShape, plan: Plan, route: Route) -> bool:
        return routes.fits(shape, plan, route)

    def work(self, shape: CallShape, plan: Plan) -> PlanWork:
        return work(shape, plan)

    def notes(self, shape: CallShape, plan: Plan) -> list[str]:
        """What the route's words mean."""
        assert plan.route is not None
        words = dict.fromkeys((plan.route.forward, *plan.route.read, *plan.route.write))
        return [f"{word}: {routes.WORDS[word]}" for word in words]

    def executor(self, shape: CallShape, geometry: Geometry, plan: Plan) -> Executor:
        assert plan.route is not None
        if plan.route.forward == "grid_sample":
            return grid_sample.GridSample.of(geometry, shape)
        if plan.route.by_autograd:
            return Expression.of(geometry, shape, plan.route.read)
        return Steps(plan, plan.route)

    def dense(
        self,
        features: Sequence[Tensor],
        head: Linear,
        geometry: Geometry,
        image_size: tuple[int, int],
        memory: int,
    ) -> DenseLayer:
        return dense.DenseLayer(features, head, geometry, image_size, memory)


BACKEND = CpuBackend()


@dataclass(frozen=True)
class Steps:
    """Carries a plan out in steps of its own, both passes."""

    plan: Plan
    route: Route

    def forward(self, s: Sampling, head: Linear | None) -> Tensor:
        reading = Reading(s, self.route, halves=True)
        if head is None:
            return _hypercolumns(reading)
        return _linear(reading, head, self.plan)

    def backward(
        self, s: Sampling, head: Linear | None, grad: Tensor, output: Tensor | None, wanted: Wanted
    ) -> Gradients:
        upstream = Upstream.of(grad, output)
        reading = Reading(s, self.route)
        if head is None:
            return _hypercolumns_backward(reading, upstream.grad, wanted)
        return _linear_backward(reading, head, self.plan, upstream, wanted)


def _hypercolumns(reading: Reading) -> Tensor:
    """h = [S_1 X_1 | ... | S_M X_M], (P, sum C), in the features' dtype."""
    s = reading.s
    layers = range(len(s.features))
    out = s.features[0].new_empty((s.total, sum(s.channels)))
    for points, piece in reading.parts():
        torch.cat(piece.read(layers), 1, out=out[points])
    return out


def _hypercolumns_backward(reading: Reading, grad: Tensor, wanted: Wanted) -> Gradients:
    """dX_i = S_i^T dh_i, laid out as X_i, and the points' gradient."""
    s = reading.s
    points_out = s.points.new_zeros(s.points.shape, dtype=reading.dtype) if wanted.points else None
    features: list[Tensor | None] = [None] * len(s.features)
    for i, columns in enumerate(s.columns):
        if wanted.features[i] or points_out is not None:
            grad_columns = grad[:, columns].to(reading.dtype).contiguous()
            if points_out is not None:
                reading.add_point_gradient(points_out, i, grad_columns)
            if wanted.features[i]:
                features[i] = reading.write({i: grad_columns})[i]
    return Gradients(features, _to(points_out, s.points.dtype), None, None)


def _linear(reading: Reading, head: Linear, plan: Plan) -> Tensor:
    """act(h W^T + b), (P, D), in the features' dtype; weight (D, sum C), bias (D,) or None."""
    s = reading.s
    features_dtype, dtype = s.features[0].dtype, product_dtype(head.weight.dtype)
    weight, bias = head.weight.to(dtype), _to(head.bias, dtype)
    parts = list(reading.parts()) if plan.gathered else []
    if plan.projected and len(parts) <= 1:
        # Gathered layers at so few points complete each block while it is in the cache.
        gathered = Gathered(reading, weight, plan.gathered) if parts else None
        projected = Projected(reading, weight, bias, plan.projected)
        return _by_blocks(projected, gathered, head.activation, features_dtype).to(features_dtype)
    if plan.projected:
        z = _by_blocks(Projected(reading, weight, bias, plan.projected), None, None, dtype)
    else:
        z = weight.new_empty((s.total, weight.shape[0]))
    for points, piece in parts:
        rows = z[points]
        onto = rows if plan.projected else bias
        Gathered(piece, weight, plan.gathered).add_to(rows, slice(None), onto)
        activate_(rows, head.activation)
    return z.to(features_dtype)


def _by_blocks(
    projected: Projected, gathered: Gathered | None, activation: str | None, dtype: torch.dtype
) -> Tensor:
    """act(z), (P, D), by blocks of columns, each completed while it is in the cache.

    In `dtype`, or in the weight's dtype if all of it is one block.
    """
    z: Tensor | None = None
    for columns in projected.column_blocks():
        for points, block in projected.block(columns):
            if gathered is not None:
                gathered.add_to(block, columns, block)
            activate_(block, activation)
            if block.shape == projected.shape:
                return block
            if z is None:
                z = block.new_empty(projected.shape, dtype=dtype)
            z[points, columns] = block
            del block  # before the next block is made
    assert z is not None
    return z


def _linear_backward(
    reading: Reading, head: Linear, plan: Plan, upstream: Upstream, wanted: Wanted
) -> Gradients:
    """Gradients of features, points, weight and bias: some looks at all of G, one after another.

    Coarse layers go first: the large gradients come when their scratch memory is free again. With
    all points in one part one look at G serves both kinds of layers.
    """
    s = reading.s
    weight = head.weight.to(upstream.dtype)
    parts = list(reading.parts()) if plan.gathered else []
    one_part = len(parts) <= 1
    # What several products add up to is kept in the wider dtype until they all did.
    once = one_part and (s.batch == 1 or not plan.projected)
    weight_dtype = weight.dtype if once else reading.dtype
    weight_out = weight.new_empty(weight.shape, dtype=weight_dtype) if wanted.weight else None
    bias_out = weight.new_zeros(weight.shape[0], dtype=reading.dtype) if wanted.bias else None
    points_out = s.points.new_zeros(s.points.shape, dtype=reading.dtype) if wanted.points else None
    targets = Targets(wanted, weight_out, points_out)

    looks: list[list[type[ProjectedBackward] | type[GatheredBackward]]] = []
    if plan.projected:
        looks.append([ProjectedBackward])
    if plan.gathered and looks and one_part:
        looks[0].append(GatheredBackward)
    elif plan.gathered:
        looks.append([GatheredBackward])
    layers_of = {ProjectedBackward: plan.projected, GatheredBackward: plan.gathered}
    everything = [(slice(0, s.total), reading)]
    gradients: dict[int, Tensor] = {}
    bias_sums = bias_out  # by the first look
    for kinds in looks:
        steps = [kind(reading, weight, layers_of[kind], targets) for kind in kinds]
        for points, piece in everything if one_part or kinds[0] is ProjectedBackward else parts:
            _look(steps, upstream, points, piece, bias_sums)
        bias_sums = None
        while steps:  # the scratch memory of a step goes before the next one finishes
            gradients |= steps.pop(0).finish()
    return Gradients(
        [gradients.get(i) for i in range(len(s.features))],
        _to(points_out, s.points.dtype),
        _to(weight_out, head.weight.dtype),
        _to(bias_out, upstream.grad.dtype),
    )


def _look(
    steps: Sequence[GatheredBackward | ProjectedBackward],
    upstream: Upstream,
    points: slice,
    piece: Reading,
    bias_sums: Tensor | None,
) -> None:
    """Show G of some points to all steps; what they allocate for that is free again afterwards."""
    with ExitStack() as scratch:
        takers = [scratch.enter_context(step.at(points, piece)) for step in steps]
        upstream.pass_to(takers, points, bias_sums)


def _to(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype)
