"""Whether a network is what its configuration says, before a file of it is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .normalization import ImageNormalization
from .weights import check_fits

if TYPE_CHECKING:
    from .config import NetworkConfig
    from .pixelnet import PixelNet

__all__ = ["check_described", "plain_name"]

_REMEDY = (
    "Give the model the configuration that it has now, model.config = NetworkConfig(...); "
    "torch.save(model.state_dict(), path) keeps the weights alone"
)
_PLACING = ("activation", "interpolation", "align_corners", "padding_mode", "coordinates")


def plain_name(name: str) -> str:
    """A name in a model without what compiled and checkpointed parts add to it."""
    wrappers = ("_orig_mod", "_checkpoint_wrapped_module")
    return ".".join(part for part in name.split(".") if part not in wrappers)


def check_described(model: PixelNet, config: NetworkConfig, tensors: Mapping[str, Tensor]) -> None:
    """Raise `ValueError` where a network built from `config` would be refused, or be another.

    Args:
        model: the network.
        config: what a file would say of it.
        tensors: its state dict, with plain names.
    """
    try:
        again = _built(config)
        check_fits(tensors, again.state_dict(), "the network that model.config describes")
    except ValueError as error:
        raise ValueError(
            f"the model has changed since it was built, and its file could not be loaded: {error}. "
            f"{_REMEDY}"
        ) from error
    for name, came, described in (
        ("head.first.strides", _strides(model), _strides(again)),
        *(
            (f"head.first.{option}", getattr(model.head.first, option, None), value)
            for option, value in ((o, getattr(again.head.first, o)) for o in _PLACING)
        ),
        ("backbone.normalization", _normalizations(model), _normalizations(again)),
    ):
        if came != described:
            raise ValueError(
                f"the model has changed since it was built, and its file would be of another "
                f"network: {name} is {came}, but {described} in the network that model.config "
                f"describes. {_REMEDY}"
            )


def _built(config: NetworkConfig) -> PixelNet:
    """The network of a configuration without weights, and without a draw of random numbers."""
    from .config import build  # which needs PixelNet

    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return build(config, pretrained=False)
        except (NotImplementedError, RuntimeError):  # a maker that looks at numbers
            with torch.device("cpu"):
                return build(config, pretrained=False)


def _strides(model: PixelNet) -> Any:
    """Of the head, one number for equal ones of both axes."""
    strides = model.head.first.strides
    if strides is None:
        return None
    pairs = [tuple(s) if isinstance(s, (tuple, list)) else (s, s) for s in strides]
    return tuple(y if y == x else (y, x) for y, x in pairs)


def _normalizations(model: nn.Module) -> Any:
    """The constants of every normalisation of images; they are no part of a state dict."""
    return {
        plain_name(name): (module.numbers, module.scale, module.bgr)
        for name, module in model.named_modules()
        if isinstance(module, ImageNormalization)
    }
