"""The operator `pixelnet_triton::sparse_hypercolumn` and its backward, registered with torch.

For tracing (torch.compile, torch.export, FakeTensor) and for tensor subclasses. What is known of
the shapes while tracing may be symbols, so the operator plans when it runs, the first of its kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..call import Geometry, Linear, Sampling, Wanted
from .compute import compute_backward, compute_forward, empty_output
from .eager import refuse_gelu
from .executors import executor_for
from .prepare import Prepared
from .twice import FirstDerivative, second_derivative
from .vectors import vector_by_vector

__all__ = ["traced"]


# Written out: up to torch 2.6 schemata cannot be inferred from list[Tensor].
@torch.library.custom_op(
    "pixelnet_triton::sparse_hypercolumn",
    mutates_args=(),
    schema="(Tensor points, Tensor? batch_index, Tensor? weight, Tensor? bias, Tensor[] features, "
    "float[] affine, str interpolation, str padding_mode, str? activation, str plan, "
    "bool training, bool moving_points) -> Tensor",
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
    training: bool,
    moving_points: bool,
) -> Tensor:
    geometry = Geometry.from_flat(affine, interpolation, padding_mode)
    s = Sampling(features, points, batch_index, geometry)
    head = None if weight is None else Linear(weight, bias, activation)
    if s.empty:
        return empty_output(s, head)
    return compute_forward(executor_for(s, weight, plan, training, moving_points), s, head)


@_operator.register_fake
def _operator_fake(
    points: Tensor,
    batch_index: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    features: list[Tensor],
    *settings: Any,
) -> Tensor:
    columns = sum(f.shape[1] for f in features) if weight is None else weight.shape[0]
    return features[0].new_empty((points.shape[0], columns))


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
    s = Sampling(
        features, points, batch_index, Geometry.from_flat(affine, interpolation, padding_mode)
    )
    wanted = Wanted(tuple(needs[3:]), *needs[:3])
    head = None if weight is None else Linear(weight, None, None if output is None else "relu")
    executor = executor_for(s, weight, plan, True, wanted.points)
    gradients = compute_backward(executor, s, head, grad, output, wanted)
    # Contiguous, as the fake says: those of maps alone keep strides.
    of_points, of_weight = (
        None if g is None else g.contiguous() for g in (gradients.points, gradients.weight)
    )
    in_order = (of_points, of_weight, gradients.bias, *gradients.features)
    return [g if g is not None else grad.new_empty(0) for g in in_order]


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
    likes = [
        points.new_empty(points.shape),
        None if weight is None else weight.new_empty(weight.shape),
        grad.new_empty(grad.shape[1]),
        *map(torch.empty_like, features),
    ]
    return [
        like if need and like is not None else grad.new_empty(0)
        for like, need in zip(likes, needs, strict=True)
    ]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    points, batch_index, weight, bias, features, *settings, activation, plan, _, _ = inputs
    differentiable = (points, weight, bias, *features)
    ctx.needs = [t is not None and t.requires_grad for t in differentiable]
    ctx.activation, ctx.settings = activation, (*settings, plan)
    mask = output if activation == "relu" else None
    ctx.save_for_backward(points, batch_index, weight, mask, *features)


def _derivative(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    refuse_gelu(ctx.activation)
    points, batch_index, weight, output, *features = ctx.saved_tensors
    # A subclass would make its own of the gradients, which a tensor of many vectors refuses.
    with torch._C.DisableTorchFunctionSubclass():
        gradients = _operator_backward(
            grad, points, batch_index, weight, output, features, *ctx.settings, ctx.needs
        )
    points_grad, weight_grad, bias_grad, *feature_grads = (
        g if need else None for g, need in zip(gradients, ctx.needs, strict=True)
    )
    return (points_grad, None, weight_grad, bias_grad, feature_grads, *(None,) * 7)


def _backward_of_vectors(grad: Tensor, *arguments: Any) -> list[Tensor | None]:
    return list(vector_by_vector(lambda vector: _operator_backward(vector, *arguments), grad))


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    grad, points, batch_index, weight, relu, features, *ctx.settings, _, ctx.needs = inputs
    ctx.save_for_backward(grad, points, batch_index, weight, relu, *features)


def _second_derivative(ctx: Any, cotangents: list[Tensor | None]) -> tuple[Any, ...]:
    grad, points, batch_index, weight, output, *features = ctx.saved_tensors
    tensors = (grad, points, batch_index, weight, output, features)
    wanted = Wanted(tuple(ctx.needs[3:]), *ctx.needs[:3])
    first = FirstDerivative(*tensors, Geometry.from_flat(*ctx.settings), wanted)
    given = [c if need else None for c, need in zip(cotangents, ctx.needs, strict=True)]
    of_grad, of_points, of_weight, of_features = second_derivative(first, given)
    return (of_grad, of_points, None, of_weight, None, of_features, *(None,) * 5)


_operator.register_autograd(_derivative, setup_context=_setup)
_operator_backward.register_autograd(_second_derivative, setup_context=_setup_backward)
_LIBRARY = torch.library.Library("pixelnet_triton", "FRAGMENT")  # what it registers lives with it
_LIBRARY.impl("sparse_hypercolumn_backward", _backward_of_vectors, "Batched")


def traced(
    call: Prepared,
    features: Sequence[Tensor],
    points: Tensor,
    batch_index: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    """The prepared call as an operator: (B, N, ...) for points (B, N, 2), else (P, ...)."""
    value = _operator(
        points if points.dim() == 2 else points.flatten(0, 1),
        batch_index,
        weight,
        bias,
        list(features),
        call.geometry.flat(),
        call.geometry.interpolation,
        call.geometry.padding_mode,
        call.activation,
        call.plan if isinstance(call.plan, str) else call.plan.encode(),
        call.training,
        call.training and points.requires_grad,
    )
    return value if points.dim() == 2 else value.unflatten(0, points.shape[:2])
