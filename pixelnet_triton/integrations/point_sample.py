"""PointRend's sampling functions, with the signatures they have in detectron2 and mmcv.

    point_sample(X, p)[n, :, k] = grid_sample(X, 2 p - 1)[n, :, k]

for points p = (x, y) in [0, 1] x [0, 1] from edge to edge of the map: ``coordinates="unit"`` of
:func:`pixelnet_triton.sparse_hypercolumn`, with `grid_sample`'s zero padding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..call.checks import check_maps
from ..functional import sparse_hypercolumn
from ..op.prepare import autocast_dtype

__all__ = ["point_features", "point_sample", "point_sample_fine_grained_features"]

MODES = ("bilinear", "nearest", "bicubic")
GRID_PADDING_MODES = ("zeros", "border", "reflection")


def point_sample(
    input: Tensor,
    point_coords: Tensor,
    align_corners: bool | None = False,
    *,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
) -> Tensor:
    """The features of one map at points in [0, 1], as `point_sample` of detectron2 and mmcv.

    Args:
        input: ``(N, C, H, W)``, float32, float16, bfloat16, or float64 on the CPU; with
            ``mode="nearest"`` integers and bool, too.
        point_coords: ``(N, P, 2)`` or ``(N, P_h, P_w, 2)`` of (x, y), 0 and 1 at the map's edges.
        align_corners, mode, padding_mode: as for :func:`torch.nn.functional.grid_sample`, with
            its defaults. ``mode="bicubic"`` and ``padding_mode="reflection"`` are computed by
            `grid_sample` itself.

    Returns:
        ``(N, C, P)`` or ``(N, C, P_h, P_w)``, channels innermost in memory. Differentiable
        with respect to both tensors. Positions are float32 (float64 for a float64 map) even
        where `input` is half precision; `grid_sample` would ask for half-precision coordinates.
        Under autocast the result has the wider dtype of the two, on the CPU float32 at least, as
        `grid_sample`'s has; only the result of a half map is copied for that, not the map. Labels
        keep their dtype.

    Raises:
        TypeError, ValueError: a shape, dtype or name that cannot be served, or (on the CPU)
            coordinates that are not finite.

    Example:
        >>> import torch
        >>> from pixelnet_triton.integrations import point_sample
        >>> point_sample(torch.randn(2, 16, 32, 32), torch.rand(2, 100, 2)).shape
        torch.Size([2, 16, 100])
        >>> point_sample(torch.randn(2, 16, 32, 32), torch.rand(2, 7, 9, 2)).shape
        torch.Size([2, 16, 7, 9])
    """
    _check_sampling(mode, padding_mode)
    if not isinstance(input, Tensor):
        raise TypeError(
            f"input is a {type(input).__name__}; expected a torch.Tensor (N, C, H, W). For a list "
            "of maps use point_features"
        )
    flat, grid_size = _flat_points(point_coords)
    if mode == "bicubic" or padding_mode == "reflection":
        return _grid_sample(input, flat, mode, padding_mode, align_corners, grid_size)
    rows = _sample([input], flat, align_corners, mode, padding_mode)
    return _as_planes(rows, grid_size)


def point_features(
    features: Sequence[Tensor],
    point_coords: Tensor,
    align_corners: bool | None = False,
    *,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
) -> Tensor:
    """``torch.cat([point_sample(f, point_coords) for f in features], dim=1)`` in one call.

    This is how mmsegmentation's and detectron2's PointRend heads gather fine-grained features.
    Where a linear layer or 1x1 convolution follows, :class:`.FusedLinear` takes both steps at
    once and does not write the concatenated features to memory.

    Args:
        features: maps ``(N, C_i, H_i, W_i)`` of any sizes.
        point_coords, align_corners: as for :func:`point_sample`.
        mode: ``"bilinear"`` or ``"nearest"``. padding_mode: ``"zeros"`` or ``"border"``.

    Returns:
        ``(N, sum C_i, P)`` or ``(N, sum C_i, P_h, P_w)``.

    Example:
        >>> import torch
        >>> from pixelnet_triton.integrations import point_features
        >>> maps = [torch.randn(2, 16, 32, 32), torch.randn(2, 64, 8, 8)]
        >>> point_features(maps, torch.rand(2, 100, 2)).shape
        torch.Size([2, 80, 100])
    """
    _check_sampling(mode, padding_mode)
    if mode == "bicubic" or padding_mode == "reflection":
        raise ValueError(
            f"mode={mode!r} with padding_mode={padding_mode!r} is known to point_sample alone; "
            "use 'bilinear' or 'nearest' with 'zeros' or 'border', or call it for each map"
        )
    flat, grid_size = _flat_points(point_coords)
    rows = _sample(features, flat, align_corners, mode, padding_mode)
    return _as_planes(rows, grid_size)


def point_sample_fine_grained_features(
    features_list: Sequence[Tensor],
    feature_scales: Sequence[float],
    boxes: Sequence[Any],
    point_coords: Tensor,
) -> tuple[Tensor, Tensor]:
    """Features of several maps at points inside boxes, as the detectron2 function of that name.

    Args:
        features_list: maps ``(I, C_i, H_i, W_i)`` of the I images.
        feature_scales: for each map its cells per image pixel, such as 1/4.
        boxes: for each image its ``(R_i, 4)`` boxes (x0, y0, x1, y1) in pixels, edge to edge:
            tensors, or objects with such a ``.tensor`` (detectron2's ``Boxes``).
        point_coords: ``(R, P, 2)`` with R = R_1 + ... + R_I, in [0, 1] x [0, 1] of each box.

    Returns:
        features ``(R, sum C_i, P)``, and the points' image coordinates ``(R, P, 2)``, which like
        detectron2's carry no gradient. All images, boxes and maps are sampled in one call.

    Raises:
        ValueError: counts or shapes that do not match.

    Example:
        >>> import torch
        >>> from pixelnet_triton.integrations import point_sample_fine_grained_features
        >>> maps, scales = [torch.randn(2, 8, 16, 16), torch.randn(2, 8, 8, 8)], [1 / 4, 1 / 8]
        >>> boxes = [torch.tensor([[0.0, 0, 32, 32], [8, 8, 24, 40]]), torch.zeros(0, 4)]
        >>> point_sample_fine_grained_features(maps, scales, boxes, torch.rand(2, 5, 2))[0].shape
        torch.Size([2, 16, 5])
    """
    if not isinstance(boxes, Iterable):
        raise TypeError(
            f"boxes is a {type(boxes).__name__}; expected a list, one (R_i, 4) tensor an image"
        )
    per_image = [getattr(b, "tensor", b) for b in boxes]
    _check_boxes(features_list, feature_scales, per_image, point_coords)
    corners = torch.cat(per_image)[:, None, :]  # (R, 1, 4)
    with torch.no_grad():
        in_image = point_coords * (corners[..., 2:] - corners[..., :2]) + corners[..., :2]
    count, points_per_box = in_image.shape[:2]
    # Expanded, not repeated by counts in a tensor: those would have to be read to know the size.
    images = torch.arange(len(per_image), device=in_image.device).unbind()
    image = torch.cat([i.expand(b.shape[0]) for i, b in zip(images, per_image, strict=True)])
    rows = _as_grid_sample(
        features_list,
        in_image.flatten(0, 1) - 0.5,  # from the edge-based coordinate to pixel centres
        batch_index=image[:, None].expand(count, points_per_box).reshape(-1),
        strides=[1 / scale for scale in feature_scales],
        padding_mode="zeros",
    )
    return rows.unflatten(0, (count, points_per_box)).transpose(1, 2), in_image


def _sample(
    features: Sequence[Tensor],
    points: Tensor,
    align_corners: bool | None,
    mode: str,
    padding_mode: str,
) -> Tensor:
    """(N, P, sum C_i) at points in [0, 1]."""
    return _as_grid_sample(
        features,
        points,
        interpolation=mode,
        align_corners=bool(align_corners),
        padding_mode=padding_mode,
        coordinates="unit",
    )


def _as_grid_sample(features: Sequence[Tensor], points: Tensor, **options: Any) -> Tensor:
    """The hypercolumns outside of autocast, in the dtype that `grid_sample` and `cat` would give.

    The size of the image is of no effect for coordinates in [0, 1], nor where strides are given.
    """
    device = points.device.type
    if autocast_dtype(device) is None:
        return sparse_hypercolumn(features, points, (1, 1), **options)
    check_maps(features)
    with torch.autocast(device, enabled=False):
        # grid_sample and cat promote to the widest dtype under autocast
        widest = features[0].dtype
        for feature in features:
            widest = torch.promote_types(widest, feature.dtype)
        rows = sparse_hypercolumn([f.to(widest) for f in features], points, (1, 1), **options)
    if not widest.is_floating_point:  # labels, which float32 may not hold
        return rows
    result = torch.promote_types(widest, points.dtype)
    if device == "cpu":  # whose autocast has grid_sample compute in float32
        result = torch.promote_types(result, torch.float32)
    return rows.to(result)


def _grid_sample(
    input: Tensor,
    points: Tensor,
    mode: str,
    padding_mode: str,
    align_corners: bool | None,
    grid_size: tuple[int, ...],
) -> Tensor:
    values = F.grid_sample(
        input,
        2 * points[:, :, None] - 1,
        mode=mode,
        padding_mode=padding_mode,
        align_corners=align_corners,
    )
    return values.squeeze(3).unflatten(2, grid_size)


def _as_planes(rows: Tensor, grid_size: tuple[int, ...]) -> Tensor:
    """(N, C, P) or (N, C, P_h, P_w) of (N, P, C). A view less is microseconds less, both ways."""
    planes = rows.transpose(1, 2)
    return planes if len(grid_size) == 1 else planes.unflatten(2, grid_size)


def _flat_points(point_coords: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """(N, P, 2) of either form, and the sizes P stands for: (P,) or (P_h, P_w)."""
    if not isinstance(point_coords, Tensor):
        raise TypeError(
            f"point_coords is a {type(point_coords).__name__}; expected a torch.Tensor (N, P, 2)"
        )
    if point_coords.dim() not in (3, 4) or point_coords.shape[-1] != 2:
        raise ValueError(
            f"point_coords has shape {tuple(point_coords.shape)}; expected (N, P, 2) or "
            "(N, P_h, P_w, 2) of (x, y) in [0, 1]"
        )
    if not point_coords.is_floating_point():
        raise TypeError(
            f"point_coords is {point_coords.dtype}; coordinates in [0, 1] have to be floating. "
            "For pixels use pixelnet_triton.sparse_hypercolumn"
        )
    grid_size = tuple(point_coords.shape[1:-1])
    return point_coords if len(grid_size) == 1 else point_coords.flatten(1, 2), grid_size


def _check_sampling(mode: str, padding_mode: str) -> None:
    for name, came, known in (
        ("mode", mode, MODES),
        ("padding_mode", padding_mode, GRID_PADDING_MODES),
    ):
        if came not in known:
            raise ValueError(f"{name}={came!r} is unknown; use one of {known}")


def _check_boxes(
    features: Sequence[Tensor],
    scales: Sequence[float],
    boxes: Sequence[Tensor],
    point_coords: Tensor,
) -> None:
    if not isinstance(features, (list, tuple)):
        raise TypeError(
            f"features_list is a {type(features).__name__}; expected a list of maps "
            "(I, C_i, H_i, W_i). Of a dict pass list(features_list.values())"
        )
    for i, f in enumerate(features):
        if not isinstance(f, Tensor):
            raise TypeError(
                f"features_list[{i}] is a {type(f).__name__}; expected a torch.Tensor "
                "(I, C_i, H_i, W_i)"
            )
    if len(scales) != len(features):
        raise ValueError(
            f"feature_scales has {len(scales)} entries for {len(features)} maps in features_list; "
            "expected one scale (cells per image pixel) for each"
        )
    for i, scale in enumerate(scales):
        if not isinstance(scale, (Real, Tensor)) or not 0 < scale < math.inf:
            raise ValueError(
                f"feature_scales[{i}]={scale!r}; expected a positive number of cells per image "
                "pixel, such as 1/4"
            )
    images = features[0].shape[0] if features and features[0].dim() else 0
    if not features or len(boxes) != images:
        raise ValueError(
            f"boxes has {len(boxes)} entries but features_list holds {images} images; expected "
            "one (R_i, 4) tensor for each image, (0, 4) for an image without boxes"
        )
    for i, b in enumerate(boxes):
        if not isinstance(b, Tensor) or b.dim() != 2 or b.shape[1] != 4:
            raise ValueError(
                f"boxes[{i}] is {tuple(b.shape) if isinstance(b, Tensor) else type(b).__name__}; "
                "expected a tensor (R_i, 4) of (x0, y0, x1, y1), or detectron2's Boxes"
            )
    total = sum([b.shape[0] for b in boxes])
    if not isinstance(point_coords, Tensor):
        raise TypeError(
            f"point_coords is a {type(point_coords).__name__}; expected a torch.Tensor "
            f"({total}, P, 2)"
        )
    if point_coords.dim() != 3 or point_coords.shape[0] != total or point_coords.shape[2] != 2:
        raise ValueError(
            f"point_coords has shape {tuple(point_coords.shape)}; expected ({total}, P, 2), "
            "P points in [0, 1] for each of the boxes"
        )
