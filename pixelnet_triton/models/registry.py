"""Backbones by name, so that a file can say which one it needs."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from .caffe import load_caffe
from .efficientnet import efficientnet_lite
from .normalization import ImageNormalization, named_normalization
from .vgg import VGG16
from .wrapped import WrappedBackbone

__all__ = ["BACKBONES", "bind_options", "make_backbone", "register_backbone"]

Maker = Callable[..., nn.Module]


def _vgg16(weights: str | None = None, **options: Any) -> nn.Module:
    """:class:`VGG16`; `weights` is a .caffemodel, another file, or "imagenet" for torchvision's."""
    backbone: VGG16 = bind_options("backbone='vgg16'", VGG16, options)
    if weights is not None and weights.endswith(".caffemodel"):
        load_caffe(backbone, weights)
    elif weights is not None:
        backbone.load_torchvision(None if weights == "imagenet" else weights)
    return backbone


def _timm(
    name: str,
    *,
    weights: str | None = "pretrained",
    frozen: bool = False,
    fixed_statistics: bool = False,
    **options: Any,
) -> nn.Module:
    """timm's network of maps, with the normalisation of its weights."""
    try:
        import timm
    except ImportError as error:
        raise ModuleNotFoundError(
            f"backbone='timm:{name}' needs timm, which cannot be imported: pip install timm"
        ) from error
    network = timm.create_model(name, pretrained=weights is not None, features_only=True, **options)
    numbers = [network.pretrained_cfg[of] for of in ("mean", "std")]
    channels = options.get("in_chans", 3)
    if channels != len(numbers[0]):  # of other channels than colours nobody knows better
        numbers = [[sum(three) / len(three)] * channels for three in numbers]
    return WrappedBackbone(
        network,
        ImageNormalization(*numbers),
        frozen=frozen,
        fixed_statistics=fixed_statistics,
        layout=getattr(network, "output_fmt", "NCHW"),
    )


def _transformers(
    name: str,
    *,
    weights: str | None = "pretrained",
    config: dict[str, Any] | None = None,
    normalization: str | None = "torchvision",
    frozen: bool = False,
    fixed_statistics: bool = False,
    **options: Any,
) -> nn.Module:
    """transformers' ``AutoBackbone``; `config` is that of the network, which needs no download."""
    try:
        from transformers import AutoBackbone, AutoConfig
    except ImportError as error:
        raise ModuleNotFoundError(
            f"backbone='transformers:{name}' needs transformers, which cannot be imported: "
            "pip install transformers"
        ) from error
    if config is None:
        made_of = AutoConfig.from_pretrained(name, **options)
    else:
        if "model_type" not in config:
            raise ValueError(
                f"config has the keys {sorted(config)}; expected model_type among them, as "
                "config.to_dict() has it"
            )
        # Maps are asked for by name or by number: the one takes the other's place.
        outputs = {"out_features", "out_indices"}
        asked = outputs if outputs & options.keys() else set()
        made_of = AutoConfig.for_model(
            **{name: value for name, value in config.items() if name not in asked}, **options
        )
    network = AutoBackbone.from_config(made_of)
    if weights is not None:
        # AutoBackbone.from_pretrained asks the hub first, and so has no use for a folder.
        network = type(network).from_pretrained(name, config=made_of)
    backbone = WrappedBackbone(
        network,
        named_normalization(normalization),
        frozen=frozen,
        fixed_statistics=fixed_statistics,
    )
    backbone.rebuilt_by = {"config": json.loads(network.config.to_json_string())}
    return backbone


#: Makers of backbones by name; of ``"timm:NAME"`` the part before the colon.
BACKBONES: dict[str, Maker] = {
    "vgg16": _vgg16,
    "efficientnet-lite0": partial(efficientnet_lite, 0),
    "efficientnet-lite1": partial(efficientnet_lite, 1),
    "efficientnet-lite2": partial(efficientnet_lite, 2),
    "timm": _timm,
    "transformers": _transformers,
}


def register_backbone(name: str, maker: Maker) -> None:
    """Give a backbone of one's own a name, by which files and configurations call it.

    Args:
        name: new, without a colon.
        maker: called with the options of the configuration, which are JSON; returns the backbone.
            An option called `weights` is for pretrained weights: a network that is loaded from a
            file is made with ``weights=None``, since the file has its weights.

    Raises:
        ValueError: the name is taken by another maker, or has a colon.
        TypeError: the maker cannot be called.

    Example:
        >>> from torch import nn
        >>> from pixelnet_triton.models import NetworkConfig, TappedBackbone, build
        >>> from pixelnet_triton.models import register_backbone
        >>> def stem(width: int = 8) -> nn.Module:
        ...     return TappedBackbone(nn.Sequential(nn.Conv2d(3, width, 2, stride=2)), ("0",))
        >>> register_backbone("stem", stem)
        >>> build(NetworkConfig("stem", {"width": 4}, {"out_features": 2})).head.in_channels
        (4,)
    """
    if not callable(maker):
        raise TypeError(f"maker is a {type(maker).__name__}; expected a function of the options")
    if not isinstance(name, str) or not name or ":" in name:
        raise ValueError(f"name={name!r}; expected a name without a colon")
    if BACKBONES.get(name, maker) is not maker:
        raise ValueError(f"name={name!r} is taken by {BACKBONES[name]!r}; choose another")
    BACKBONES[name] = maker


def make_backbone(
    name: str, options: dict[str, Any], *, pretrained: bool
) -> tuple[nn.Module, dict[str, Any]]:
    """The backbone of that name, and the options by which it is made again without a network.

    Args:
        name: one of :data:`BACKBONES`, with ``:NAME`` behind it where the maker wants one.
        options: the maker's.
        pretrained: whether to load pretrained weights, if the options ask for them.

    Raises:
        ValueError: an unknown name, or options that the maker does not take.
        ModuleNotFoundError: a package is missing.
    """
    kind, _, inner = name.partition(":")
    if kind not in BACKBONES:
        raise ValueError(
            f"backbone={name!r} is unknown; expected one of {sorted(BACKBONES)} (timm:NAME, "
            "transformers:NAME), or a name given by register_backbone(name, maker) before"
        )
    maker = BACKBONES[kind]
    if inner and not _takes_name(maker):
        raise ValueError(f"backbone={name!r}; {kind!r} takes no name behind it: use {kind!r}")
    if inner:
        maker = partial(maker, inner)
    if not pretrained and {"weights"} & {*inspect.signature(maker).parameters, *options}:
        backbone = bind_options(f"backbone={name!r}", maker, {**options, "weights": None})
    else:
        backbone = bind_options(f"backbone={name!r}", maker, options)
    return backbone, {**options, **getattr(backbone, "rebuilt_by", {})}


def _takes_name(maker: Maker) -> bool:
    """Has it a first parameter that must be given, by position?"""
    parameters = list(inspect.signature(maker).parameters.values())[:1]
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(p.kind in by_position and p.default is p.empty for p in parameters)


def bind_options(what: str, maker: Callable[..., Any], options: dict[str, Any]) -> Any:
    """``maker(**options)``, where options it does not take are a `ValueError` about `what`."""
    try:
        inspect.signature(maker).bind(**options)
    except TypeError as error:
        names = [n for n in inspect.signature(maker).parameters if n != "options"]
        raise ValueError(f"{what}: {error}; the options are {names}") from error
    return maker(**options)
