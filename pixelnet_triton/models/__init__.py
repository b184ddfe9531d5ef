"""PixelNet itself: backbones, the MLP head, and the network of both.

>>> from pixelnet_triton.models import VGG16, PixelMLP, PixelNet
"""

from .efficientnet import efficientnet_lite
from .head import GaussianInit, PixelMLP
from .normalization import ImageNormalization
from .pixelnet import PixelNet
from .tapped import TappedBackbone
from .vgg import VGG16

__all__ = [
    "VGG16",
    "GaussianInit",
    "ImageNormalization",
    "PixelMLP",
    "PixelNet",
    "TappedBackbone",
    "efficientnet_lite",
]
