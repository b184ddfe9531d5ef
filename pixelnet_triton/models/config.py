"""`NetworkConfig`: what a PixelNet is made of, as data, and `build`, which makes it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from .backbones import backbone_channels
from .head import GaussianInit, PixelMLP
from .pixelnet import PixelNet
from .registry import bind_options, make_backbone

__all__ = ["NetworkConfig", "build"]


@dataclass(frozen=True)
class NetworkConfig:
    """A PixelNet without its weights, as JSON can hold it.

    Args:
        backbone: a name of :data:`~pixelnet_triton.models.registry.BACKBONES`: ``"vgg16"``,
            ``"efficientnet-lite0"`` (1, 2), ``"timm:NAME"``, ``"transformers:NAME"``, or one given
            by :func:`register_backbone`.
        backbone_options: of :class:`VGG16`, :func:`efficientnet_lite`, ``timm.create_model``,
            ``AutoBackbone.from_pretrained``; `weights` says which pretrained ones.
        head: options of :class:`PixelMLP` but for `in_channels`, which the backbone has. A
            :class:`GaussianInit` is a dict of its fields.
        output, layout: of :class:`PixelNet`.
        task: what the network was made for, for whoever loads it: classes, colours and so on. It is
            kept and not read here.

    Raises:
        TypeError: an option is not JSON: no number, string, bool, None, list, or dict of these.

    Example:
        >>> from pixelnet_triton.models import NetworkConfig, build
        >>> config = NetworkConfig(
        ...     "vgg16", {"width": 0.125}, {"hidden_features": [64], "out_features": 11}, "softmax"
        ... )
        >>> NetworkConfig.from_json(config.to_json()) == config
        True
        >>> build(config).config == config
        True
    """

    backbone: str
    backbone_options: dict[str, Any] = field(default_factory=dict)
    head: dict[str, Any] = field(default_factory=dict)
    output: str | None = None
    layout: str = "NCHW"
    task: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            try:
                plain = json.loads(json.dumps(value, default=_as_json))
            except (TypeError, ValueError) as error:
                raise TypeError(
                    f"{one.name} is not JSON: {error}; expected numbers, strings, bools, "
                    "None, lists, and dicts of these"
                ) from error
            _check_keys(one.name, value)
            # As it will be read again: tuples are lists, and nothing is shared with the caller.
            object.__setattr__(self, one.name, plain)

    def __hash__(self) -> int:
        return hash(json.dumps(self.to_dict(), sort_keys=True))

    def to_dict(self) -> dict[str, Any]:
        """The fields, as plain values."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> NetworkConfig:
        """Undo :meth:`to_dict`.

        Raises:
            ValueError: these are not the fields of a configuration.
        """
        known = [one.name for one in dataclasses.fields(NetworkConfig)]
        unknown = sorted(set(fields) - set(known))
        if unknown or "backbone" not in fields:
            problem = f"unknown {unknown}" if unknown else "no backbone"
            raise ValueError(
                f"the configuration of a network has {problem}; expected {known}. A file of a "
                "newer version needs that version of pixelnet_triton"
            )
        return NetworkConfig(**fields)

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.to_dict())

    @staticmethod
    def from_json(text: str) -> NetworkConfig:
        """Undo :meth:`to_json`; raises `ValueError` as :meth:`from_dict`, or for other text."""
        fields = json.loads(text)
        if not isinstance(fields, dict):
            raise ValueError(f"the text is a JSON {type(fields).__name__}; expected an object")
        return NetworkConfig.from_dict(fields)


def _check_keys(name: str, value: Any) -> None:
    """Raise unless all keys are strings, which JSON would make of others."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{name} has the key {key!r}; expected strings, as JSON has them")
            _check_keys(name, inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _check_keys(name, inner)


def _as_json(value: Any) -> Any:
    if isinstance(value, GaussianInit):
        return dataclasses.asdict(value)
    raise TypeError(f"a {type(value).__name__} has no JSON")


def build(config: NetworkConfig, *, pretrained: bool = True) -> PixelNet:
    """The network of a configuration, which keeps it as ``model.config``.

    Args:
        config: see :class:`NetworkConfig`.
        pretrained: whether the backbone gets the pretrained weights that its options ask for; False
            where weights come from a file, and nothing may be fetched.

    Returns:
        A :class:`PixelNet`, randomly initialised but for those weights.

    Raises:
        ValueError: an unknown backbone or option, or parts that do not fit.
        ModuleNotFoundError: the backbone's package is missing.
    """
    backbone, options = make_backbone(
        config.backbone, config.backbone_options, pretrained=pretrained
    )
    channels = backbone_channels(backbone)
    if channels is None:
        raise ValueError(
            f"backbone={config.backbone!r} does not say how many channels its maps have; give the "
            "module an attribute channels, or wrap it in TappedBackbone"
        )
    head = dict(config.head)
    if isinstance(head.get("init"), dict):
        head["init"] = bind_options("head['init']", GaussianInit, head["init"])
    if head.get("strides") is not None:
        head["strides"] = [tuple(s) if isinstance(s, list) else s for s in head["strides"]]
    return PixelNet(
        backbone,
        bind_options("head", PixelMLP, {"in_channels": channels, **head}),
        output=config.output,
        layout=config.layout,
        config=dataclasses.replace(config, backbone_options=options),
    )
