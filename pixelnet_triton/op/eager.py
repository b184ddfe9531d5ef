"""Eager calls: `torch.autograd.Function` over the two passes of an executor.

A Python custom op costs some 55 microseconds of host time a call more than a function (67 against
13 as measured), which is what a small layer takes: the operator is for tracing (registration.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import unwrap_if_dead

from ..call import Executor, Gradients, Linear, Sampling, Wanted
from .compute import compute_backward, compute_forward
from .executors import executor_for
from .prepare import Prepared
from .twice import FirstDerivative, second_derivative
from .vectors import hides_vectors, vector_by_vector

__all__ = ["TransformedHypercolumn", "eager", "refuse_gelu"]


def refuse_gelu(activation: str | None) -> None:
    """Without grad mode GELU is part of the operator: only a derivative is refused."""
    if activation == "gelu":
        raise RuntimeError("gelu is differentiated outside the operator; pass activation=None")


def _rows(tensor: Tensor, points: Tensor) -> Tensor:
    """(B, N, ...) as (P, ...), where the points are (B, N, 2)."""
    return tensor if points.dim() == 2 else tensor.flatten(0, 1)


def _executor(call: Prepared, s: Sampling, weight: Tensor | None) -> Executor:
    """The call's own; under a transform of torch.func the one for what the transform calls with."""
    if call.executor is not None:
        return call.executor
    moving = call.training and s.points.is_floating_point()
    plan = call.plan if isinstance(call.plan, str) else call.plan.encode()
    return executor_for(s, weight, plan, call.training, moving)


