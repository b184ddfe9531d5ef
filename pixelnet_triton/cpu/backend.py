"""The CPU back end, in PyTorch's own operators.

    forward   z = sum_i (S_i X_i) W_i^T        gathered layers   (gathered.py)
                + [S_j ...] [X_j W_j^T ; ...]  projected layers  (projected.py)
    backward  dW_i = G^T (S_i X_i)     dX_i = S_i^T (G W_i)                    gathered
              Q = S^T G                dW_j = Q_j^T X_j       dX_j = Q_j W_j   projected

Every sum has a fixed order: results are deterministic always. Half precision is computed in
float32, but for products of bfloat16 where the CPU has units for them (products.py). Nothing of
size P x sum C is kept for the backward pass; small calls, which do keep it, do not come here
(small.py). Products write into `out`, which autocast, already obeyed by the caller, leaves in the
dtype given.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..call.geometry import Geometry
from ..call.plan import Plan
from . import native
from .gathered import Gathered, GatheredBackward
from .products import product_dtype
from .projected import Projected, ProjectedBackward
from .sampling import Sampling
from .upstream import Targets, Upstream

__all__ = ["gather", "gather_backward", "linear", "linear_backward"]

FeatureGrads = list[Tensor | None]


def _needed(batch_index: Tensor | None, features: Sequence[Tensor]) -> Tensor | None:
    """Points of a single image need no index."""
    return batch_index if features[0].shape[0] > 1 else None


def gather(
    features: Sequence[Tensor], points: Tensor, batch_index: Tensor | None, geometry: Geometry
) -> Tensor:
    """h = [S_1 X_1 | ... | S_M X_M], (P, sum C), in the features' dtype."""
    batch_index = _needed(batch_index, features)
    call = Sampling(features, points, batch_index, geometry)
    layers = range(len(features))
    if not call.empty and native.suits_reading(features, points.shape[0], batch_index, geometry):
        return native.gather(features, points, geometry).contiguous()
    out = features[0].new_empty((points.shape[0], call.columns()[-1].stop))
    for part, piece in call.parts():
        torch.cat(piece.read(layers), 1, out=out[part])
    return out


def gather_backward(
    grad: Tensor,
    features: Sequence[Tensor],
    points: Tensor,
    batch_index: Tensor | None,
    geometry: Geometry,
    *,
    feature_grads: Sequence[bool],
    point_grad: bool,
    deterministic: bool,
) -> tuple[FeatureGrads, Tensor | None]:
    """dX_i = S_i^T dh_i, laid out as X_i, and the points' gradient; None where not asked for.

    grad (P, sum C). `deterministic` changes nothing: every sum is ordered anyway.
    """
    batch_index = _needed(batch_index, features)
    call = Sampling(features, points, batch_index, geometry)
    if call.empty:
        return _zero_features(features, feature_grads), _zeros(points, point_grad)
    if not any((*feature_grads, point_grad)):
        return [None] * len(features), None
    if not point_grad and native.suits(features, points.shape[0], batch_index, geometry):
        return native.scatter(grad, features, points, geometry, feature_grads), None
    points_out = points.new_zeros(points.shape, dtype=call.dtype) if point_grad else None
    found: dict[int, Tensor] = {}
    for i, own in enumerate(call.columns()):
        if feature_grads[i] or point_grad:
            own_grad = grad[:, own].to(call.dtype).contiguous()
            if points_out is not None:
                call.add_point_grad(points_out, i, own_grad)
            found |= call.scatter({i: own_grad}) if feature_grads[i] else {}
    return _in_order(found, features), _to(points_out, points.dtype)


def linear(
    features: Sequence[Tensor],
    points: Tensor,
    batch_index: Tensor | None,
    geometry: Geometry,
    weight: Tensor,
    bias: Tensor | None,
    activation: str | None,
    plan: Plan,
) -> Tensor:
    """act(h W^T + b), (P, D), in the features' dtype; weight (D, sum C), bias (D,) or None."""
    batch_index = _needed(batch_index, features)
    plain = not plan.projected and features[0].shape[0] > 0
    if plain and native.suits_reading(features, points.shape[0], batch_index, geometry):
        z = native.linear(features, points, geometry, weight, bias)
        _activate_(z, activation)
        return z
    call = Sampling(features, points, batch_index, geometry)
    if call.empty:
        return features[0].new_empty((points.shape[0], weight.shape[0]))
    dtype = product_dtype(weight.dtype)
    weight, bias = weight.to(dtype), _to(bias, dtype)
    parts = list(call.parts()) if plan.gathered else []
    together = plan.projected and len(parts) <= 1
    if plan.projected:
        rest = Gathered(call, weight, plan.gathered) if len(parts) == 1 else None
        first = Projected(call, weight, bias, plan.projected)
        of_z = features[0].dtype if together else dtype  # if not, the rest is added to it
        z = _by_blocks(first, rest, activation if together else None, of_z)
    else:
        z = weight.new_empty((points.shape[0], weight.shape[0]))
    for part, piece in [] if together else parts:
        rows = z[part]
        onto = rows if plan.projected else bias
        Gathered(piece, weight, plan.gathered).add_to(rows, slice(None), onto)
        _activate_(rows, activation)
    return z.to(features[0].dtype)


