"""`feature_maps`: what backbones of other libraries return, as the list of maps a call takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

__all__ = ["feature_maps"]

LAYOUTS = ("NCHW", "NHWC")


def feature_maps(
    output: Any, *, layout: Any = "NCHW", keys: Sequence[str] | None = None
) -> list[Tensor]:
    """A backbone's output as a list of maps ``(B, C_i, H_i, W_i)``, without copying any.

    Args:
        output: a list or tuple of maps (timm with ``features_only=True``); a dictionary of maps
            (torchvision's ``create_feature_extractor`` and FPN, detectron2); an object with
            ``.feature_maps`` (transformers' ``AutoBackbone``); or a single map.
        layout: how the maps' dimensions are ordered, ``"NCHW"`` or ``"NHWC"``. timm's models say
            so: pass ``model.output_fmt``.
        keys: which maps of a dictionary to take, in this order; None takes all in their own.

    Returns:
        maps in the output's order. Those of NHWC are channels_last in memory, the fastest layout.

    Raises:
        TypeError: no maps can be found in `output`, or one is no tensor.
        ValueError: a map has no four dimensions, `layout` is unknown, or a key is not there.

    Example:
        >>> import torch
        >>> from pixelnet_triton.integrations import feature_maps
        >>> output = {"stem": torch.randn(1, 56, 56, 64), "top": torch.randn(1, 7, 7, 512)}
        >>> [tuple(f.shape) for f in feature_maps(output, layout="NHWC")]
        [(1, 64, 56, 56), (1, 512, 7, 7)]
    """
    name = str(getattr(layout, "value", layout)).upper()  # a str, or timm's enumeration Format
    if name not in LAYOUTS:
        raise ValueError(
            f"layout={layout!r} is unknown; use one of {LAYOUTS}. Tokens (NLC) have to be reshaped "
            "to maps first"
        )
    maps = list(_maps(output, keys))
    for i, feature in enumerate(maps):
        if not isinstance(feature, Tensor):
            raise TypeError(
                f"map {i} of the output is a {type(feature).__name__}; expected a torch.Tensor"
            )
        if feature.dim() != 4:
            raise ValueError(
                f"map {i} of the output has shape {tuple(feature.shape)}; expected 4 dimensions "
                f"{name}. Take the backbone's spatial maps, not its tokens or pooled vector"
            )
    return maps if name == "NCHW" else [feature.permute(0, 3, 1, 2) for feature in maps]


def _maps(output: Any, keys: Sequence[str] | None) -> Iterable[Any]:
    maps = getattr(output, "feature_maps", None)
    if maps is not None:  # first: transformers' outputs are dictionaries as well
        output = maps
    if isinstance(output, Mapping):
        missing = [key for key in keys or () if key not in output]
        if missing:
            raise ValueError(f"keys {missing} are not in the output, which has {list(output)}")
        return output.values() if keys is None else [output[key] for key in keys]
    if keys is not None:
        raise ValueError(
            f"keys={list(keys)} selects from a dictionary; the output is a {type(output).__name__}"
        )
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Sequence) and not isinstance(output, str):
        return output
    raise TypeError(
        f"output is a {type(output).__name__} without feature_maps; expected a list, tuple or "
        "dictionary of maps. Ask the backbone for its feature maps (timm: features_only=True, "
        "transformers: AutoBackbone, torchvision: create_feature_extractor)"
    )
