"""`prepare`: all that follows from shapes, dtypes, layouts and options, worked out once.

Checks, geometry, plan, route and executor take some hundred microseconds; most calls are like one
before, and finding what is remembered of it takes three. In a training loop it is ten, because
the interpreter's code is out of the caches by then: every Python function less counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..call import (
    Executor,
    Geometry,
    Options,
    Plan,
    Sampling,
    Stride,
    layer_geometry,
)
from ..call.check_options import check_names
from ..call.checks import check_call, check_maps
from ..call.shape import bucket
from ..planner import plan_for
from .dispatch import backend_for, require
from .known import Memory
from .shapes import shape_of

__all__ = [
    "Prepared",
    "autocast_dtype",
    "cast",
    "prepare",
    "prepare_executor",
]


@dataclass(frozen=True)
class Prepared:
    """A call of this kind passed all checks; this is how it is computed.

    Args:
        geometry: how its points fall onto its maps.
        activation: the one within the operator. gelu_outside: GELU follows it, since its
            derivative needs its input: where gradients are wanted, autograd is to keep that.
        training: a gradient is wanted.
        cast: the autocast dtype, which maps, weight and bias are brought to.
        plan: what was asked for; with its route where there is an executor.
        executor: computes it; None while tracing, for subclasses of tensors, and on meta, and
            within a transform of torch.func (`transformed`), whose tensors hide their layouts.
        by_autograd: it is an expression, which autograd differentiates.
        repeated: each map repeats one image (shared.py).
    """

    geometry: Geometry
    activation: str | None
    gelu_outside: bool
    training: bool
    cast: torch.dtype | None
    plan: str | Plan
    executor: Executor | None
    transformed: bool
    by_autograd: bool
    repeated: bool


JIT_TRACE = (
    "torch.jit.trace would keep what is chosen for the sizes and points of its example. "
    "Use pixelnet_triton.integrations.export.export(model, args), which makes a program of plain "
    "operators; its .module() can be traced where TorchScript is needed"
)
_KNOWN: Memory[Prepared] = Memory()
_PLAIN = (Tensor, nn.Parameter)


def prepare(
    features: Sequence[Tensor],
    points: Tensor,
    batch_index: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    options: Options,
) -> Prepared:
    """Raise for what cannot be served; else how calls of this kind are computed."""
    tensors = (weight, bias, batch_index)
    try:
        key = _signature(features, points, tensors, options)
        if key is None and not torch.compiler.is_compiling():  # numbers that are not Python's?
            options = options.in_plain_numbers()
            key = _signature(features, points, tensors, options)
        known = None if key is None else _KNOWN.get(key)
    except (TypeError, RuntimeError):
        # Some option is not hashable, or a tensor has no shape to tell: the checks will name it.
        key = known = None
    if known is None:
        known = _examined(features, points, batch_index, weight, bias, options, key is not None)
        if key is not None:
            _KNOWN.keep(key, known)
    return known


def _signature(
    features: Sequence[Tensor],
    points: Tensor,
    tensors: tuple[Tensor | None, Tensor | None, Tensor | None],
    options: Options,
) -> object:
    """All that checks and choices look at, hashable; None for anything out of the ordinary.

    Choices know the number of points by its first bits alone, so calls that agree in these are of
    one kind.

    Out of the ordinary is: while tracing, under a transform of torch.func, subclasses of tensors
    and views that torch reads with the other sign (``z.conj().imag``), and arguments of other types
    than they should have. `tensors`: weight, bias, batch_index.
    """
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return None
    if torch._C._is_tracing():
        return None
    # Unpacked, not looked up by name: descriptors that are out of the caches take their time, too.
    size, _, strides, _, align_corners, _, _, plan = options
    if type(features) not in (list, tuple) or type(plan) not in (str, Plan):
        return None
    facts: list[object] = []
    wanted = False
    for feature in features:
        if type(feature) not in _PLAIN or feature.is_neg():
            return None
        place = feature.is_cpu or feature.device  # making the latter takes longer
        facts += (feature.shape, feature.stride(), feature.dtype, feature.layout, place)
        wanted = wanted or feature.requires_grad
    if type(points) not in _PLAIN or points.is_neg():
        return None
    place = points.is_cpu or points.device
    at, index = points.shape, tensors[2]
    facts += (bucket(at.numel()), points.dtype, points.layout, place, points.requires_grad)
    facts.append(at[::2] if len(at) == 3 else at[1:])  # (B, N, 2) without N, (P, 2) without P
    for tensor in tensors:
        if tensor is None:
            facts.append(None)
        elif type(tensor) in _PLAIN and not tensor.is_neg():
            place = tensor.is_cpu or tensor.device
            # An index has to be as long as the points, whatever their number.
            shape = tensor.shape == at[:1] if tensor is index else tensor.shape
            facts += (shape, tensor.dtype, tensor.layout, place, tensor.requires_grad)
        else:
            return None
    pair = strides is None and type(size) is tuple and len(size) == 2
    if pair and type(size[0]) is type(size[1]) is int:
        facts.append(options)
    else:
        numbers = _numbers(size, strides)
        if numbers is None:
            return None
        facts += (numbers, options._replace(image_size=(0, 0), strides=None))
    device = "cpu" if features and features[0].is_cpu else "cuda"
    state = (
        wanted,
        torch.is_grad_enabled(),
        torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device),
        torch._C._get_deterministic_algorithms(),
        torch.get_num_threads(),
    )
    # Of numbers that are equal, such as 1 and True, not all may be served.
    return (*facts, type(align_corners), state)


def _numbers(image_size: tuple[int, int], strides: Sequence[Stride] | None) -> tuple | None:
    """Both with the types of their numbers, because 1 == 1.0 == True are one key; None if odd."""
    strides = () if strides is None else strides
    if type(image_size) not in (tuple, list, torch.Size) or type(strides) not in (list, tuple):
        return None
    numbers: list[object] = [*image_size]
    for stride in strides:
        numbers += stride if type(stride) is tuple else (stride,)
    kinds = tuple([type(number) for number in numbers])
    return (tuple(image_size), tuple(strides), kinds) if {int, float}.issuperset(kinds) else None


def _examined(
    features: Sequence[Tensor],
    points: Tensor,
    batch_index: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    options: Options,
    ordinary: bool,
) -> Prepared:
    """`ordinary`: nothing is traced or transformed, and all tensors are plain ones."""
    if torch.jit.is_tracing():
        raise RuntimeError(JIT_TRACE)
    check_names(options, weight)
    check_maps(features)
    dtype = autocast_dtype(features[0].device.type)
    if dtype is not None:
        features, weight, bias = cast(dtype, features, weight, bias)
    check_call(features, points, batch_index, weight, bias, options)
    geometry = layer_geometry(
        [(f.shape[2], f.shape[3]) for f in features],
        (options.image_size[0], options.image_size[1]),
        strides=options.strides,
        interpolation=options.interpolation,
        align_corners=options.align_corners,
        padding_mode=options.padding_mode,
        coordinates=options.coordinates,
    )
    differentiable = (*features, points, weight, bias)
    # Within a transform of torch.func a tensor may not know that an outer one wants its gradient.
    transformed = torch._C._are_functorch_transforms_active()
    training = torch.is_grad_enabled() and (
        transformed or any(t is not None and t.requires_grad for t in differentiable)
    )
    plan: str | Plan = options.plan
    executor: Executor | None = None
    by_autograd = False
    traced = torch.compiler.is_compiling() or features[0].is_meta
    if not traced:
        given = [t for t in (*features, points, weight, bias, batch_index) if t is not None]
        traced = not all(type(tensor) in _PLAIN and not tensor.is_neg() for tensor in given)
    if not traced and not transformed:
        rows = points if points.dim() == 2 else points.flatten(0, 1)
        routed, executor = prepare_executor(
            options.plan,
            Sampling(features, rows, batch_index, geometry),
            weight,
            training=training,
            moving_points=training and points.requires_grad,
            may_keep=ordinary and dtype is None,
        )
        plan, by_autograd = routed, routed.route is not None and routed.route.by_autograd
    outside = options.activation == "gelu" and training and not by_autograd
    return Prepared(
        geometry,
        None if outside else options.activation,
        outside,
        training,
        dtype,
        plan,
        executor,
        not traced and transformed,
        by_autograd,
        executor is not None and all(f.shape[0] > 1 and f.stride(0) == 0 for f in features),
    )


def prepare_executor(
    asked: str | Plan, s: Sampling, weight: Tensor | None, **flags: bool
) -> tuple[Plan, Executor]:
    """The plan for calls like that, and what carries it out; `flags` as in :func:`.shape_of`."""
    device = s.features[0].device
    backend = backend_for(device)
    shape = shape_of(s, weight, backend, **flags)
    require(backend, shape, device)
    plan = plan_for(asked, shape, backend, device)
    return plan, backend.executor(shape, s.geometry, plan)


def autocast_dtype(device: str) -> torch.dtype | None:
    """The dtype of autocast, where it is on for that type of device and the device has any."""
    # torch.amp.is_autocast_available would say the latter, but breaks graphs in torch 2.6
    if device in ("cpu", "cuda") and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return None


def cast(
    dtype: torch.dtype, features: Sequence[Tensor], weight: Tensor | None, bias: Tensor | None
) -> tuple[Sequence[Tensor], Tensor | None, Tensor | None]:
    """Maps, weight and bias in the autocast dtype, but for float64, as in torch; points never."""

    def converted(tensor: Tensor) -> Tensor:
        is_cast = tensor.is_floating_point() and tensor.dtype != torch.float64
        return tensor.to(dtype) if is_cast else tensor

    return (
        [converted(f) for f in features],
        converted(weight) if isinstance(weight, Tensor) else weight,
        converted(bias) if isinstance(bias, Tensor) else bias,
    )