def _by_blocks(
    first: Projected, rest: Gathered | None, activation: str | None, dtype: torch.dtype
) -> Tensor:
    """act(z), (P, D), by blocks of columns, each completed while it is in the cache.

    In `dtype`, or in the weight's dtype if all of it is one block.
    `rest` are gathered layers at the same points, if these are few enough to be worked on at once.
    """
    z: Tensor | None = None
    for columns in first.column_blocks():
        for part, rows in first.block(columns):
            if rest is not None:
                rest.add_to(rows, columns, rows)
            _activate_(rows, activation)
            if rows.shape == first.shape:
                return rows
            if z is None:
                z = rows.new_empty(first.shape, dtype=dtype)
            z[part, columns] = rows
            del rows  # before the next block is made
    assert z is not None
    return z


def linear_backward(
    grad: Tensor,
    output: Tensor | None,
    features: Sequence[Tensor],
    points: Tensor,
    batch_index: Tensor | None,
    geometry: Geometry,
    weight: Tensor,
    plan: Plan,
    *,
    feature_grads: Sequence[bool],
    point_grad: bool,
    weight_grad: bool,
    bias_grad: bool,
    deterministic: bool,
) -> tuple[FeatureGrads, Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of features, points, weight and bias, for grad = dL/dy (P, D).

    `output` is y after a ReLU, which masks the gradient; None without.
    """
    batch_index = _needed(batch_index, features)
    upstream = Upstream(grad, output, product_dtype(grad.dtype))
    plain = not (plan.projected or point_grad) and features[0].shape[0] > 0
    if plain and native.suits(features, points.shape[0], batch_index, geometry):
        g = upstream.whole()
        small, small_weight = native.linear_backward(
            g, features, points, geometry, weight, feature_grads, weight_grad
        )
        return small, None, small_weight, g.sum(0) if bias_grad else None
    call = Sampling(features, points, batch_index, geometry)
    if call.empty:
        zero_bias = grad.new_zeros(weight.shape[0]) if bias_grad else None
        zero_features = _zero_features(features, feature_grads)
        return zero_features, _zeros(points, point_grad), _zeros(weight, weight_grad), zero_bias
    operand = weight.to(upstream.dtype)
    parts = list(call.parts()) if plan.gathered else []
    # What several products add up to is kept in the wider dtype until they all did.
    once = len(parts) <= 1 and (call.batch == 1 or not plan.projected)
    weight_dtype = operand.dtype if once else call.dtype
    weight_out = weight.new_empty(weight.shape, dtype=weight_dtype) if weight_grad else None
    bias_out = weight.new_zeros(weight.shape[0], dtype=call.dtype) if bias_grad else None
    points_out = points.new_zeros(points.shape, dtype=call.dtype) if point_grad else None
    targets = Targets(feature_grads, weight_out, points_out)
    sums = bias_out  # by whoever sees all of G first
    # Coarse layers first: the large gradients come when their scratch memory is free again.
    found: dict[int, Tensor] = {}
    layers: list[ProjectedBackward | GatheredBackward] = []
    if plan.projected:
        layers.append(ProjectedBackward(call, operand, plan.projected, targets))
    if len(parts) != 1 and layers:
        upstream.pass_to(layers, slice(0, points.shape[0]), sums)
        found |= _finished(layers)
        sums = None
    if plan.gathered:
        # With all points in one part, one look at G serves both kinds of layers.
        gathered = GatheredBackward(call, operand, plan.gathered, targets)
        layers.append(gathered)
        for part, piece in parts:
            gathered.start(part, piece)
            upstream.pass_to(layers, part, sums)
            gathered.end()
    found |= _finished(layers)
    return (
        _in_order(found, features),
        _to(points_out, points.dtype),
        _to(weight_out, weight.dtype),
        _to(bias_out, grad.dtype),
    )


def _finished(layers: list[ProjectedBackward | GatheredBackward]) -> dict[int, Tensor]:
    """dX_i of all of them, whose scratch memory goes as soon as it is of no more use."""
    found: dict[int, Tensor] = {}
    while layers:
        found |= layers.pop(0).finish()
    return found


def _activate_(z: Tensor, activation: str | None) -> None:
    if activation == "relu":
        z.relu_()
    elif activation == "gelu":
        torch.ops.aten.gelu_(z)


def _in_order(found: dict[int, Tensor], features: Sequence[Tensor]) -> FeatureGrads:
    return [found.get(i) for i in range(len(features))]


def _to(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype)


def _zeros(like: Tensor, wanted: bool) -> Tensor | None:
    return torch.zeros_like(like) if wanted else None


def _zero_features(features: Sequence[Tensor], wanted: Sequence[bool]) -> FeatureGrads:
    return [_zeros(feature, want) for feature, want in zip(features, wanted, strict=True)]
