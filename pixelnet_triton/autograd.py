"""Eager calls: `torch.autograd.Function` over the two passes of dispatch.py.

A Python custom op costs some 55 microseconds of host time a call more than this (measured: 67
against 13), which is what a small layer takes. What it keeps, and what it refuses, the operator for
tracing shares (operators.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .call.geometry import Geometry
from .dispatch import backward_rows, forward_rows

__all__ = [
    "SECOND_DERIVATIVE",
    "SparseHypercolumn",
    "TransformedHypercolumn",
    "refuse_gelu",
    "save_inputs",
]

SECOND_DERIVATIVE = (
    "sparse_hypercolumn is differentiable once; its backward was to be differentiated again. "
    "Compute this part with pixelnet_triton.reference.sparse_hypercolumn, which is plain PyTorch "
    "and differentiable any number of times, or leave create_graph=True out"
)


def _shaped(rows: Tensor, points: Tensor) -> Tensor:
    """(P, ...) as (B, N, ...), where the points are (B, N, 2).

    No view in the eyes of autograd, which lets nobody change a function's view in place; and
    nothing else may hold on to `rows`, since their versions are counted apart.
    """
    if points.dim() == 2:
        return rows
    return torch.ops.aten._unsafe_view(rows, (*points.shape[:2], rows.shape[1]))


def save_inputs(
    ctx: Any,
    points: Tensor,
    batch_index: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    features: Sequence[Tensor],
    activation: str | None,
    output: Tensor,
) -> None:
    """Keep inputs and, for a ReLU, the output: nothing of size P x sum C."""
    differentiable = (points, weight, bias, *features)
    ctx.needs = [t is not None and t.requires_grad for t in differentiable]
    # Runs without grad mode too, where GELU is part of the operator: only a derivative is refused.
    ctx.gelu = activation == "gelu"
    mask = output if activation == "relu" else None
    ctx.save_for_backward(points, batch_index, weight, mask, *features)


def refuse_gelu(ctx: Any) -> None:
    if ctx.gelu:
        raise RuntimeError("gelu is differentiated outside the operator; pass activation=None")


class SparseHypercolumn(torch.autograd.Function):
    """The eager door. With `setup_context`, torch would inspect the signature: 50 us a call."""

    @staticmethod
    def forward(
        ctx: Any,
        points: Tensor,
        batch_index: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        geometry: Geometry,
        activation: str | None,
        plan: str,
        *features: Tensor,
    ) -> Tensor:
        rows = points if points.dim() == 2 else points.flatten(0, 1)
        output = forward_rows(features, rows, batch_index, weight, bias, geometry, activation, plan)
        output = _shaped(output, points)
        ctx.geometry, ctx.plan = geometry, plan
        save_inputs(ctx, points, batch_index, weight, bias, features, activation, output)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        refuse_gelu(ctx)
        points, batch_index, weight, output, *features = ctx.saved_tensors
        rows, grad = points, grads[0]
        if points.dim() == 3:
            rows, grad = points.flatten(0, 1), grad.flatten(0, 1)
            output = None if output is None else output.view(grad.shape)
        rest = (ctx.geometry, ctx.plan, ctx.needs)
        if torch.is_grad_enabled():  # with create_graph=True: as a function of its own
            found = _SparseHypercolumnBackward.apply(
                grad, rows, batch_index, weight, output, *rest, *features
            )
        else:
            found = backward_rows(grad, output, features, rows, batch_index, weight, *rest)
        points_grad, weight_grad, bias_grad, *feature_grads = found
        if points_grad is not None:
            points_grad = points_grad.view(points.shape)
        return (points_grad, None, weight_grad, bias_grad, None, None, None, *feature_grads)


class TransformedHypercolumn(torch.autograd.Function):
    """The same for torch.func, which asks for `setup_context`."""

    @staticmethod
    def forward(
        points: Tensor,
        batch_index: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        geometry: Geometry,
        activation: str | None,
        plan: str,
        *features: Tensor,
    ) -> Tensor:
        rows = points if points.dim() == 2 else points.flatten(0, 1)
        output = forward_rows(features, rows, batch_index, weight, bias, geometry, activation, plan)
        return _shaped(output, points)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        points, batch_index, weight, bias, ctx.geometry, activation, ctx.plan, *features = inputs
        save_inputs(ctx, points, batch_index, weight, bias, features, activation, output)

    backward = SparseHypercolumn.backward


class _SparseHypercolumnBackward(torch.autograd.Function):
    """The first derivative, as a function whose own derivative is refused by name."""

    @staticmethod
    def forward(
        grad: Tensor,
        points: Tensor,
        batch_index: Tensor | None,
        weight: Tensor | None,
        output: Tensor | None,
        geometry: Geometry,
        plan: str,
        needs: Sequence[bool],
        *features: Tensor,
    ) -> tuple[Tensor | None, ...]:
        rest = (geometry, plan, needs)
        return tuple(backward_rows(grad, output, features, points, batch_index, weight, *rest))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Nothing to keep; but torch.func takes only functions that have this method."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(SECOND_DERIVATIVE)
