"""What everyone writes today: `grid_sample` per layer, `cat`, `linear`.

It sets the accuracy the library is held to, and shares no line with the reference. The maps are
sampled in float32 (float64 for float64), because `grid_sample` in half precision takes
half-precision coordinates, which are useless; sampled features and linear layer are in the
features' dtype. That is the most accurate of the plain expressions, so the strictest bar.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["plain_hypercolumn"]


def plain_hypercolumn(
    features: Sequence[Tensor],
    points: Tensor,
    image_size: tuple[int, int],
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    activation: str | None = None,
    batch_index: Tensor | None = None,
    strides: Sequence[float | tuple[float, float]] | None = None,
    interpolation: str = "bilinear",
    align_corners: bool = False,
    padding_mode: str = "border",
    coordinates: str = "pixel",
) -> Tensor:
    """The arguments and results of `sparse_hypercolumn`."""
    dtype = features[0].dtype
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    batch = features[0].shape[0]
    if batch_index is None:
        batch_index = torch.arange(batch, device=points.device).repeat_interleave(points.shape[1])
    x, y = points.reshape(-1, 2).to(compute).unbind(dim=1)
    sampled = []
    for i, feature in enumerate(features):
        stride = (None, None) if strides is None else strides[i]
        stride_y, stride_x = stride if isinstance(stride, tuple) else (stride, stride)
        options = (align_corners, coordinates)
        grid_x = _normalized(x, image_size[1], feature.shape[3], stride_x, *options)
        grid_y = _normalized(y, image_size[0], feature.shape[2], stride_y, *options)
        grid = torch.stack([grid_x, grid_y], dim=1)
        by_image = feature.new_zeros(len(grid), feature.shape[1], dtype=compute)
        by_image = by_image + feature.flatten()[:0].sum()  # differentiable without any points
        for b in range(batch):
            mine = (batch_index == b).nonzero()[:, 0]
            if len(mine) == 0:
                continue
            values = F.grid_sample(
                feature[b : b + 1].to(compute),
                grid[mine][None, None],
                mode=interpolation,
                padding_mode=padding_mode,
                align_corners=align_corners,
            )
            by_image = by_image.index_put((mine,), values[0, :, 0].T)
        sampled.append(by_image.to(dtype))
    y = torch.cat(sampled, dim=1)
    if weight is not None:
        y = F.linear(y, weight, bias)
        if activation is not None:
            y = F.relu(y) if activation == "relu" else F.gelu(y)
    return y.reshape(*points.shape[:-1], y.shape[1])


def _normalized(
    x: Tensor,
    pixels: int,
    cells: int,
    stride: float | None,
    align_corners: bool,
    coordinates: str,
) -> Tensor:
    """One axis of the grid for `grid_sample`: -1 and 1 are the ends of the map."""
    if coordinates != "pixel" and stride is None:
        return 2 * x - 1 if coordinates == "unit" else x
    if align_corners:
        return 2 * x / (pixels - 1) - 1 if pixels > 1 else torch.full_like(x, -1)
    u = {"pixel": x + 0.5, "unit": x * pixels, "normalized": (x + 1) * pixels / 2}[coordinates]
    return 2 * u / (pixels if stride is None else stride * cells) - 1
