"""The operator: autograd and registration with torch, over one back end or the other.

Small calls on a CPU are a plain expression that autograd differentiates (`small_call`). For all
others two doors lead to the same two functions, `_forward` and `_backward`:

- `torch.autograd.Function`, for eager calls. A Python custom op costs some 55 microseconds of
  host time a call more than this (measured: 67 against 13), which is what a small layer takes.
- `torch.library` custom ops `pixelnet_triton::sparse_hypercolumn` and `..._backward`, for
  tracing (torch.compile, torch.export, FakeTensor) and tensor subclasses.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from .checks import check_values
from .geometry import Geometry
from .planner import Plan, forward_only, resolve_plan

__all__ = ["backend_for", "sparse_hypercolumn_operator"]


def backend_for(tensor: Tensor) -> ModuleType:
    """The module that computes for `tensor`: :mod:`pixelnet_triton.gpu` or ``.cpu``.

    ``PIXELNET_TRITON_BACKEND=triton`` sends CPU tensors to the kernels too, which is of use with
    Triton's interpreter (``TRITON_INTERPRET=1``) alone; ``torch`` or ``auto`` leave them here.
    """
    choice = os.environ.get("PIXELNET_TRITON_BACKEND", "auto")
    if choice not in ("auto", "torch", "triton"):
        raise ValueError(f"PIXELNET_TRITON_BACKEND={choice!r}; use auto, torch or triton")
    device = tensor.device.type
    if device == "cuda" or (device == "cpu" and choice == "triton"):
        try:
            from . import gpu
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] != "triton":
                raise
            raise RuntimeError(
                f"the features are on {tensor.device}, which needs Triton, and Triton is not "
                "installed. Install it (pip install triton), or move the tensors to the CPU"
            ) from error
        return gpu
    if device == "cpu":
        from . import cpu

        return cpu
    raise ValueError(f"the features are on {tensor.device}; supported are cpu and cuda devices")


def _plan_for(
    name: str,
    backend: ModuleType,
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


def _is_kernels(backend: ModuleType) -> bool:
    return backend.__name__.endswith(".gpu")


def _forward(
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
        return _empty_output(features, points, weight)
    if weight is None:
        return backend.gather(features, points, batch_index, geometry)
    chosen = _plan_for(plan, backend, features, points.shape[0], batch_index, weight)
    return backend.linear(features, points, batch_index, geometry, weight, bias, activation, chosen)


def _empty_output(features: Sequence[Tensor], points: Tensor, weight: Tensor | None) -> Tensor:
    columns = sum(f.shape[1] for f in features) if weight is None else weight.shape[0]
    return features[0].new_empty((points.shape[0], columns))


def _backward(
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


_SECOND_DERIVATIVE = (
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


def _save(
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


def _refuse_gelu(ctx: Any) -> None:
    if ctx.gelu:
        raise RuntimeError("gelu is differentiated outside the operator; pass activation=None")


class _SparseHypercolumn(torch.autograd.Function):
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
        output = _forward(features, rows, batch_index, weight, bias, geometry, activation, plan)
        output = _shaped(output, points)
        ctx.geometry, ctx.plan = geometry, plan
        _save(ctx, points, batch_index, weight, bias, features, activation, output)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_gelu(ctx)
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
            found = _backward(grad, output, features, rows, batch_index, weight, *rest)
        points_grad, weight_grad, bias_grad, *feature_grads = found
        if points_grad is not None:
            points_grad = points_grad.view(points.shape)
        return (points_grad, None, weight_grad, bias_grad, None, None, None, *feature_grads)


class _TransformedHypercolumn(torch.autograd.Function):
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
        output = _forward(features, rows, batch_index, weight, bias, geometry, activation, plan)
        return _shaped(output, points)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        points, batch_index, weight, bias, ctx.geometry, activation, ctx.plan, *features = inputs
        _save(ctx, points, batch_index, weight, bias, features, activation, output)

    backward = _SparseHypercolumn.backward


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
        return tuple(
            _backward(grad, output, features, points, batch_index, weight, geometry, plan, needs)
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Nothing to keep; but torch.func takes only functions that have this method."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(_SECOND_DERIVATIVE)


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
    return _forward(features, points, batch_index, weight, bias, geometry, activation, plan)


@_operator.register_fake
def _operator_fake(
    points: Tensor,
    batch_index: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    features: list[Tensor],
    *settings: Any,
) -> Tensor:
    return _empty_output(features, points, weight)


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
    grads = _backward(grad, output, features, points, batch_index, weight, geometry, plan, needs)
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
    _save(ctx, points, batch_index, weight, bias, features, activation, output)


def _operator_derivative(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    _refuse_gelu(ctx)
    points, batch_index, weight, output, *features = ctx.saved_tensors
    grads = _operator_backward(
        grad, points, batch_index, weight, output, features, *ctx.settings, ctx.plan, ctx.needs
    )
    points_grad, weight_grad, bias_grad, *feature_grads = (
        g if need else None for g, need in zip(grads, ctx.needs, strict=True)
    )
    return (points_grad, None, weight_grad, bias_grad, feature_grads, *(None,) * 5)


def _refuse(ctx: Any, *grads: Any) -> Any:
    raise RuntimeError(_SECOND_DERIVATIVE)


_operator.register_autograd(_operator_derivative, setup_context=_setup)
_operator_backward.register_autograd(_refuse)


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
        door = _TransformedHypercolumn if transformed else _SparseHypercolumn
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
