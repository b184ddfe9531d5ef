"""Images of different sizes, padded to one canvas: each is sampled as if it were alone.

    n_i = ceil(W_b / s_i) columns of map i see image b, and ceil(H_b / s_i) rows
    border: cells beyond them become copies of the last of them        zeros: they become 0

After that a call has one canvas for all images, and what computes it knows nothing of sizes. Every
map with padding is copied once. Images begin at the canvas's corner (0, 0): points in pixels stay,
points in [0, 1] and [-1, 1] are brought from the image's own extent to pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..call import Options
from ..call.check_options import check_strides
from ..call.checks import check_maps, check_values
from ..tools.values import values_at_hand
from .labels import SIGNED

__all__ = ["within_extents"]

# A stride such as 2.1 divides 21 pixels into 10 cells, not into 11 because of rounding.
SLACK = 1e-6
FAR = 1e30  # beyond it, a coordinate times a width may be no number of float32


def within_extents(
    features: Sequence[Tensor], points: Tensor, batch_index: Tensor | None, options: Options
) -> tuple[list[Tensor], Tensor, Options] | None:
    """The same call without sizes of images, of maps without padding; None if it has none.

    What the checks of all calls will refuse stays as it is.
    """
    came = options.image_size
    sizes = _sizes(came)
    if sizes is None:
        return None
    check_maps(features)
    batch = features[0].shape[0] if features[0].dim() else 0
    _check(sizes, came, batch)
    options = options.placed((1, 1), options.coordinates)  # no effect where strides are given
    if not torch.compiler.is_compiling():
        options = options.in_plain_numbers()
    if options.strides is None:
        raise ValueError(
            "image_size holds the sizes of several images, but strides is None: of a padded batch "
            "the ratio of the sizes does not say where a cell lies. Give strides=, the image "
            "pixels per cell of each map"
        )
    check_strides(options.strides, len(features), options.align_corners)
    if any(f.dim() != 4 or f.shape[0] != batch or 0 in f.shape[1:] for f in features):
        return list(features), points, options
    zeros = options.padding_mode == "zeros"
    maps = [
        _without_padding(feature, _cells(sizes, stride, feature), zeros)
        for feature, stride in zip(features, options.strides, strict=True)
    ]
    if options.coordinates in ("unit", "normalized") and isinstance(points, Tensor):
        sizes = sizes.to(features[0].device)
        points = _in_pixels(points, batch_index, sizes, options.coordinates)
        options = options.placed(options.image_size, "pixel")
    return maps, points, options


def _sizes(image_size: Any) -> Tensor | None:
    """(B, 2), of several images; None for the size of one, and for what is no size."""
    if isinstance(image_size, (list, tuple)):
        # Of one size the entries are numbers, which may be tensors of one number.
        if not any(isinstance(size, (list, tuple)) or _dim(size) == 1 for size in image_size):
            return None
        try:
            return torch.tensor([[*map(_number, size)] for size in image_size], device="cpu")
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"image_size={image_size!r}; expected (height, width), or one such pair for each "
                "image"
            ) from error
    if _dim(image_size) != 2:
        return None
    return image_size if isinstance(image_size, Tensor) else torch.from_numpy(image_size)


def _dim(size: Any) -> int:
    return size.ndim if isinstance(size, (Tensor, np.ndarray)) else 0


def _number(number: Any) -> Any:
    return number.item() if isinstance(number, (Tensor, np.generic)) else number


def _check(sizes: Tensor, came: Any, batch: int) -> None:
    if sizes.is_floating_point() or sizes.is_complex() or sizes.dtype == torch.bool:
        raise TypeError(f"image_size holds {sizes.dtype}; expected integers, in pixels")
    if sizes.shape != (batch, 2):
        raise ValueError(
            f"image_size has shape {tuple(sizes.shape)} but the features hold {batch} images; "
            f"expected (height, width), or ({batch}, 2), one such pair for each image"
        )
    if values_at_hand(sizes) and bool((sizes < 1).any()):
        raise ValueError(f"image_size={came!r}; height and width must be at least 1 pixel")


def _cells(sizes: Tensor, stride: Any, feature: Tensor) -> Tensor:
    """(B, 2): rows and columns of a map that see each image, at least one."""
    stride_y, stride_x = stride if isinstance(stride, tuple) else (stride, stride)
    counts = []
    for axis, s in enumerate((stride_y, stride_x)):
        exact = sizes[:, axis].to(torch.float64) / s
        counts.append((exact - SLACK).ceil().long().clamp(1, feature.shape[2 + axis]))
    return torch.stack(counts, 1)


def _without_padding(feature: Tensor, cells: Tensor, zeros: bool) -> Tensor:
    """The map with what lies beyond its `cells` (B, 2) made 0, or a copy of the last of them."""
    signed = SIGNED.get(feature.dtype)
    if signed is not None:
        return _without_padding(feature.view(signed), cells, zeros).view(feature.dtype)
    for axis in (2, 3):
        count = cells[:, axis - 2]
        if values_at_hand(count) and bool((count == feature.shape[axis]).all()):
            continue
        count = count.to(feature.device)  # lists of sizes are looked at on the CPU
        along = [-1 if dim == axis else 1 for dim in range(4)]
        place = torch.arange(feature.shape[axis], device=feature.device).reshape(along)
        inside = place < count.reshape(-1, 1, 1, 1)
        if zeros:
            feature = feature.masked_fill(~inside, 0)
            continue
        last = [1 if dim == axis else n for dim, n in enumerate(feature.shape)]
        edge = feature.gather(axis, (count - 1).reshape(-1, 1, 1, 1).expand(last))
        feature = torch.where(inside, feature, edge)
    return feature


def _in_pixels(
    points: Tensor, batch_index: Tensor | None, sizes: Tensor, coordinates: str
) -> Tensor:
    """Points of [0, 1] or [-1, 1] of each image in pixels; as they came if they are refused."""
    extent = sizes.flip(1)  # (B, 2): width, height
    if batch_index is None:
        if points.dim() != 3 or points.shape[0] != sizes.shape[0]:
            return points
        extent = extent.unsqueeze(1)
    else:
        if not isinstance(batch_index, Tensor) or batch_index.is_floating_point():
            return points
        images = sizes.shape[0]
        if batch_index.shape != points.shape[:1] or images == 0:
            return points
        if values_at_hand(batch_index):
            check_values(points, batch_index, images)
        # Where the index cannot be looked at, the kernels mark what is out of range.
        extent = extent[batch_index.long().clamp(0, images - 1)]
    wide = points if points.dtype == torch.float64 else points.float()
    share = wide if coordinates == "unit" else (wide + 1) / 2
    near = torch.where(share.isfinite(), share.clamp(-FAR, FAR), share)
    return near * extent - 0.5
