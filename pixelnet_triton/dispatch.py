"""Which back end computes a call, by which plan, and both of its passes.

Small calls on a CPU are a plain expression that autograd differentiates (`small_call`); all others
go through `forward_rows` and `backward_rows`, whichever way autograd comes to them (autograd.py,
operators.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .call.checks import check_values
from .call.geometry import Geometry
from .call.linear import Linear, Wanted
from .call.sampling import Sampling
from .planner import Plan, forward_only, resolve_plan

__all__ = ["backend_for", "backward_rows", "empty_output", "forward_rows", "small_call"]


def backend_for(tensor: Tensor) -> Any:
    """The module that computes for `tensor`: :mod:`pixelnet_triton.gpu` or ``.cpu``.

    ``PIXELNET_TRITON_BACKEND=triton`` sends CPU tensors to the kernels too, which is of use with
    Triton's interpreter (``TRITON_INTERPRET=1``) alone; ``torch`` or ``auto`` leave them here.
    """
    choice = os.environ.get("PIXELNET_TRITON_BACKEND", "auto")
    if choice not in ("auto", "torch", "triton"):
        raise ValueError(f"PIXELNET_TRITON_BACKEND={choice!r}; use auto, torch or triton")
    device = tensor.device.type
    if device == "cuda" or (device == "cpu" and choice == "triton"):
        from .gpu import BACKEND

        BACKEND.load(tensor.device)
        return BACKEND
    if device == "cpu":
        from . import cpu

        return cpu
    raise ValueError(f"the features are on {tensor.device}; supported are cpu and cuda devices")


def _plan_for(
    name: str,
    backend: Any,
    features: Sequence[Tensor],
    points: int,
    batch_index: Tensor | None,
    weight: Tensor,
    **options: bool,
) -> Plan:
    kernels = _is_kernels(backend)
    return resolve_plan(
        name,
        features,
        points,
        weight.shape[0],
        # To the CPU, points of one image are nothing special; kernels are checked against bounds.
        ragged=batch_index is not None and (kernels or features[0].shape[0] > 1),
        kernels=kernels,
        **options,
    )


def _is_kernels(backend: Any) -> bool:
    return getattr(backend, "name", "") == "gpu"


def forward_rows(
    features: Sequence[Tensor],
    points: Tensor,
    batch_index: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    geometry: Geometry,
    activation: str | None,
    plan: str,
) -> Tensor:
    """(P, sum C), or (P, D) with a weight, for points (P, 2)."""
    backend = backend_for(features[0])
    check_values(points, batch_index, features[0].shape[0])
    if points.shape[0] == 0:
        return empty_output(features, points, weight)
    chosen = None
    if weight is not None:
        chosen = _plan_for(plan, backend, features, points.shape[0], batch_index, weight)
    if _is_kernels(backend):
        s = Sampling(features, points, batch_index, geometry)
        head = None if weight is None else Linear(weight, bias, activation)
        return backend.forward(s, head, chosen)
    if weight is None:
        return backend.gather(features, points, batch_index, geometry)
    return backend.linear(features, points, batch_index, geometry, weight, bias, activation, chosen)


def empty_output(features: Sequence[Tensor], points: Tensor, weight: Tensor | None) -> Tensor:
    columns = sum(f.shape[1] for f in features) if weight is None else weight.shape[0]
    return features[0].new_empty((points.shape[0], columns))


def backward_rows(
    grad: Tensor,
    output: Tensor | None,
    features: Sequence[Tensor],
    points: Tensor,
    batch_index: Tensor | None,
    weight: Tensor | None,
    geometry: Geometry,
    plan: str,
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """Gradients in the order [points, weight, bias, *features]; None where not needed.

    `output` is the ReLU's output, whose zeros mask the gradient; None without activation.
    """
    need_points, need_weight, need_bias, *need_features = needs
    if points.shape[0] == 0:
        zeros = [torch.zeros_like(points) if need_points else None]
        zeros.append(torch.zeros_like(weight) if weight is not None and need_weight else None)
        zeros.append(grad.new_zeros(grad.shape[1]) if need_bias else None)
        return zeros + [
            torch.zeros_like(f) if need else None
            for f, need in zip(features, need_features, strict=True)
        ]
    backend = backend_for(features[0])
    if _is_kernels(backend):
        s = Sampling(features, points, batch_index, geometry)
        head, chosen = None, None
        if weight is not None:
            head = Linear(weight, None, None)
            chosen = _plan_for(plan, backend, features, points.shape[0], batch_index, weight)
        wanted = Wanted(tuple(need_features), need_points, need_weight, need_bias)
        found = backend.backward(s, head, chosen, grad, output, wanted)
        return [found.points, found.weight, found.bias, *found.features]
    deterministic = torch.are_deterministic_algorithms_enabled()
    if weight is None:
        feature_grads, points_grad = backend.gather_backward(
            grad,
            features,
            points,
            batch_index,
            geometry,
            feature_grads=need_features,
            point_grad=need_points,
            deterministic=deterministic,
        )
        return [points_grad, None, None, *feature_grads]
    feature_grads, points_grad, weight_grad, bias_grad = backend.linear_backward(
        grad,
        output,
        features,
        points,
        batch_index,
        geometry,
        weight,
        _plan_for(plan, backend, features, points.shape[0], batch_index, weight),
        feature_grads=need_features,
        point_grad=need_points,
        weight_grad=need_weight,
        bias_grad=need_bias,
        deterministic=deterministic,
    )
    return [points_grad, weight_grad, bias_grad, *feature_grads]


def small_call(
    features: Sequence[Tensor],
    points: Tensor,
    batch_index: Tensor | None,
    weight: Tensor | None,
    geometry: Geometry,
    plan: str,
    training: bool,
) -> Callable[..., Tensor | None] | None:
    """For a call so small that dispatch bounds it: how to compute it on a CPU; None for any other.

    Of plain tensors, neither traced nor transformed.
    The callable takes (features, points, batch_index, weight, bias, activation) of such a call,
    and autograd differentiates what it does; a plan that is asked for by name is obeyed instead.
    """
    backend = backend_for(features[0])
    if plan not in ("auto", forward_only("auto")) or points.requires_grad or _is_kernels(backend):
        return None
    expression = backend.small_call(features, points, batch_index, weight, geometry, training)
    if expression is not None and weight is not None:
        rows = points.numel() // 2
        options = {"by_shape_alone": True}  # the answer is kept, whatever changes around it
        if _plan_for(plan, backend, features, rows, batch_index, weight, **options).projected:
            return None
    return expression
