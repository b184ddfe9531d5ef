"""The public function: a call is prepared, once for all of its kind, and run."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .call import ImageSize, Options, Plan, Stride
from .op.extents import within_extents
from .op.forward_mode import in_forward_mode, run_in_forward_mode
from .op.labels import are_labels, labels_at
from .op.prepare import prepare
from .op.run import run
from .op.shared import as_one_image

__all__ = ["sparse_hypercolumn"]


def sparse_hypercolumn(
    features: Sequence[Tensor],
    points: Tensor,
    image_size: ImageSize,
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
            on the CPU) and one device, any strides; channels_last is fastest. Integers and bool,
            such as labels, with ``interpolation="nearest"`` and no weight.
        points: ``(B, N, 2)``, or ``(P, 2)`` with `batch_index`: (x, y), integer or floating.
        image_size: ``(H, W)`` of the input image, in pixels. Of images padded on the right and
            below to one size, ``(B, 2)``, a tensor or pairs, and `strides`: each image is sampled
            as if it were alone, with its own ceil(H / s) x ceil(W / s) cells.
        weight: ``(D, sum C_i)``, columns in the order of the layers; None returns h itself.
            ``(E, D, sum C_i)`` are an ensemble of E first layers on the same hypercolumns,
            computed as one of E D outputs.
        bias: ``(D,)``, or ``(E, D)``.
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
        ``(B, N, sum C_i)`` or ``(P, sum C_i)``; with a weight ``(B, N, D)`` or ``(P, D)``, of an
        ensemble ``(B, N, E, D)`` or ``(P, E, D)``; in the features' dtype (under autocast in the
        autocast dtype). Differentiable with respect to every map, weight, bias and (bilinear,
        floating) points; under `torch.func`, too, and any number of times: derivatives after the
        first hold the hypercolumns in memory.

    Raises:
        TypeError, ValueError: an argument cannot be served; the message names it and the remedy.
            On a GPU, non-finite points and image indices out of range cannot be seen without
            waiting for the device: their rows are NaN, of integer maps 0
            (``PIXELNET_TRITON_STRICT=1`` raises).

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
    options = Options(
        image_size,
        activation,
        strides,
        interpolation,
        align_corners,
        padding_mode,
        coordinates,
        plan,
    )
    if type(image_size) is not tuple or (image_size and type(image_size[0]) is not int):
        alone = within_extents(features, points, batch_index, options)
        if alone is not None:
            features, points, options = alone
    if interpolation == "nearest" and are_labels(features, weight):
        return labels_at(features, points, batch_index, options)
    call = prepare(features, points, batch_index, weight, bias, options)
    if in_forward_mode():
        return run_in_forward_mode(call, features, points, batch_index, weight, bias, options)
    one = as_one_image(features, points, batch_index) if call.repeated else None
    if one is None:
        return run(call, features, points, batch_index, weight, bias)
    value = run(prepare(*one, None, weight, bias, options), *one, None, weight, bias)
    return value.reshape(*points.shape[:-1], *value.shape[2:])
