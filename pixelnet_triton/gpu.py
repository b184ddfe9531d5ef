"""The GPU back end: which kernels and which plain products make up a call, given its plan.

Forward, with the layers split into gathered and projected ones:

    one_pass   every layer in one launch of the fused kernel
    two_step   the gathered columns are written first; then one product (cuBLAS where no layer is
               projected, the fused kernel with dense operands otherwise)

Backward: see :mod:`pixelnet_triton.kernels.fused_gradients`. Nothing of size P x C is kept from
the forward; where it is needed (two steps, or sums in a fixed order) it lives for one call.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from .autotune import autotune
from .call.geometry import Geometry
from .kernels.fused_gradients import feature_gradient, transposed_product, weight_gradient
from .kernels.fused_linear import DENSE, GATHER, PRODUCT, PROJECTED, Operand, fused_linear
from .kernels.gather import coordinate_gradient
from .kernels.gather import gather as gather_kernel
from .kernels.scatter import scatter_atomic, scatter_sorted
from .planner import Plan

__all__ = ["gather", "gather_backward", "linear", "linear_backward"]

if os.environ.get("PIXELNET_TRITON_AUTOTUNE") == "1":
    autotune()


class _Call:
    """What every step of one call needs: the layers, the points, and how they meet."""

    def __init__(
        self,
        features: Sequence[Tensor],
        points: Tensor,
        batch_index: Tensor | None,
        geometry: Geometry,
    ) -> None:
        self.features = features
        self.points = points
        self.batch_index = batch_index
        self.affine = geometry.affine
        self.bilinear = geometry.interpolation == "bilinear"
        self.border = geometry.padding_mode == "border"
        self.batch = features[0].shape[0]
        self.columns = [sum(f.shape[1] for f in features[:i]) for i in range(len(features))]

    def weight_of(self, weight: Tensor, layers: Sequence[int]) -> Tensor:
        """Columns of the weight that belong to `layers`: a view if they are neighbours."""
        if list(layers) == list(range(layers[0], layers[-1] + 1)):
            begin = self.columns[layers[0]]
            return weight[:, begin : self.columns[layers[-1]] + self.features[layers[-1]].shape[1]]
        return torch.cat([self.weight_of(weight, [i]) for i in layers], dim=1)

    def gather(self, layers: Sequence[int]) -> Tensor:
        """(P, sum of the layers' channels)."""
        return gather_kernel(
            [self.features[i] for i in layers],
            self.points,
            self.batch_index,
            [self.affine[i] for i in layers],
            self.bilinear,
            self.border,
        )

    def project(self, layer: int, weight: Tensor) -> Tensor:
        """X_i W_i^T as a channels_last map (B, D, H_i, W_i)."""
        projected = torch.matmul(_rows(self.features[layer]), self.weight_of(weight, [layer]).t())
        rows, width = self.features[layer].shape[2:]
        return projected.view(self.batch, rows, width, -1).permute(0, 3, 1, 2)

    def scatter(
        self,
        grad: Tensor,
        columns: Sequence[int],
        layers: Sequence[int],
        likes: Sequence[Tensor],
        deterministic: bool,
    ) -> list[Tensor]:
        """S_i^T grad for each layer, in the shape, dtype and layout of `likes`."""
        affine = [self.affine[i] for i in layers]
        if deterministic:
            targets = [torch.empty_like(like, memory_format=_layout(like)) for like in likes]
            scatter_sorted(
                grad,
                columns,
                targets,
                self.points,
                self.batch_index,
                affine,
                self.bilinear,
                self.border,
            )
            return targets
        sums = [_accumulator(like) for like in likes]
        scatter_atomic(
            grad,
            columns,
            sums,
            self.points,
            self.batch_index,
            affine,
            self.bilinear,
            self.border,
        )
        return [_finish(total, like) for total, like in zip(sums, likes, strict=True)]


def _on(tensor: Tensor) -> AbstractContextManager[object]:
    """Launches go to the tensor's own device, whichever is current."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _rows(feature: Tensor) -> Tensor:
    """(B, H_i W_i, C_i): a view for both layouts; the product takes either as it is."""
    return feature.flatten(2).transpose(1, 2)


def _layout(feature: Tensor) -> torch.memory_format:
    if feature.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def _accumulator(like: Tensor) -> Tensor:
    """float32 zeros, channels_last so that a cell's channels are added 16 bytes at a time."""
    batch, channels, rows, columns = like.shape
    sums = torch.zeros((batch, rows, columns, channels), dtype=torch.float32, device=like.device)
    return sums.permute(0, 3, 1, 2)


def _finish(total: Tensor, like: Tensor) -> Tensor:
    return total.to(dtype=like.dtype, memory_format=_layout(like))


def _admissible(plan: Plan, call: _Call) -> Plan:
    """Interpolation as a product needs each tile's points in one image: not with ragged points."""
    if call.batch_index is None or "project_product" not in plan.layers:
        return plan
    layers = tuple("project_gather" if s == "project_product" else s for s in plan.layers)
    return Plan(layers, plan.mode)


def gather(
    features: Sequence[Tensor], points: Tensor, batch_index: Tensor | None, geometry: Geometry
) -> Tensor:
    """Hypercolumns (P, sum C)."""
    with _on(points):
        return _Call(features, points, batch_index, geometry).gather(range(len(features)))


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
) -> tuple[list[Tensor | None], Tensor | None]:
    """Gradients of the maps and of the points, for grad (P, sum C)."""
    with _on(points):
        call = _Call(features, points, batch_index, geometry)
        grads: list[Tensor | None] = [None] * len(features)
        layers = [i for i, wanted in enumerate(feature_grads) if wanted]
        if layers:
            columns = [call.columns[i] for i in layers]
            likes = [features[i] for i in layers]
            scattered = call.scatter(grad, columns, layers, likes, deterministic)
            for i, g in zip(layers, scattered, strict=True):
                grads[i] = g
        if not point_grad:
            return grads, None
        return grads, _point_gradient(call, [(grad, call.columns, range(len(features)), features)])


