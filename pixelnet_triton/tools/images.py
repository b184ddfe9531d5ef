"""Images come as one tensor, or as a list of several sizes that is padded to one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["check_images", "padded"]


def padded(images: Sequence[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
    """Images ``(C, H_b, W_b)`` as one tensor ``(B, C, H, W)``, zeros right and below; their sizes.

    Raises:
        TypeError, ValueError: they are no images, or of several numbers of channels.
    """
    if len(images) == 0:
        raise ValueError("images is an empty list; expected at least one image (C, H, W)")
    for b, image in enumerate(images):
        if not isinstance(image, Tensor):
            raise TypeError(f"images[{b}] is a {type(image).__name__}; expected a tensor (C, H, W)")
        if image.dim() != 3 or image.shape[0] != images[0].shape[0] or 0 in image.shape:
            raise ValueError(
                f"images[{b}] has shape {tuple(image.shape)}; expected (C, H, W) with the "
                f"C = {images[0].shape[0]} channels of images[0]. Take a batch apart with unbind"
            )
    sizes = [(image.shape[1], image.shape[2]) for image in images]
    height, width = max(h for h, _ in sizes), max(w for _, w in sizes)
    canvases = [
        F.pad(image, (0, width - w, 0, height - h))
        for image, (h, w) in zip(images, sizes, strict=True)
    ]
    return torch.stack(canvases), sizes


def check_images(images: Any) -> None:
    """Raise `ValueError`, with the remedy, unless images are a tensor ``(B, C, H, W)``."""
    if isinstance(images, Tensor):
        if images.dim() != 4:
            raise ValueError(
                f"images is {tuple(images.shape)}; expected a tensor (B, C, H, W). Add a batch "
                "dimension with images[None]"
            )
        return
    came = type(images).__name__
    if isinstance(images, (list, tuple)):
        shapes = [tuple(i.shape) if isinstance(i, Tensor) else type(i).__name__ for i in images[:3]]
        came = f"a {came} of {', '.join(map(str, shapes))}{', ...' if len(images) > 3 else ''}"
    raise ValueError(
        f"images is {came}; expected one tensor (B, C, H, W). Stack images of one size with "
        "torch.stack; pad others on the right and below, F.pad(image, (0, W - w, 0, H - h)), so "
        "that points keep their pixels, and stack them; or call once an image, with image[None]"
    )
