"""Images come as one tensor, not as the lists that loaders of differently sized images give."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["check_images"]


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