def _point_gradient(
    call: _Call,
    terms: Sequence[tuple[Tensor, Sequence[int], Sequence[int], Sequence[Tensor]]],
) -> Tensor:
    """Sum over terms (upstream gradient, its columns, layers, maps), in the points' dtype."""
    if not call.bilinear:
        return torch.zeros_like(call.points)
    total = torch.zeros_like(call.points, dtype=torch.float32)
    for grad, columns, layers, maps in terms:
        total += coordinate_gradient(
            grad,
            columns,
            maps,
            call.points,
            call.batch_index,
            [call.affine[i] for i in layers],
            call.border,
        )
    return total.to(call.points.dtype)


_KINDS = {
    "gather": GATHER.value,
    "project_product": PRODUCT.value,
    "project_gather": PROJECTED.value,
}


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
    """act(h W^T + b), (P, D)."""
    with _on(points):
        call = _Call(features, points, batch_index, geometry)
        plan = _admissible(plan, call)
        gathered = plan.gathered
        if plan.mode == "two_step" and len(gathered) == len(features):
            return _activate(F.linear(call.gather(gathered), weight, bias), activation)
        operands = []
        rows = call.gather(gathered) if plan.mode == "two_step" and gathered else None
        begin = 0
        for i, strategy in enumerate(plan.layers):
            kind, tensor = _KINDS[strategy], features[i]
            if strategy != "gather":
                tensor = call.project(i, weight)
            elif rows is not None:
                kind, tensor = DENSE.value, rows[:, begin : begin + features[i].shape[1]]
                begin += features[i].shape[1]
            operands.append(Operand(kind, tensor, call.columns[i], call.affine[i]))
        return fused_linear(
            operands,
            points,
            batch_index,
            call.batch,
            weight,
            bias,
            activation,
            call.bilinear,
            call.border,
        )


