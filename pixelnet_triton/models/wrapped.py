"""`WrappedBackbone`: another library's backbone with a normalisation in front, frozen if asked."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..tools.images import check_images
from .backbones import LAYOUTS, backbone_channels, backbone_strides, feature_maps

__all__ = ["WrappedBackbone"]


class WrappedBackbone(nn.Module):
    """A network that returns several maps, which normalises its images, frozen or not.

    Args:
        network: whatever :func:`~pixelnet_triton.models.backbones.feature_maps` understands: timm's
            ``features_only`` networks, transformers' ``AutoBackbone`` and so on.
        normalization: a module for images that are RGB in [0, 1], such as
            ``ImageNormalization.torchvision()``; None takes them as they come.
        frozen: whether the network is a fixed function: no gradients, no graph, and evaluation mode
            even after ``.train()``.
        fixed_statistics: whether batch normalisation stays in evaluation mode even after
            ``.train()``, for fine-tuning with few images in a mini-batch.
        layout: ``"NCHW"``, or ``"NHWC"`` for networks that return channels last as a shape (timm's
            ``model.output_fmt``).

    Raises:
        TypeError, ValueError: the network is no module, or an unknown layout.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from pixelnet_triton.models import VGG16, ImageNormalization, WrappedBackbone
        >>> vgg = VGG16(("conv1_2", "conv3_3"), width=1 / 16)
        >>> backbone = WrappedBackbone(vgg, ImageNormalization.torchvision(), frozen=True)
        >>> backbone.channels, any(p.requires_grad for p in backbone.parameters())
        ((4, 16), False)
    """

    def __init__(
        self,
        network: nn.Module,
        normalization: nn.Module | None = None,
        *,
        frozen: bool = False,
        fixed_statistics: bool = False,
        layout: str = "NCHW",
    ) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise TypeError(f"network is a {type(network).__name__}; expected a torch.nn.Module")
        if layout not in LAYOUTS:
            raise ValueError(f"layout={layout!r} is unknown; use one of {LAYOUTS}")
        self.network = network
        self.normalization = normalization
        self.frozen = frozen
        self.fixed_statistics = fixed_statistics
        self.layout = layout
        self.channels = backbone_channels(network)
        self.strides = backbone_strides(network)
        # From a patch size, which maps may not keep to: PixelNet looks at them.
        self.strides_concluded = not hasattr(network, "strides")
        self.rebuilt_by: dict[str, Any] = {}  # options that replace a download, as JSON
        if frozen:
            network.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> WrappedBackbone:
        """Training or evaluation mode; what is `frozen` or fixed stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.network.eval()
        elif self.fixed_statistics:
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps ``(B, C_i, H_i, W_i)`` of images ``(B, 3, H, W)``."""
        check_images(images)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return feature_maps(self._output(self._normalized(images)), self.layout)

    def _normalized(self, images: Tensor) -> Tensor:
        return images if self.normalization is None else self.normalization(images)

    def _output(self, images: Tensor) -> Any:
        return self.network(images)

    def extra_repr(self) -> str:
        return f"frozen={self.frozen}, fixed_statistics={self.fixed_statistics}"
