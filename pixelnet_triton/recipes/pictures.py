"""Predictions as pictures: classes in their colours, edges, normals and depths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ..data.decoding import needed
from .card import Colour, TaskCard

__all__ = ["class_colours", "depth_colours", "edge_grey", "normal_colours", "overlay", "picture"]

Picture = np.ndarray
UNKNOWN = (0, 0, 0)


def picture(card: TaskCard, values: Tensor) -> Picture:
    """A target, or the output ``(K, H, W)`` of a network, as RGB: uint8 ``(H, W, 3)``.

    Args:
        card: the task.
        values: labels or depths ``(H, W)``, normals ``(3, H, W)``, edges ``(H, W)``, in which 255
            is unknown, or what :func:`~pixelnet_triton.recipes.predict_image` gives.
    """
    match card.name:
        case "segmentation":
            labels = values.argmax(0) if values.dim() == 3 else values
            return class_colours(labels, card.palette)
        case "edges":
            return edge_grey(values[0] if values.dim() == 3 else values)
        case "normals":
            return normal_colours(values)
    return depth_colours(values[0] if values.dim() == 3 else values)


def class_colours(labels: Tensor, palette: Sequence[Colour]) -> Picture:
    """Labels ``(H, W)`` in the palette's colours; black where they are none of the classes.

    Example:
        >>> import torch
        >>> from pixelnet_triton.recipes.pictures import class_colours
        >>> class_colours(torch.tensor([[1, 255]]), [(0, 0, 9), (200, 0, 0)]).tolist()
        [[[200, 0, 0], [0, 0, 0]]]
    """
    colours = np.zeros((256, 3), np.uint8)
    colours[:] = UNKNOWN
    colours[: len(palette)] = palette
    return colours[labels.numpy().astype(np.uint8)]


def overlay(image: Tensor, colours: Picture, share: float = 0.5) -> Picture:
    """`colours` over an image ``(3, H, W)`` in [0, 1], of which 1 - `share` shines through."""
    photograph = image.clamp(0, 1).permute(1, 2, 0).numpy() * 255
    return ((1 - share) * photograph + share * colours).round().astype(np.uint8)


def edge_grey(edges: Tensor) -> Picture:
    """Edges ``(H, W)`` in [0, 1], dark on white as papers print them; unknown ones (255) grey."""
    ink = edges.float().where(edges <= 1, 0.25).clamp(0, 1).numpy()
    return np.repeat(((1 - ink) * 255).round().astype(np.uint8)[..., None], 3, axis=2)


def normal_colours(normals: Tensor) -> Picture:
    """Normals n ``(3, H, W)`` as (n + 1) / 2, the code of NYUv2's files; unknown ones black."""
    known = (normals != 0).any(0).numpy()
    vectors = normals.permute(1, 2, 0).numpy()
    return (known[..., None] * (vectors + 1) / 2 * 255).round().astype(np.uint8)


def depth_colours(depth: Tensor, limits: tuple[float, float] | None = None) -> Picture:
    """Depths ``(H, W)`` in metres, near ones bright; unknown ones (0) black.

    Args:
        depth: in metres.
        limits: the depths at the ends of the colours; by default those of the picture's own
            second and 98th percentile.
    """
    matplotlib = needed("matplotlib", "pictures of depths", "matplotlib", "pixelnet-triton[plot]")
    metres: Any = depth.numpy()
    known = metres > 0
    if limits is None:
        limits = tuple(np.percentile(metres[known], (2, 98))) if known.any() else (0.0, 1.0)
    low, high = limits
    place = np.clip((metres - low) / max(high - low, 1e-6), 0, 1)
    colours = matplotlib.colormaps["viridis_r"](place)[..., :3] * known[..., None]
    return (colours * 255).round().astype(np.uint8)
