"""From RGB images in [0, 1] to what pretrained weights were trained on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["ImageNormalization"]


class ImageNormalization(nn.Module):
    r"""Channel order, scale, mean and deviation: ``(scale * x - mean) / std``, per channel.

    Which one is needed is a property of the weights, not of the architecture:

    ================  =======  ============  ===========================  ==================
    weights           order    scale         mean                         std
    ================  =======  ============  ===========================  ==================
    ``torchvision``   RGB      1             0.485, 0.456, 0.406          0.229, 0.224, 0.225
    ``caffe``         **BGR**  255           103.939, 116.779, 123.68     1
    ================  =======  ============  ===========================  ==================

    The paper's networks start from the Caffe VGG-16, hence the second row; its mean is in the
    order blue, green, red.

    Args:
        mean, std: one number a channel, in the order of the output and in units of scale * x.
        scale: what images in [0, 1] are multiplied by.
        bgr: whether to reverse the channels, RGB to BGR.

    Example:
        >>> import torch
        >>> from pixelnet_triton.models import ImageNormalization
        >>> red = torch.tensor([1.0, 0.0, 0.0])[None, :, None, None]
        >>> ImageNormalization.caffe()(red).flatten()
        tensor([-103.9390, -116.7790,  131.3200])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        scale: float = 1.0,
        bgr: bool = False,
    ) -> None:
        super().__init__()
        if len(mean) != len(std):
            raise ValueError(f"mean={mean!r} and std={std!r}; expected one number each a channel")
        # Constants of the weights, not weights: they do not belong into checkpoints.
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        self.scale = scale
        self.bgr = bgr

    @classmethod
    def torchvision(cls) -> ImageNormalization:
        """For the weights of torchvision (and of most of timm and transformers)."""
        return cls((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    @classmethod
    def caffe(cls) -> ImageNormalization:
        """For the weights of the Caffe VGG-16, from which the paper's networks start."""
        return cls((103.939, 116.779, 123.68), (1.0, 1.0, 1.0), scale=255.0, bgr=True)

    def forward(self, images: Tensor) -> Tensor:
        """``(B, C, H, W)``, RGB in [0, 1], to the same shape, normalised."""
        images = images.flip(1) if self.bgr else images
        return (images * self.scale - self.mean) / self.std

    def extra_repr(self) -> str:
        mean, std = self.mean.flatten().tolist(), self.std.flatten().tolist()
        return f"mean={mean}, std={std}, scale={self.scale}, bgr={self.bgr}"
