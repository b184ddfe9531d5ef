"""Readers of the public data sets, rendered rooms, and joint transforms of images and targets.

>>> from pixelnet_triton.data import CamVid, Compose, RandomCrop, RandomHorizontalFlip
"""

from .bsds import BSDS500, RotatedBSDS500
from .camvid import CamVid
from .context import PascalContext
from .folders import PixelDataset, Sample
from .labelled import LabelledFolder
from .nyu import NYUDepth, NYUNormals
from .scenes import RenderedScenes
from .transforms import (
    ColourScale,
    Compose,
    Normalize,
    Pad,
    RandomCrop,
    RandomHorizontalFlip,
    RandomScale,
    Resize,
    collate,
)
from .voc import PascalVOC

__all__ = [
    "BSDS500",
    "CamVid",
    "ColourScale",
    "Compose",
    "LabelledFolder",
    "NYUDepth",
    "NYUNormals",
    "Normalize",
    "Pad",
    "PascalContext",
    "PascalVOC",
    "PixelDataset",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomScale",
    "RenderedScenes",
    "Resize",
    "RotatedBSDS500",
    "Sample",
    "collate",
]
