"""What can be wrong with the tensors of a call, said before anything is computed.

Each message names the argument, what came, what was expected and the remedy. `check_call` reads
metadata only, that of the options too (check_options.py), so it costs microseconds and works
while a graph is traced; `check_values` reads the points themselves and runs inside the operator.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from ..tools.values import values_at_hand
from .check_options import check_image_size, check_plan, check_strides
from .options import Options

__all__ = ["POINT_DTYPES", "check_call", "check_maps", "check_values"]

_FEATURE_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_INDEX_DTYPES = (torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8)
_HALF_DTYPES = (torch.float16, torch.bfloat16)
POINT_DTYPES = (*_FEATURE_DTYPES, *_INDEX_DTYPES)


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def check_call(
    features: Sequence[Tensor],
    points: Tensor,
    batch_index: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    options: Options,
) -> None:
    """Raise `TypeError` or `ValueError` for the first argument that cannot be served.

    Points in half precision are served, and warned of.
    """
    _check_features(features)
    _check_points(points, batch_index, features[0])
    check_image_size(options.image_size)
    if options.strides is not None:
        check_strides(options.strides, len(features), options.align_corners)
    _check_linear(weight, bias, features)
    check_plan(options.plan, len(features))
    # A warning would break the graph.
    if points.dtype in _HALF_DTYPES and not torch.compiler.is_compiling():
        warnings.warn(
            f"points is {points.dtype}, which holds whole pixels up to "
            f"{2 / torch.finfo(points.dtype).eps:.0f} only: coordinates are off by as much as a "
            "pixel beyond, and fractions of pixels before. Convert what they are computed from "
            "with .float(), and pass float32 points",
            stacklevel=5,  # the caller of sparse_hypercolumn
        )


def check_maps(features: Sequence[Tensor]) -> None:
    """Raise unless `features` is a sequence of strided tensors: what autocast has to know."""
    if isinstance(features, Tensor) or not isinstance(features, Sequence):
        if isinstance(features, Mapping):
            remedy = "Pass list(features.values()), in the order of the weight's columns"
        elif isinstance(features, Iterable) and not isinstance(features, Tensor):
            remedy = "Pass list(features)"
        else:
            remedy = "For a single map pass [features]"
        raise TypeError(
            f"features is a {type(features).__name__}; expected a list or tuple of maps "
            f"(B, C_i, H_i, W_i). {remedy}"
        )
    if len(features) == 0:
        raise ValueError("features is empty; expected at least one map (B, C_i, H_i, W_i)")
    for i, feature in enumerate(features):
        if not isinstance(feature, Tensor):
            raise TypeError(
                f"features[{i}] is a {type(feature).__name__}; expected a torch.Tensor "
                "(B, C_i, H_i, W_i). Of pairs (map, tokens) pass the maps, [f[0] for f in features]"
            )
        _check_layout(f"features[{i}]", feature)


def _check_features(features: Sequence[Tensor]) -> None:
    first = features[0]
    for i, feature in enumerate(features):
        if feature.dim() != 4:
            raise ValueError(
                f"features[{i}] has shape {_shape(feature)}; expected 4 dimensions "
                "(B, C_i, H_i, W_i). Add the missing ones with unsqueeze or reshape; tokens "
                "(B, L, C) become maps by pixelnet_triton.integrations.maps_of_tokens"
            )
        if feature.dtype not in _FEATURE_DTYPES:
            raise TypeError(
                f"features[{i}] is {feature.dtype}; expected float32, float16, bfloat16 or "
                "(on the CPU) float64; or, with interpolation='nearest' and no weight, integers or "
                "bool. Convert it with .to(torch.float32)"
            )
        if feature.dtype != first.dtype:
            raise TypeError(
                f"features[{i}] is {feature.dtype} but features[0] is {first.dtype}; all layers "
                "need one dtype. Convert with .to(...), or run under torch.autocast"
            )
        if feature.device != first.device:
            raise ValueError(
                f"features[{i}] is on {feature.device} but features[0] is on {first.device}; all "
                "layers need one device. Move it with .to(...)"
            )
        if feature.shape[0] != first.shape[0]:
            raise ValueError(
                f"features[{i}] has batch size {feature.shape[0]} but features[0] has "
                f"{first.shape[0]}; all layers need the same images"
            )
        if 0 in feature.shape[1:]:
            raise ValueError(
                f"features[{i}] has shape {_shape(feature)}; a map needs at least one channel "
                "and one cell to be interpolated"
            )
    if first.dtype == torch.float64 and first.device.type != "cpu":
        raise TypeError(
            f"features are float64 on {first.device}; the kernels take float32, float16 and "
            "bfloat16. Convert with .to(torch.float32), or move to the CPU for float64"
        )


def _check_points(points: Tensor, batch_index: Tensor | None, feature: Tensor) -> None:
    if not isinstance(points, Tensor):
        raise TypeError(
            f"points is a {type(points).__name__}; expected a torch.Tensor (B, N, 2) of (x, y). "
            "Convert it with torch.as_tensor"
        )
    _check_layout("points", points)
    _check_device("points", points, feature)
    if points.dtype not in POINT_DTYPES:
        raise TypeError(
            f"points is {points.dtype}; expected an integer or floating dtype. "
            "Convert it with .to(torch.float32)"
        )
    if batch_index is None:
        if points.dim() != 3 or points.shape[2] != 2:
            raise ValueError(
                f"points has shape {_shape(points)}; expected (B, N, 2) of (x, y), or (P, 2) "
                "together with batch_index (P,)"
            )
        if points.shape[0] != feature.shape[0]:
            raise ValueError(
                f"points has shape {_shape(points)} but the features hold {feature.shape[0]} "
                "images; expected (B, N, 2) with the same B"
            )
        return
    if not isinstance(batch_index, Tensor):
        raise TypeError(
            f"batch_index is a {type(batch_index).__name__}; expected an integer tensor (P,). "
            "Convert it with torch.as_tensor"
        )
    _check_layout("batch_index", batch_index)
    _check_device("batch_index", batch_index, feature)
    if points.dim() != 2 or points.shape[1] != 2:
        raise ValueError(
            f"points has shape {_shape(points)}; with batch_index expected (P, 2) of (x, y). "
            "Flatten (B, N, 2) with .flatten(0, 1)"
        )
    if batch_index.dtype not in _INDEX_DTYPES:
        raise TypeError(
            f"batch_index is {batch_index.dtype}; expected an integer dtype. "
            "Convert it with .to(torch.int64)"
        )
    if batch_index.shape != points.shape[:1]:
        raise ValueError(
            f"batch_index has shape {_shape(batch_index)}; expected ({points.shape[0]},), one "
            "image index for each row of points"
        )
    if feature.shape[0] == 0 and points.shape[0] > 0:
        raise ValueError(
            f"points has {points.shape[0]} rows but the features hold 0 images; "
            "pass no points where there are no images"
        )


def _check_layout(name: str, tensor: Tensor) -> None:
    if tensor.is_nested:
        raise TypeError(
            f"{name} is a nested tensor; expected an ordinary one. Where images have "
            "different numbers of points, pass torch.cat(nested.unbind()) with a batch_index"
        )
    if tensor.layout != torch.strided:
        raise TypeError(
            f"{name} has the layout {tensor.layout}; expected torch.strided. Convert it with "
            ".to_dense()"
        )


def _check_device(name: str, tensor: Tensor, feature: Tensor) -> None:
    if tensor.device != feature.device:
        raise ValueError(
            f"{name} is on {tensor.device} but the features are on {feature.device}; "
            f"move it with .to(features[0].device)"
        )


def _check_linear(weight: Tensor | None, bias: Tensor | None, features: Sequence[Tensor]) -> None:
    first = features[0]
    if weight is None:
        if bias is not None:
            raise ValueError("bias is given without weight; pass both, or neither")
        return
    channels = sum(f.shape[1] for f in features)
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} is a {type(tensor).__name__}; expected a torch.Tensor")
        _check_layout(name, tensor)
        _check_device(name, tensor, first)
        if tensor.dtype != first.dtype:
            raise TypeError(
                f"{name} is {tensor.dtype} but the features are {first.dtype}; convert one of "
                "them with .to(...), or run under torch.autocast"
            )
    if weight.dim() not in (2, 3) or weight.shape[-1] != channels:
        raise ValueError(
            f"weight has shape {_shape(weight)}; expected (D, {channels}), or (E, D, {channels}) "
            "of E first layers, one column for each channel of the layers "
            f"{[f.shape[1] for f in features]}"
        )
    if bias is not None and bias.shape != weight.shape[:-1]:
        raise ValueError(
            f"bias has shape {_shape(bias)}; expected {tuple(weight.shape[:-1])}, one entry for "
            "each row of weight"
        )


def check_values(points: Tensor, batch_index: Tensor | None, batch: int) -> None:
    """Raise `ValueError` for non-finite points and for image indices that do not exist.

    On a GPU this would wait for the device, so there the kernels mark such a point's row with
    NaN instead; ``PIXELNET_TRITON_STRICT=1`` asks for the exception at the price of the wait.
    """
    if not (points.is_cpu or values_at_hand(points)):
        return
    # A sum is one operator instead of three; it is finite unless an entry is not (or overflows).
    if (
        points.is_floating_point()
        and not math.isfinite(points.sum().item())
        and not torch.isfinite(points).all()
    ):
        rows = points.reshape(-1, 2)
        row = int((~torch.isfinite(rows)).any(dim=1).nonzero()[0])
        raise ValueError(
            f"points[{row}] (rows counted over all images) is {rows[row].tolist()}; "
            "coordinates must be finite. Drop or replace such points"
        )
    if batch_index is not None and batch_index.numel() > 0:
        low, high = (int(value) for value in torch.aminmax(batch_index))
        if low < 0 or high >= batch:
            raise ValueError(
                f"batch_index ranges over [{low}, {high}] but the features hold {batch} images; "
                f"expected values in [0, {batch - 1}]"
            )
