"""PixelNet itself: backbones, the MLP head, and the network of both.

>>> from pixelnet_triton.models import VGG16, PixelMLP, PixelNet
"""

from .config import NetworkConfig, build
from .efficientnet import efficientnet_lite
from .head import GaussianInit, PixelMLP
from .normalization import ImageNormalization
from .pixelnet import PixelNet
from .registry import BACKBONES, register_backbone
from .tapped import TappedBackbone
from .vgg import VGG16
from .wrapped import WrappedBackbone

__all__ = [
    "BACKBONES",
    "VGG16",
    "GaussianInit",
    "ImageNormalization",
    "NetworkConfig",
    "PixelMLP",
    "PixelNet",
    "TappedBackbone",
    "WrappedBackbone",
    "build",
    "efficientnet_lite",
    "register_backbone",
]
