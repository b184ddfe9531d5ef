"""Drop-in replacements for what other code bases call, and the way into their trainers.

========================  ==========================================================
:func:`point_sample`      detectron2's and mmcv's function of that name
:func:`point_features`    the same from a list of maps, concatenated (mmsegmentation)
:func:`point_sample_fine_grained_features`    detectron2's, for boxes
:class:`PointHead`        mmsegmentation's PointRend head; its checkpoints load
:class:`FusedLinear`      an existing ``Linear`` or 1x1 convolution as the fused first layer
:func:`feature_maps`      what timm, torchvision and transformers return, as a list of maps
:func:`maps_of_tokens`    the sequences of tokens of vision transformers, as a list of maps
:mod:`.export`            ``torch.export`` and ONNX in plain ATen operators (import it by name)
========================  ==========================================================

:func:`patch` puts them under the functions of detectron2, mmcv, mmseg and transformers.
"""

from ..models.backbones import feature_maps, maps_of_tokens
from .linear import FusedLinear
from .patching import Patch, patch, unpatch
from .point_head import PointHead
from .point_sample import point_features, point_sample, point_sample_fine_grained_features

__all__ = [
    "FusedLinear",
    "Patch",
    "PointHead",
    "feature_maps",
    "maps_of_tokens",
    "patch",
    "point_features",
    "point_sample",
    "point_sample_fine_grained_features",
    "unpatch",
]