def _forward(call: Prepared, s: Sampling, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """(P, ...): the result at all points."""
    head = None if weight is None else Linear(weight, bias, call.activation)
    return compute_forward(_executor(call, s, weight), s, head)


def _keep(ctx: Any, *tensors: Tensor | None, unread: Tensor | None = None) -> None:
    """Save for :func:`_kept`. Autograd refuses tensors of inference mode, which never change.

    Of `unread` the backward pass takes the shape alone, so a step of an optimizer may come first.
    """
    ctx.apart = {
        i: t for i, t in enumerate(tensors) if t is not None and (t is unread or t.is_inference())
    }
    if ctx.apart:
        tensors = tuple([None if i in ctx.apart else t for i, t in enumerate(tensors)])
    ctx.save_for_backward(*tensors)


def _kept(ctx: Any) -> Sequence[Any]:
    if not ctx.apart:
        return ctx.saved_tensors
    return [ctx.apart.get(i, tensor) for i, tensor in enumerate(ctx.saved_tensors)]


def eager(
    call: Prepared,
    features: Sequence[Tensor],
    points: Tensor,
    batch_index: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    """The call as it is, without a function of autograd where nobody wants a gradient.

    Tensors that a transform of torch.func has left behind are unwrapped, as torch's `apply` does
    it. That also looks for transforms that are active, for 8 microseconds: here it is known.
    """
    features, points = [*map(unwrap_if_dead, features)], unwrap_if_dead(points)
    batch_index, weight, bias = [
        None if tensor is None else unwrap_if_dead(tensor) for tensor in (batch_index, weight, bias)
    ]
    if call.training:
        return _apply(points, batch_index, weight, bias, call, *features)
    s = Sampling(features, _rows(points, points), batch_index, call.geometry)
    return _shaped(_forward(call, s, weight, bias), points)


def _shaped(rows: Tensor, points: Tensor) -> Tensor:
    """(P, ...) as (B, N, ...), where the points are (B, N, 2).

    In place, since autograd lets nobody change the view that a function returns; and nothing else
    may hold on to the result, which counts its versions.
    """
    if points.dim() == 2:
        return rows
    batch, count, _ = points.shape
    return rows.contiguous().resize_(batch, count, rows.shape[1])


class SparseHypercolumn(torch.autograd.Function):
    """For :func:`eager`. With `setup_context`, torch would inspect the signature: 50 us a call."""

    @staticmethod
    def forward(
        ctx: Any,
        points: Tensor,
        batch_index: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        call: Prepared,
        *features: Tensor,
    ) -> Tensor:
        rows = _rows(points, points)
        s = Sampling(features, rows, batch_index, call.geometry)
        output = _shaped(_forward(call, s, weight, bias), points)
        ctx.kept, ctx.call = s.kept, call
        mask = output if call.activation == "relu" else None
        # Points with a gradient have a history, by which a second derivative is told.
        moving, needs = ctx.needs_input_grad[0], ctx.needs_input_grad
        unread = None if moving or any(needs[5:]) else weight
        tensors = (points if moving else rows, batch_index, weight, mask)
        _keep(ctx, *tensors, *features, unread=unread)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if hides_vectors(grads[0]):
            return vector_by_vector(lambda grad: SparseHypercolumn.backward(ctx, grad), grads[0])
        call, needs = ctx.call, ctx.needs_input_grad
        refuse_gelu(call.activation)
        points, batch_index, weight, output, *features = _kept(ctx)
        wanted = Wanted(needs[5:], needs[0], needs[2], needs[3])
        s = Sampling(features, _rows(points, points), batch_index, call.geometry)
        if torch.is_grad_enabled() or call.transformed:
            # With create_graph=True, and for the rule of vmap: as a function of its own.
            arguments = (grads[0], s.points, batch_index, weight, output, call, wanted, *features)
            found, by_weight, by_bias, *by_maps = _SparseHypercolumnBackward.apply(*arguments)
        else:
            s.kept = ctx.kept
            by_maps, found, by_weight, by_bias = _backward(
                call, s, weight, grads[0], output, wanted
            )
        by_points = None if found is None else found.view(points.shape)
        return (by_points, None, by_weight, by_bias, None, *by_maps)


_apply: Callable[..., Tensor] = super(torch.autograd.Function, SparseHypercolumn).apply


def _backward(
    call: Prepared,
    s: Sampling,
    weight: Tensor | None,
    grad: Tensor,
    output: Tensor | None,
    wanted: Wanted,
) -> Gradients:
    """Gradients for grad = dL/dy; of points (P, 2)."""
    head = None if weight is None else Linear(weight, None, call.activation)
    return compute_backward(_executor(call, s, weight), s, head, grad, output, wanted)


def _zeros_like_one(tensor: Tensor, dim: int) -> Tensor:
    shape = list(tensor.shape)
    shape[dim] = 1
    return tensor.new_zeros(shape)


def _one_by_one(
    function: type[torch.autograd.Function],
    info: Any,
    in_dims: Sequence[Any],
    arguments: Sequence[Any],
) -> tuple[Any, Any]:
    """A rule of vmap, whatever it runs over: maps, points, weights or gradients, call by call."""
    pairs = list(zip(arguments, in_dims, strict=True))
    if info.batch_size == 0:  # of no call there are shapes alone: those of one with zeros
        pairs = [(_zeros_like_one(a, d) if isinstance(d, int) else a, d) for a, d in pairs]
    results = [
        function.apply(*[a.select(d, i) if isinstance(d, int) else a for a, d in pairs])
        for i in range(max(info.batch_size, 1))
    ]
    count = info.batch_size
    if isinstance(results[0], Tensor):
        return torch.stack(results)[:count], 0
    stacked = [None if r[0] is None else torch.stack(r)[:count] for r in zip(*results, strict=True)]
    return tuple(stacked), tuple([None if s is None else 0 for s in stacked])


class TransformedHypercolumn(torch.autograd.Function):
    """The same for torch.func, which asks for `setup_context`."""

    @staticmethod
    def forward(
        points: Tensor,
        batch_index: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        call: Prepared,
        *features: Tensor,
    ) -> Tensor:
        s = Sampling(features, _rows(points, points), batch_index, call.geometry)
        output = _forward(call, s, weight, bias)
        if points.dim() == 2:
            return output
        # Within a transform nothing is resized; a view it must not be to autograd either.
        shape = (*points.shape[:2], output.shape[1])
        return torch.ops.aten._unsafe_view(output, shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        points, batch_index, weight, _, ctx.call, *features = inputs
        ctx.kept = None
        mask = output if ctx.call.activation == "relu" else None
        _keep(ctx, points, batch_index, weight, mask, *features)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, Any]:
        return _one_by_one(TransformedHypercolumn, info, in_dims, arguments)

    backward = SparseHypercolumn.backward


class _SparseHypercolumnBackward(torch.autograd.Function):
    """The first derivative, as a function that has a derivative itself (twice.py)."""

    @staticmethod
    def forward(
        grad: Tensor,
        points: Tensor,
        batch_index: Tensor | None,
        weight: Tensor | None,
        output: Tensor | None,
        call: Prepared,
        wanted: Wanted,
        *features: Tensor,
    ) -> tuple[Tensor | None, ...]:
        s = Sampling(features, points, batch_index, call.geometry)
        found = _backward(call, s, weight, grad, output, wanted)
        return (found.points, found.weight, found.bias, *found.features)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        *tensors, ctx.call, ctx.wanted = inputs[:7]
        _keep(ctx, *tensors, *inputs[7:])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, Any]:
        return _one_by_one(_SparseHypercolumnBackward, info, in_dims, arguments)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        grad, points, batch_index, weight, output, *features = _kept(ctx)
        tensors = (grad, points, batch_index, weight, output, features)
        first = FirstDerivative(*tensors, ctx.call.geometry, ctx.wanted)
        of_grad, of_points, of_weight, of_features = second_derivative(first, cotangents)
        return (of_grad, of_points, None, of_weight, None, None, None, *of_features)
