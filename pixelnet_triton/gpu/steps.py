"""The steps of a call on a GPU: kernels and plain products, in order, as its route says.

With h_i = S_i X_i, the maps projected Z_i = X_i W_i^T, and G = dL/dz (P, D):

    y = act( sum_i h_i W_i^T + sum_k S_k Z_k + b )
    gathered layers    dW_i = G^T h_i        U = G W, dX_i = S_i^T U_i
    projected layers   Q_k = S_k^T G         dW_k = Q_k^T X_k, dX_k = Q_k W_k
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..call.linear import Gradients, Linear, Wanted
from ..call.route import Route
from ..call.sampling import Sampling
from ..kernels.fused_linear import fused_linear
from ..kernels.gather import coordinate_gradient, gather
from ..kernels.gradients import feature_gradient, weight_gradient
from ..kernels.linear import Operand
from ..kernels.product import product
from ..kernels.scatter import scatter_atomic, scatter_sorted
from ..kernels.transposed import transposed_product
from .routes import GATHERED, PROJECTED, layers_read

__all__ = [
    "gather",
    "hypercolumn_gradients",
    "linear",
    "linear_gradients",
    "scatter_as_it_comes",
    "scatter_in_order",
]

#: S_i^T grad for each layer of a sampling: (grad, first column of each layer, sampling).
Scatter = Callable[[Tensor, Sequence[int], Sampling], list[Tensor]]


def linear(s: Sampling, head: Linear, route: Route) -> Tensor:
    """act(h W^T + b), (P, D)."""
    gathered = layers_read(route, GATHERED)
    operands = {i: Operand("gather", s.features[i]) for i in gathered}
    if "gather" in route.read:
        columns = gather(s.of(gathered))
        if len(gathered) == len(route.read):
            return _activate(F.linear(columns, head.weight, head.bias), head.activation)
        rows = columns.split([s.channels[i] for i in gathered], dim=1)
        operands = {i: Operand("gather", row) for i, row in zip(gathered, rows, strict=True)}
    for i in layers_read(route, PROJECTED):
        operands[i] = Operand(route.read[i], _projected(s, head, i))
    launch = fused_linear if "fused_linear" in route.read else product
    return launch([operands[i] for i in range(len(route.read))], s, head)


def hypercolumn_gradients(s: Sampling, grad: Tensor, wanted: Wanted, scatter: Scatter) -> Gradients:
    """Gradients of maps and points, for grad = dL/dh (P, sum C_i)."""
    starts = [columns.start for columns in s.columns]
    layers = wanted.layers
    features = scatter(grad, [starts[i] for i in layers], s.of(layers)) if layers else []
    terms = [_coordinates(grad, starts, s)] if wanted.points else []
    return _gradients(s, dict(zip(layers, features, strict=True)), terms, None, None)


def linear_gradients(
    s: Sampling, head: Linear, route: Route, grad: Tensor, wanted: Wanted, scatter: Scatter
) -> Gradients:
    """Gradients of maps, points, weight and bias, for G = grad, contiguous (P, D)."""
    features: dict[int, Tensor] = {}
    weights: dict[int, Tensor] = {}
    terms: list[Tensor] = []
    gathered, projected = layers_read(route, GATHERED), layers_read(route, PROJECTED)
    if gathered and wanted.weight:
        weights |= _gathered_weights(s, route, grad, gathered)
    layers = [i for i in gathered if wanted.features[i]]
    fused = [i for i in layers if route.write[i] == "feature_gradient"]
    layers = [i for i in layers if i not in fused]
    if fused:
        features |= _scattered_products(s, head, grad, fused)
    if layers or (gathered and wanted.points):
        upstream = torch.mm(grad, _weight_of(head.weight, s, gathered))
        part = s.of(gathered)
        starts = {i: columns.start for i, columns in zip(gathered, part.columns, strict=True)}
        if layers:
            scattered = scatter(upstream, [starts[i] for i in layers], s.of(layers))
            features |= zip(layers, scattered, strict=True)
        if wanted.points:
            terms.append(_coordinates(upstream, list(starts.values()), part))
        del upstream
    for i in projected:
        if wanted.features[i] or wanted.weight:
            q = _collected(s, route, grad, i, scatter)
            if wanted.weight:
                weights[i] = torch.mm(q.flatten(0, 1).t(), _rows(s.features[i]).flatten(0, 1))
            if wanted.features[i]:
                features[i] = _multiplied(q, _weight_of(head.weight, s, [i]), s.features[i])
            del q
    if projected and wanted.points:
        part = s.of(projected, [_projected(s, head, i) for i in projected])
        terms.append(_coordinates(grad, [0] * len(projected), part))
    weight = [weights[i] for i in sorted(weights)]
    return _gradients(
        s,
        features,
        terms,
        torch.cat(weight, dim=1) if len(weight) > 1 else next(iter(weight), None),
        grad.sum(0) if wanted.bias else None,
    )


def scatter_in_order(grad: Tensor, columns: Sequence[int], s: Sampling) -> list[Tensor]:
    """S_i^T grad in the shape, dtype and layout of each map; the same bits at every call."""
    targets = [torch.empty_like(f, memory_format=_layout(f)) for f in s.features]
    scatter_sorted(grad, columns, s._replace(features=targets))
    return targets


def scatter_as_it_comes(grad: Tensor, columns: Sequence[int], s: Sampling) -> list[Tensor]:
    """The same by atomics."""
    return _added(s, partial(scatter_atomic, grad, columns))


def _scattered_products(
    s: Sampling, head: Linear, grad: Tensor, layers: Sequence[int]
) -> dict[int, Tensor]:
    """S_i^T (G W_i) in one launch, by atomics."""
    starts = [s.columns[i].start for i in layers]
    added = _added(s.of(layers), partial(feature_gradient, grad, head.weight, starts))
    return dict(zip(layers, added, strict=True))


def _added(s: Sampling, add: Callable[[Sampling], None]) -> list[Tensor]:
    """What `add` adds to float32 sums, in the shape, dtype and layout of each map.

    The sums are channels_last, so that a cell's channels are added 16 bytes at a time.
    """
    sums = [
        torch.zeros(f.permute(0, 2, 3, 1).shape, dtype=torch.float32, device=f.device)
        for f in s.features
    ]
    totals = s._replace(features=[total.permute(0, 3, 1, 2) for total in sums])
    add(totals)
    return [
        total.to(dtype=f.dtype, memory_format=_layout(f))
        for total, f in zip(totals.features, s.features, strict=True)
    ]


def _gathered_weights(
    s: Sampling, route: Route, grad: Tensor, layers: Sequence[int]
) -> dict[int, Tensor]:
    """dW_i = G^T h_i of gathered layers; as one, under the first, if they are all layers."""
    part = s.of(layers)
    if "gather" in route.read:
        gradient = torch.mm(grad.t(), gather(part))
    else:
        gradient = weight_gradient(grad, part).to(grad.dtype)
    if len(layers) == len(route.read):
        return {0: gradient}
    return dict(zip(layers, gradient.split(part.channels, dim=1), strict=True))


def _collected(s: Sampling, route: Route, grad: Tensor, layer: int, scatter: Scatter) -> Tensor:
    """Q = S_i^T G of one layer, (B, cells, D)."""
    part = s.of([layer])
    if route.write[layer] == "transposed_product":
        q = transposed_product(grad, part)
    else:
        like = grad.new_empty(s.batch, *part.sizes[0], grad.shape[1]).permute(0, 3, 1, 2)
        q = scatter(grad, [0], part._replace(features=[like]))[0].permute(0, 2, 3, 1)
    return q.flatten(1, 2)


def _multiplied(q: Tensor, weight: Tensor, feature: Tensor) -> Tensor:
    """dX = Q W in the shape and layout of the map, for Q (B, cells, D) and W (D, C)."""
    if _layout(feature) is torch.channels_last:
        gradient = torch.matmul(q, weight).transpose(1, 2)
    else:
        gradient = torch.matmul(weight.t(), q.transpose(1, 2))
    return gradient.reshape(feature.shape)


def _coordinates(grad: Tensor, columns: Sequence[int], s: Sampling) -> Tensor:
    """dL/d(x, y) through some layers, (P, 2) float32; 0 where nothing is interpolated."""
    if not s.geometry.bilinear:
        return torch.zeros_like(s.points, dtype=torch.float32)
    return coordinate_gradient(grad, columns, s)


def _gradients(
    s: Sampling,
    features: dict[int, Tensor],
    points: Sequence[Tensor],
    weight: Tensor | None,
    bias: Tensor | None,
) -> Gradients:
    """The answer; the gradient of the points is a sum of terms, in their own dtype."""
    return Gradients(
        [features.get(i) for i in range(len(s.features))],
        sum(points[1:], start=points[0]).to(s.points.dtype) if points else None,
        weight,
        bias,
    )


def _weight_of(weight: Tensor, s: Sampling, layers: Sequence[int]) -> Tensor:
    """Columns of the weight that belong to `layers`: a view if they are neighbours."""
    columns = s.columns
    if layers[-1] - layers[0] == len(layers) - 1:
        return weight[:, columns[layers[0]].start : columns[layers[-1]].stop]
    return torch.cat([weight[:, columns[i]] for i in layers], dim=1)


def _projected(s: Sampling, head: Linear, layer: int) -> Tensor:
    """Z_i = X_i W_i^T as a channels_last map (B, D, H_i, W_i)."""
    feature = s.features[layer]
    z = torch.matmul(_rows(feature), _weight_of(head.weight, s, [layer]).t())
    return z.unflatten(1, feature.shape[2:]).permute(0, 3, 1, 2)


def _rows(feature: Tensor) -> Tensor:
    """(B, H_i W_i, C_i): a view for both layouts; the product takes either as it is."""
    return feature.flatten(2).transpose(1, 2)


def _layout(feature: Tensor) -> torch.memory_format:
    if feature.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def _activate(rows: Tensor, activation: str | None) -> Tensor:
    if activation == "relu":
        return rows.relu_()
    return F.gelu(rows) if activation == "gelu" else rows
