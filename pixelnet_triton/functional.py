"""The public function: conventions and checks on top, one operator below."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .call.checks import check_call, check_maps, check_names, check_values
from .call.geometry import Stride, layer_geometry
from .calls import KnownCall, recall, remember, signature
from .dispatch import small_call
from .operators import sparse_hypercolumn_operator
from .planner import Plan, forward_only

__all__ = ["sparse_hypercolumn"]


def sparse_hypercolumn(
    features: Sequence[Tensor],
    points: Tensor,
    image_size: tuple[int, int],
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    activation: str | None = None,
    batch_index: Tensor | None = None,
    strides: Sequence[Stride] | None = None,
    interpolation: str = "bilinear",
    align_corners: bool = False,
    padding_mode: str = "border",
    coordinates: str = "pixel",
    plan: str | Plan = "auto",
) -> Tensor:
    r"""Hypercolumns at sparse points, or the first layer of an MLP on them, fused.

    At point p the hypercolumn is the concatenation of the interpolated features of M layers
    (PixelNet, arXiv 1609.06694, section 3), and with a weight the MLP's first layer follows:

    .. math:: h_p = [c_1(p), \dots, c_M(p)], \qquad y_p = \mathrm{act}(W h_p + b).

    Args:
        features: M maps ``(B, C_i, H_i, W_i)`` of one dtype (float32, float16, bfloat16; float64
            on the CPU) and one device, any strides; channels_last is fastest.
        points: ``(B, N, 2)``, or ``(P, 2)`` with `batch_index`: (x, y), integer or floating.
        image_size: ``(H, W)`` of the input image, in pixels.
        weight: ``(D, sum C_i)``, columns in the order of the layers; None returns h itself.
        bias: ``(D,)``.
        activation: None, ``"relu"`` or ``"gelu"`` (exact); needs a weight.
        batch_index: ``(P,)`` integer, the image of each point, in any order.
        strides: for each layer the image pixels per cell, a number or ``(stride_y, stride_x)``:
            a pixel x lies at (x - (s - 1) / 2) / s, as in the authors' layer. None takes the
            ratio of the sizes, W / W_i and H / H_i.
        interpolation: ``"bilinear"``, or ``"nearest"`` (ties to even).
        align_corners: as in :func:`torch.nn.functional.grid_sample`.
        padding_mode: ``"border"`` clamps points to the outermost cell centres, ``"zeros"``
            counts what lies outside the map as 0.
        coordinates: ``"pixel"`` (pixel centres at integers), ``"unit"`` ([0, 1] from edge to
            edge, as PointRend) or ``"normalized"`` ([-1, 1], as `grid_sample`).
        plan: ``"auto"``, ``"gather"``, ``"project"``, ``"one_pass"``, ``"two_step"`` or a
            :class:`~pixelnet_triton.Plan`: how the same result is computed. Small calls on a CPU
            keep their hypercolumns for the backward pass (2 MB at most, and in half precision 8 MB
            of maps in float32) unless a plan is named.

    Returns:
        ``(B, N, sum C_i)`` or ``(P, sum C_i)``; with a weight ``(B, N, D)`` or ``(P, D)``; in the
        features' dtype (under autocast in the autocast dtype). Differentiable once with respect
        to every map, weight, bias and (bilinear, floating) points.

    Raises:
        TypeError, ValueError: an argument cannot be served; the message names it and the remedy.
            On a GPU, non-finite points and image indices out of range cannot be seen without
            waiting for the device: their rows are NaN (``PIXELNET_TRITON_STRICT=1`` raises).

    Example:
        >>> import torch
        >>> from pixelnet_triton import sparse_hypercolumn
        >>> maps = [torch.randn(2, 64, 56, 56), torch.randn(2, 256, 14, 14)]
        >>> points = torch.randint(0, 224, (2, 100, 2))
        >>> sparse_hypercolumn(maps, points, (224, 224)).shape
        torch.Size([2, 100, 320])
        >>> weight = torch.randn(128, 320)
        >>> sparse_hypercolumn(maps, points, (224, 224), weight=weight, activation="relu").shape
        torch.Size([2, 100, 128])
    """
    tensors = (points, weight, bias, batch_index)
    options = (activation, interpolation, align_corners, padding_mode, coordinates)
    key = signature(features, tensors, image_size, strides, plan, options)
    known = recall(key)
    if known is None:
        ordinary = key is not None
        known = _examined(features, tensors, image_size, strides, plan, options, ordinary)
        remember(key, known)
    if known.small is not None:
        # NaN and infinity survive a sum; a sum that overflows is looked at in detail.
        if batch_index is not None or (
            points.is_floating_point() and not math.isfinite(points.sum().item())
        ):
            check_values(points.reshape(-1, 2), batch_index, features[0].shape[0])
        value = known.small(features, points, batch_index, weight, bias, activation)
        if value is not None:
            return value
    features, weight, bias = _autocast(features, weight, bias)
    # GELU's derivative needs its input: where gradients are wanted it stays outside the operator,
    # so that autograd keeps that input; otherwise it is applied in the product's epilogue.
    outside = activation == "gelu" and known.training
    value = sparse_hypercolumn_operator(
        features,
        points,
        batch_index,
        weight,
        bias,
        known.geometry,
        None if outside else activation,
        known.plan,
    )
    return F.gelu(value) if outside else value


def _examined(
    features: Sequence[Tensor],
    tensors: tuple[Tensor, Tensor | None, Tensor | None, Tensor | None],
    image_size: tuple[int, int],
    strides: Sequence[Stride] | None,
    plan: str | Plan,
    options: tuple[str | None, str, bool, str, str],
    ordinary: bool,
) -> KnownCall:
    """Raise for what cannot be served; else what follows from shapes and options.

    `ordinary`: nothing is traced or transformed, and all tensors are plain ones.
    """
    points, weight, bias, batch_index = tensors
    activation, interpolation, align_corners, padding_mode, coordinates = options
    check_names(activation, interpolation, padding_mode, coordinates, weight)
    check_maps(features)
    features, weight, bias = _autocast(features, weight, bias)
    check_call(
        features, points, image_size, weight, bias, batch_index, strides, align_corners, plan
    )
    geometry = layer_geometry(
        [(f.shape[2], f.shape[3]) for f in features],
        (image_size[0], image_size[1]),
        strides=strides,
        interpolation=interpolation,
        align_corners=align_corners,
        padding_mode=padding_mode,
        coordinates=coordinates,
    )
    training = _wants_grad(*features, points, weight, bias)
    name = plan if isinstance(plan, str) else plan.encode()
    if isinstance(plan, str) and not training:
        name = forward_only(name)
    small = None
    if ordinary and not autocast_enabled(features[0].device.type):
        small = small_call(features, points, batch_index, weight, geometry, name, training)
    return KnownCall(geometry, name, training, small)


def _wants_grad(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _autocast(
    features: Sequence[Tensor], weight: Tensor | None, bias: Tensor | None
) -> tuple[Sequence[Tensor], Tensor | None, Tensor | None]:
    """Maps, weight and bias in the autocast dtype where autocast is on; points never."""
    device = features[0].device.type
    if not autocast_enabled(device):
        return features, weight, bias
    dtype = torch.get_autocast_dtype(device)

    def cast(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    return (
        [cast(f) for f in features],
        cast(weight) if isinstance(weight, Tensor) else weight,
        cast(bias) if isinstance(bias, Tensor) else bias,
    )


def autocast_enabled(device: str) -> bool:
    """Whether autocast is on for that type of device; not for one that has none of it."""
    # torch.amp.is_autocast_available would say the latter, but breaks graphs in torch 2.6
    return device in ("cpu", "cuda") and torch.is_autocast_enabled(device)