def _activate(rows: Tensor, activation: str | None) -> Tensor:
    if activation == "relu":
        return rows.relu_()
    return F.gelu(rows) if activation == "gelu" else rows


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
) -> tuple[list[Tensor | None], Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of maps, points, weight and bias, for grad = dL/dy (P, D).

    `output` is y after a ReLU, which masks the gradient; None without.
    """
    with _on(points):
        if output is not None:
            grad = torch.ops.aten.threshold_backward(grad, output, 0)
        call = _Call(features, points, batch_index, geometry)
        plan = _admissible(plan, call)
        grad = grad.contiguous()
        grads: list[Tensor | None] = [None] * len(features)
        d_weight = torch.empty_like(weight) if weight_grad else None
        terms = []
        if plan.gathered:
            upstream = _gathered_gradients(
                call, grad, weight, plan, grads, d_weight, feature_grads, point_grad, deterministic
            )
            if upstream is not None:
                maps = [features[i] for i in plan.gathered]
                starts = [sum(m.shape[1] for m in maps[:k]) for k in range(len(maps))]
                terms.append((upstream, starts, plan.gathered, maps))
        for i in plan.projected:
            if feature_grads[i] or weight_grad:
                _projected_gradients(
                    call, grad, weight, plan, i, grads, d_weight, feature_grads[i], deterministic
                )
        if point_grad and plan.projected:
            projected = [call.project(i, weight) for i in plan.projected]
            terms.append((grad, [0] * len(projected), plan.projected, projected))
        d_points = _point_gradient(call, terms) if point_grad else None
        return grads, d_points, d_weight, grad.sum(0) if bias_grad else None


def _gathered_gradients(
    call: _Call,
    grad: Tensor,
    weight: Tensor,
    plan: Plan,
    grads: list[Tensor | None],
    d_weight: Tensor | None,
    feature_grads: Sequence[bool],
    point_grad: bool,
    deterministic: bool,
) -> Tensor | None:
    """Fill in dX_i and dW_i of the gathered layers; return G W for them where points need it."""
    layers = plan.gathered
    two_step = plan.mode == "two_step"
    if d_weight is not None:
        if two_step:
            gradient = torch.mm(grad.t(), call.gather(layers))
        else:
            gradient = weight_gradient(
                grad,
                [call.features[i] for i in layers],
                call.points,
                call.batch_index,
                [call.affine[i] for i in layers],
                call.bilinear,
                call.border,
            )
        widths = [call.features[i].shape[1] for i in layers]
        for i, part in zip(layers, gradient.split(widths, dim=1), strict=True):
            call.weight_of(d_weight, [i]).copy_(part)
    wanted = [i for i in layers if feature_grads[i]]
    upstream = None
    if point_grad or (wanted and (two_step or deterministic)):
        upstream = torch.mm(grad, call.weight_of(weight, layers))
    if wanted:
        if upstream is not None:
            starts = {i: sum(call.features[j].shape[1] for j in layers if j < i) for i in wanted}
            likes = [call.features[i] for i in wanted]
            scattered = call.scatter(upstream, list(starts.values()), wanted, likes, deterministic)
        else:
            scattered = _scatter_product(call, grad, weight, wanted)
        for i, g in zip(wanted, scattered, strict=True):
            grads[i] = g
    return upstream if point_grad else None


def _scatter_product(
    call: _Call, grad: Tensor, weight: Tensor, layers: Sequence[int]
) -> list[Tensor]:
    """S_i^T (G W_i) in one launch, by atomics."""
    sums = [_accumulator(call.features[i]) for i in layers]
    feature_gradient(
        grad,
        weight,
        [call.columns[i] for i in layers],
        sums,
        call.points,
        call.batch_index,
        [call.affine[i] for i in layers],
        call.bilinear,
        call.border,
    )
    return [_finish(total, call.features[i]) for i, total in zip(layers, sums, strict=True)]


def _projected_gradients(
    call: _Call,
    grad: Tensor,
    weight: Tensor,
    plan: Plan,
    layer: int,
    grads: list[Tensor | None],
    d_weight: Tensor | None,
    feature_grad: bool,
    deterministic: bool,
) -> None:
    """Fill in dW_i = Q^T X_i and dX_i = Q W_i of one projected layer, Q = S_i^T G."""
    feature = call.features[layer]
    height, width = feature.shape[2:]
    if plan.layers[layer] == "project_product":
        q = transposed_product(
            grad,
            call.points,
            call.batch,
            (height, width),
            call.affine[layer],
            call.bilinear,
            call.border,
        )
    else:
        shape = (call.batch, height, width, grad.shape[1])
        like = torch.empty(shape, dtype=grad.dtype, device=grad.device).permute(0, 3, 1, 2)
        q = call.scatter(grad, [0], [layer], [like], deterministic)[0].permute(0, 2, 3, 1)
    q = q.reshape(call.batch, height * width, -1)  # (B, cells, D)
    if d_weight is not None:
        flat = _rows(feature).reshape(-1, feature.shape[1])
        call.weight_of(d_weight, [layer]).copy_(torch.mm(q.flatten(0, 1).t(), flat))
    if feature_grad:
        part = call.weight_of(weight, [layer])
        if _layout(feature) is torch.channels_last:
            gradient = torch.matmul(q, part).transpose(1, 2)
        else:
            gradient = torch.matmul(part.t(), q.transpose(1, 2))
        grads[layer] = gradient.reshape(feature.shape)
