"""The operator: one function for the callers, and its registration with torch.

All calls but small ones enter by one of two doors, which lead to the same two passes (dispatch.py):

- `torch.autograd.Function`, for eager calls (autograd.py).
- `torch.library` custom ops `pixelnet_triton::sparse_hypercolumn` and `..._backward`, for
  tracing (torch.compile, torch.export, FakeTensor) and tensor subclasses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .autograd import (
    SECOND_DERIVATIVE,
    SparseHypercolumn,
    TransformedHypercolumn,
    refuse_gelu,
    save_inputs,
)
from .call.geometry import Geometry
from .dispatch import backward_rows, empty_output, forward_rows

__all__ = ["sparse_hypercolumn_operator"]


# Written out: up to torch 2.6 schemata cannot be inferred from list[Tensor].
@torch.library.custom_op(
    "pixelnet_triton::sparse_hypercolumn",
    mutates_args=(),
    schema="(Tensor points, Tensor? batch_index, Tensor? weight, Tensor? bias, Tensor[] features, "
    "float[] affine, str interpolation, str padding_mode, str? activation, str plan) -> Tensor",
)
def _operator(
    points: Tensor,
    batch_index: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    features: list[Tensor],
    affine: list[float],
    interpolation: str,
    padding_mode: str,
    activation: str | None,
    plan: str,
) -> Tensor:
    geometry = Geometry.from_flat(affine, interpolation, padding_mode)
    return forward_rows(features, points, batch_index, weight, bias, geometry, activation, plan)


@_operator.register_fake
def _operator_fake(
    points: Tensor,
    batch_index: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    features: list[Tensor],
    *settings: Any,
) -> Tensor:
    return empty_output(features, points, weight)


@torch.library.custom_op(
    "pixelnet_triton::sparse_hypercolumn_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor points, Tensor? batch_index, Tensor? weight, Tensor? output, "
    "Tensor[] features, float[] affine, str interpolation, str padding_mode, str plan, "
    "bool[] needs) -> Tensor[]",
)
def _operator_backward(
    grad: Tensor,
    points: Tensor,
    batch_index: Tensor | None,
    weight: Tensor | None,
    output: Tensor | None,
    features: list[Tensor],
    affine: list[float],
    interpolation: str,
    padding_mode: str,
    plan: str,
    needs: list[bool],
) -> list[Tensor]:
    geometry = Geometry.from_flat(affine, interpolation, padding_mode)
    rest = (geometry, plan, needs)
    grads = backward_rows(grad, output, features, points, batch_index, weight, *rest)
    return [g if g is not None else grad.new_empty(0) for g in grads]


@_operator_backward.register_fake
def _operator_backward_fake(
    grad: Tensor,
    points: Tensor,
    batch_index: Tensor | None,
    weight: Tensor | None,
    output: Tensor | None,
    features: list[Tensor],
    affine: list[float],
    interpolation: str,
    padding_mode: str,
    plan: str,
    needs: list[bool],
) -> list[Tensor]:
    bias_like = grad.new_empty(grad.shape[1])
    likes = [points, weight, bias_like, *features]
    return [
        torch.empty_like(like) if need and like is not None else grad.new_empty(0)
        for like, need in zip(likes, needs, strict=True)
    ]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    points, batch_index, weight, bias, features, *ctx.settings, activation, plan = inputs
    ctx.plan = plan
    save_inputs(ctx, points, batch_index, weight, bias, features, activation, output)


def _operator_derivative(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    refuse_gelu(ctx)
    points, batch_index, weight, output, *features = ctx.saved_tensors
    grads = _operator_backward(
        grad, points, batch_index, weight, output, features, *ctx.settings, ctx.plan, ctx.needs
    )
    points_grad, weight_grad, bias_grad, *feature_grads = (
        g if need else None for g, need in zip(grads, ctx.needs, strict=True)
    )
    return (points_grad, None, weight_grad, bias_grad, feature_grads, *(None,) * 5)


def _refuse(ctx: Any, *grads: Any) -> Any:
    raise RuntimeError(SECOND_DERIVATIVE)


_operator.register_autograd(_operator_derivative, setup_context=_setup)
_operator_backward.register_autograd(_refuse)


def sparse_hypercolumn_operator(
    features: Sequence[Tensor],
    points: Tensor,
    batch_index: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    geometry: Geometry,
    activation: str | None,
    plan: str,
) -> Tensor:
    """(B, N, sum C) or (B, N, D) for points (B, N, 2), by the eager door where it is open.

    (P, ...) for points (P, 2), with a batch_index or P / B of each image.
    """
    if not torch.compiler.is_compiling() and type(features[0]) in (Tensor, nn.Parameter):
        transformed = torch._C._are_functorch_transforms_active()
        door = TransformedHypercolumn if transformed else SparseHypercolumn
        return door.apply(points, batch_index, weight, bias, geometry, activation, plan, *features)
    rows = _operator(
        points if points.dim() == 2 else points.flatten(0, 1),
        batch_index,
        weight,
        bias,
        list(features),
        geometry.flat(),
        geometry.interpolation,
        geometry.padding_mode,
        activation,
        plan,
    )
    return rows if points.dim() == 2 else rows.unflatten(0, points.shape[:2])
