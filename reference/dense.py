"""Dense hypercolumns by definition: the features of M layers at every pixel of the image.

Interpolation is separable, so upsampling layer i is two small matrix products. For the centre
of pixel x at position t(x) on the layer's axis of K cells,

    A[x, k] = max(0, 1 - |t(x) - k|)            (pixels, K): two non-zeros a row
    H_i = A_y X_i A_x^T                         (B, C_i, H, W)
    H   = [H_1 | ... | H_M],   Z = conv1x1(H; W, b)

Where the layers cover the image exactly, the first line is `F.interpolate`; a stride that is not
the ratio of the sizes, or zero padding, needs the matrices. This is the usual way to a first
layer on hypercolumns, and what sparse sampling saves: H has sum C_i channels at all pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .hypercolumn import Stride, layer_positions

__all__ = ["dense_hypercolumn", "dense_linear", "masked_dense_linear"]

ACTIVATIONS = {None: lambda z: z, "relu": F.relu, "gelu": F.gelu}


def dense_hypercolumn(
    features: Sequence[Tensor],
    image_size: tuple[int, int],
    *,
    strides: Sequence[Stride] | None = None,
    align_corners: bool = False,
    padding_mode: str = "border",
) -> Tensor:
    """All layers upsampled to the image, and concatenated.

    Args:
        features: M maps (B, C_i, H_i, W_i) of one floating dtype.
        image_size: (H, W) of the image in pixels.
        strides: per layer the image pixels per cell, a number or (stride_y, stride_x);
            None takes the ratio of the sizes.
        align_corners, padding_mode: as for :func:`.sparse_hypercolumn`.

    Returns:
        (B, sum C_i, H, W), in the features' dtype.

    Example:
        >>> import torch
        >>> features = [torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)]
        >>> dense_hypercolumn(features, (8, 8)).shape
        torch.Size([2, 8, 8, 8])
    """
    if strides is None and padding_mode == "border":
        upsampled = [
            F.interpolate(f, image_size, mode="bilinear", align_corners=align_corners)
            for f in features
        ]
        return torch.cat(upsampled, dim=1)

    # The centres of the diagonal's pixels: x = 0, 1, ... and y = 0, 1, ... at once.
    diagonal = torch.arange(max(image_size), dtype=torch.float64, device=features[0].device)
    positions = layer_positions(
        torch.stack([diagonal, diagonal], dim=1),
        [(f.shape[2], f.shape[3]) for f in features],
        image_size,
        strides=strides,
        align_corners=align_corners,
    )
    upsampled = []
    for feature, (tx, ty) in zip(features, positions, strict=True):
        across = _hat_matrix(tx[: image_size[1]], feature.shape[3], padding_mode).to(feature.dtype)
        down = _hat_matrix(ty[: image_size[0]], feature.shape[2], padding_mode).to(feature.dtype)
        upsampled.append(down @ feature @ across.T)  # (H, H_i) (B, C_i, H_i, W_i) (W_i, W)
    return torch.cat(upsampled, dim=1)


def dense_linear(
    features: Sequence[Tensor],
    image_size: tuple[int, int],
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    *,
    strides: Sequence[Stride] | None = None,
    align_corners: bool = False,
    padding_mode: str = "border",
) -> Tensor:
    """The first layer on the hypercolumn of every pixel: a 1x1 convolution.

    Args:
        features, image_size, strides, align_corners, padding_mode: see
            :func:`dense_hypercolumn`.
        weight: (D, sum C_i). bias: (D,) or None. activation: None, "relu" or "gelu".

    Returns:
        (B, D, H, W), in the features' dtype.

    Example:
        >>> import torch
        >>> features = [torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)]
        >>> dense_linear(features, (8, 8), torch.randn(16, 8), activation="relu").shape
        torch.Size([2, 16, 8, 8])
    """
    hypercolumns = dense_hypercolumn(
        features,
        image_size,
        strides=strides,
        align_corners=align_corners,
        padding_mode=padding_mode,
    )
    return ACTIVATIONS[activation](F.conv2d(hypercolumns, weight[:, :, None, None], bias))


def masked_dense_linear(
    features: Sequence[Tensor],
    points: Tensor,
    image_size: tuple[int, int],
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    *,
    strides: Sequence[Stride] | None = None,
    align_corners: bool = False,
    padding_mode: str = "border",
) -> Tensor:
    """Dense hypercolumns, masked to the sampled pixels, then the first layer on those only.

    It saves the arithmetic of the unsampled pixels but not their memory: the compromise a
    framework without sparse sampling can offer.

    Args:
        points: (B, N, 2) integers: (x, y) of the sampled pixels, all within the image.
        features, image_size, weight, bias, activation, strides, align_corners, padding_mode:
            see :func:`dense_linear`.

    Returns:
        (B, N, D), in the features' dtype.

    Example:
        >>> import torch
        >>> features = [torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)]
        >>> points = torch.randint(8, (2, 10, 2))
        >>> masked_dense_linear(features, points, (8, 8), torch.randn(16, 8)).shape
        torch.Size([2, 10, 16])
    """
    hypercolumns = dense_hypercolumn(
        features,
        image_size,
        strides=strides,
        align_corners=align_corners,
        padding_mode=padding_mode,
    )
    image = torch.arange(points.shape[0], device=points.device)[:, None]  # (B, 1) against (B, N)
    x, y = points.long().unbind(dim=-1)
    sampled = hypercolumns[image, :, y, x]  # (B, N, sum C_i)
    return ACTIVATIONS[activation](F.linear(sampled, weight, bias))


def _hat_matrix(t: Tensor, cells: int, padding_mode: str) -> Tensor:
    """(pixels, cells): the share of each cell in the value at each position t."""
    if padding_mode == "border":
        t = t.clamp(0, cells - 1)
    centres = torch.arange(cells, dtype=t.dtype, device=t.device)
    return (1 - (t[:, None] - centres).abs()).clamp_min(0)
