"""The size at which a network sees an image, and its prediction at the image's own size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..data import RandomScale, Resize, Sample
from ..inference import OUTPUTS
from ..models import PixelNet

__all__ = ["View", "naming", "predict_image"]


@dataclass(frozen=True)
class View:
    """A fixed size, or a factor on the size that images have.

    Args:
        size: (height, width) in pixels, whatever the aspect ratio; None leaves it to `scale`.
        scale: factor on height and width.

    Raises:
        ValueError: a scale that is not positive, or both.

    Example:
        >>> from pixelnet_triton.recipes import View
        >>> View(scale=0.5).of(321, 481), View(size=(224, 224)).of(480, 640)
        ((160, 240), (224, 224))
    """

    size: tuple[int, int] | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"scale={self.scale!r}; expected a positive factor")
        if self.size is not None and self.scale != 1:
            raise ValueError(f"size={self.size} and scale={self.scale}; give one of them")

    @property
    def resize(self) -> Callable[..., Sample] | None:
        """The joint transform of image and target; None leaves both."""
        if self.size is not None:
            return Resize(self.size)
        return None if self.scale == 1 else RandomScale((self.scale,))

    def of(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of an image of this size, as the network sees it."""
        if self.size is not None:
            return self.size
        return max(1, round(height * self.scale)), max(1, round(width * self.scale))

    def as_dict(self) -> dict[str, Any]:
        """For JSON; ``View(**...)`` is the way back."""
        return {"size": None if self.size is None else list(self.size), "scale": self.scale}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> View:
        """What :meth:`as_dict` gave."""
        size = fields.get("size")
        return cls(None if size is None else (size[0], size[1]), fields.get("scale", 1.0))


def predict_image(
    model: PixelNet,
    image: Tensor,
    view: View = View(),
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
) -> Tensor:
    """The model's outputs at every pixel of one image, at the image's own size.

    The image is resized to its `view`, as in training, and predicted there; outputs are resized
    back (bilinear), normals brought to length 1 again.

    Args:
        model: any PixelNet, on any device.
        image: float ``(3, H, W)``, RGB in [0, 1].
        view: the size at which the network sees it.
        scales, flip: as for :func:`pixelnet_triton.inference.predict`; relative to the view.

    Returns:
        float32 ``(K, H, W)``, on the CPU.

    Example:
        >>> import torch
        >>> from pixelnet_triton.models import VGG16, PixelMLP, PixelNet
        >>> from pixelnet_triton.recipes import View, predict_image
        >>> backbone = VGG16(("conv1_2",), width=1 / 16)
        >>> model = PixelNet(backbone, PixelMLP(backbone.channels, (), out_features=2))
        >>> predict_image(model, torch.rand(3, 33, 47), View(scale=0.5)).shape
        torch.Size([2, 33, 47])
    """
    height, width = image.shape[-2:]
    size = view.of(height, width)
    weight = next(model.parameters())
    images = image[None].to(weight.device)
    if size != (height, width):
        shrinks = size[0] < height or size[1] < width
        images = F.interpolate(
            images, size, mode="bilinear", align_corners=False, antialias=shrinks
        )
    # Weights are in the precision of the training, bf16-true or another; sizes change in float32.
    outputs = model.predict(images.to(weight.dtype), scales=scales, flip=flip).float()
    if size != (height, width):
        outputs = F.interpolate(outputs, (height, width), mode="bilinear", align_corners=False)
        if model.output == "normals":
            outputs = OUTPUTS["normals"](outputs)
    return outputs[0].cpu()


@contextmanager
def naming(image: object) -> Iterator[None]:
    """Begin what is said of an image, too small an image for example, with its name."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{image}: {error}") from error
