"""From RGB images in [0, 1] to what pretrained weights were trained on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..tools.values import values_at_hand

__all__ = ["NORMALIZATIONS", "ImageNormalization", "named_normalization"]

# Images in [0, 1] stay between these, whatever colours and noise a transform adds.
LOWEST, HIGHEST = -0.5, 2.0
HIGHEST_NORMALISED = 10.0  # no image normalised to deviation 1 has more


class ImageNormalization(nn.Module):
    r"""Channel order, scale, mean and deviation: ``(scale * x - mean) / std``, per channel.

    Which one is needed is a property of the weights, not of the architecture:

    ================  =======  ============  ===========================  ==================
    weights           order    scale         mean                         std
    ================  =======  ============  ===========================  ==================
    ``torchvision``   RGB      1             0.485, 0.456, 0.406          0.229, 0.224, 0.225
    ``caffe``         **BGR**  255           103.939, 116.779, 123.68     1
    ``lite``          RGB      255           127, 127, 127                128, 128, 128
    ================  =======  ============  ===========================  ==================

    The paper's networks start from the Caffe VGG-16, hence the second row; its mean is in the
    order blue, green, red. The third row is EfficientNet-lite's (``MEAN_RGB`` and ``STDDEV_RGB`` of
    Google's efficientnet_lite_builder.py).

    Images of 0 to 255, or normalised before, would come out far from what the weights know. Where
    their values can be read without waiting (on the CPU; on a GPU with
    ``PIXELNET_TRITON_STRICT=1``), a warning says so, once for each module.

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
        self.numbers = {"mean": tuple(mean), "std": tuple(std)}
        # Constants of the weights, not weights: they do not belong in checkpoints.
        for name in self.numbers:
            self.register_buffer(name, self._constant(name), persistent=False)
        self.scale = scale
        self.bgr = bgr
        self._warned = False

    @classmethod
    def torchvision(cls) -> ImageNormalization:
        """For the weights of torchvision (and of most of timm and transformers)."""
        return cls((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    @classmethod
    def caffe(cls) -> ImageNormalization:
        """For the weights of the Caffe VGG-16, from which the paper's networks start."""
        return cls((103.939, 116.779, 123.68), (1.0, 1.0, 1.0), scale=255.0, bgr=True)

    @classmethod
    def lite(cls) -> ImageNormalization:
        """For the weights of EfficientNet-lite."""
        return cls((127.0, 127.0, 127.0), (128.0, 128.0, 128.0), scale=255.0)

    def _constant(self, name: str, device: torch.device | None = None) -> Tensor:
        """(C, 1, 1), in float32 whatever the module's dtype."""
        return torch.tensor(self.numbers[name], dtype=torch.float32, device=device)[:, None, None]

    def _apply(self, fn: Any, recurse: bool = True) -> ImageNormalization:
        """To another device the numbers go anew: from the meta device nothing comes along, nor is
        it in checkpoints, and half precision would round them."""
        super()._apply(fn, recurse)
        for name in self.numbers:
            setattr(self, name, self._constant(name, self.get_buffer(name).device))
        return self

    def forward(self, images: Tensor) -> Tensor:
        """``(B, C, H, W)``, RGB in [0, 1], to the same shape and dtype, normalised.

        Raises:
            TypeError, ValueError: images of integers, or of another number of channels.
        """
        self._check(images)
        self._look_at(images)
        images = images.flip(1) if self.bgr else images
        return ((images * self.scale - self.mean) / self.std).to(images.dtype)

    def _check(self, images: Tensor) -> None:
        if not images.is_floating_point():
            raise TypeError(
                f"images is {images.dtype}; expected floating RGB in [0, 1]. Convert bytes with "
                ".float() / 255"
            )
        channels = len(self.numbers["mean"])
        if images.dim() != 4 or images.shape[1] != channels:
            raise ValueError(
                f"images has shape {tuple(images.shape)}; expected (B, {channels}, H, W), the "
                "channels that mean and std are of"
            )

    def _look_at(self, images: Tensor) -> None:
        """Warn, once, of images that are not in [0, 1]."""
        # Factors on colours leave [0, 1] by less; a scale below 1 is for images of 0 to 255.
        if self._warned or self.scale < 1 or images.numel() == 0 or not values_at_hand(images):
            return
        low, high = (float(value) for value in images.detach().aminmax())
        if low >= LOWEST and high <= HIGHEST:
            return
        self._warned = True
        remedy = (
            "divide images of 0 to 255 by 255"
            if high > HIGHEST_NORMALISED
            else "if they are normalised already, build the backbone with normalization=None"
        )
        warnings.warn(
            f"images ranges over [{low:.4g}, {high:.4g}]; the normalisation expects RGB in [0, 1]: "
            f"{remedy}",
            stacklevel=3,
        )

    def extra_repr(self) -> str:
        mean, std = self.mean.flatten().tolist(), self.std.flatten().tolist()
        return f"mean={mean}, std={std}, scale={self.scale}, bgr={self.bgr}"


NORMALIZATIONS = {
    "torchvision": ImageNormalization.torchvision,
    "caffe": ImageNormalization.caffe,
    "lite": ImageNormalization.lite,
}


def named_normalization(name: str | None) -> ImageNormalization | None:
    """The row of that name in :class:`ImageNormalization`'s table; None for None.

    Raises:
        ValueError: an unknown name.
    """
    if name is None:
        return None
    if name not in NORMALIZATIONS:
        raise ValueError(
            f"normalization={name!r} is unknown; use None or one of {tuple(NORMALIZATIONS)}"
        )
    return NORMALIZATIONS[name]()
