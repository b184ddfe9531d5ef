"""Any network that returns several maps, in the place of :class:`VGG16`.

What libraries return, and what becomes of it:

===========================================  =======================================
timm, ``features_only=True``                 a list of maps; some models in NHWC
torchvision, ``create_feature_extractor``    a dict of maps, in the order of its keys
transformers, ``AutoBackbone``               an output with ``feature_maps``
===========================================  =======================================

Vision transformers that return sequences of tokens: :func:`maps_of_tokens`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

__all__ = [
    "LAYOUTS",
    "backbone_channels",
    "backbone_strides",
    "check_patches",
    "feature_maps",
    "maps_of_tokens",
]

LAYOUTS = ("NCHW", "NHWC")


def feature_maps(output: Any, layout: str = "NCHW") -> list[Tensor]:
    """The maps in a backbone's output, each ``(B, C_i, H_i, W_i)``.

    Args:
        output: a list or tuple of maps, a mapping from names to maps, or an object whose
            attribute ``feature_maps`` is one of these.
        layout: ``"NCHW"``, or ``"NHWC"`` for maps ``(B, H_i, W_i, C_i)``; they become views.
            timm's models say which: pass ``model.output_fmt``.

    Raises:
        TypeError, ValueError: the output holds something other than maps, or no maps.

    Example:
        >>> import torch
        >>> from pixelnet_triton.models.backbones import feature_maps
        >>> output = {"c2": torch.rand(1, 8, 8, 32), "c3": torch.rand(1, 4, 4, 64)}
        >>> [tuple(m.shape) for m in feature_maps(output, layout="NHWC")]
        [(1, 32, 8, 8), (1, 64, 4, 4)]
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout={layout!r} is unknown; use one of {LAYOUTS}")
    # The attribute goes first: transformers' outputs are mappings too, and may hold more than maps.
    collection = getattr(output, "feature_maps", output)
    if isinstance(collection, Mapping):
        collection = list(collection.values())
    if isinstance(collection, Tensor) or not isinstance(collection, Iterable):
        raise TypeError(
            f"the backbone returned a {type(output).__name__}; expected a list, tuple or dict of "
            "maps, or an object with feature_maps. Ask it for its intermediate maps (timm: "
            "features_only=True; torchvision: create_feature_extractor; transformers: "
            "AutoBackbone), or return [map] for a single one"
        )
    maps = list(collection)
    if not maps:
        raise ValueError("the backbone returned no maps; expected at least one")
    for i, one in enumerate(maps):
        if not isinstance(one, Tensor):
            raise TypeError(
                f"map {i} of the backbone is a {type(one).__name__}; expected a tensor {layout}. "
                "Of pairs (map, tokens) pass the maps, [pair[0] for pair in output]"
            )
        if one.dim() != 4:
            raise ValueError(
                f"map {i} of the backbone has shape {tuple(one.shape)}; expected 4 dimensions "
                f"{layout}. Sequences of tokens (B, L, C) become maps by "
                "pixelnet_triton.integrations.maps_of_tokens(tokens, grid, prefix)"
            )
    if layout == "NHWC":
        return [one.permute(0, 3, 1, 2) for one in maps]
    return maps


def maps_of_tokens(
    tokens: Tensor | Iterable[Tensor], grid: tuple[int, int], prefix: int = 0
) -> list[Tensor]:
    """Sequences of tokens as maps: token ``prefix + row * W + column`` is cell (row, column).

    The maps are views, in channels_last but for the tokens left out between the images.

    Args:
        tokens: ``(B, prefix + H * W, C)``, or several of these: transformers' ``hidden_states``,
            timm's ``forward_features`` or ``forward_intermediates``.
        grid: (H, W) in patches, the image's size divided by the patch size.
        prefix: how many tokens that are no patches come first, the class token and registers:
            timm's ``model.num_prefix_tokens``, transformers' 1 + ``config.num_register_tokens``.

    Returns:
        Maps ``(B, C, H, W)``, one for each sequence. Call with ``strides=[patch_size] * M`` where
        patches do not divide the image.

    Raises:
        TypeError, ValueError: these are no tokens of such a grid; the message names the remedy.

    Example:
        >>> import torch
        >>> from pixelnet_triton.models.backbones import maps_of_tokens
        >>> hidden_states = [torch.rand(2, 1 + 14 * 14, 32) for _ in range(3)]
        >>> [tuple(m.shape) for m in maps_of_tokens(hidden_states[1:], (14, 14), prefix=1)]
        [(2, 32, 14, 14), (2, 32, 14, 14)]
    """
    rows, columns = (int(n) for n in grid)
    maps = []
    for i, one in enumerate([tokens] if isinstance(tokens, Tensor) else tokens):
        if not isinstance(one, Tensor):
            raise TypeError(
                f"tokens[{i}] is a {type(one).__name__}; expected a tensor (B, L, C). Of pairs "
                "(patches, prefix) pass the patches, [pair[0] for pair in tokens]"
            )
        if one.dim() != 3:
            raise ValueError(
                f"tokens[{i}] has shape {tuple(one.shape)}; expected (B, L, C). Maps need no "
                "conversion; maps (B, H, W, C) become (B, C, H, W) by feature_maps(..., 'NHWC')"
            )
        others = one.shape[1] - rows * columns
        if prefix < 0 or others != prefix:
            raise ValueError(
                f"tokens[{i}] has {one.shape[1]} tokens; expected {prefix} + {rows} * {columns} "
                f"for prefix={prefix} and grid={(rows, columns)}. "
                + (
                    f"If the first {others} are class and register tokens, pass prefix={others}"
                    if others >= 0
                    else "The grid is the image's (height, width) divided by the patch size"
                )
            )
        maps.append(one[:, prefix:].unflatten(1, (rows, columns)).permute(0, 3, 1, 2))
    return maps


def backbone_channels(backbone: nn.Module) -> tuple[int, ...] | None:
    """C_i of each map, where the backbone says so before it computes; else None.

    :class:`VGG16` and transformers have ``channels``, timm has ``feature_info.channels()``.
    """
    channels = getattr(backbone, "channels", None)
    if channels is None:
        channels = getattr(getattr(backbone, "feature_info", None), "channels", None)
    if callable(channels):
        channels = channels()
    if not isinstance(channels, Sequence) or not all(isinstance(c, int) for c in channels):
        return None
    return tuple(channels)


def backbone_strides(backbone: nn.Module) -> tuple[float | tuple[float, float], ...] | None:
    """Image pixels per cell of each map, where the backbone says so before it computes; else None.

    :class:`VGG16` has ``strides``. A vision transformer's maps all have the patch size: a patch is
    a cell, and what remains at the right and at the bottom belongs to none, so the ratio of the
    sizes would place points wrongly on images that patches do not divide. A transformers backbone
    gives ``config.patch_size`` where the network keeps one resolution, a timm backbone
    ``feature_info.reduction()`` where it is the patch size for every map.
    """
    strides = getattr(backbone, "strides", None)
    if isinstance(strides, Sequence):
        return tuple(strides)
    channels = backbone_channels(backbone)
    if channels is None:
        return None
    config = getattr(backbone, "config", None)
    # Hierarchies (Swin, ConvNeXt ...) list depths, BEiT's pyramid resizes its maps.
    one_resolution = not hasattr(config, "depths") and not getattr(config, "add_fpn", False)
    patch = _patch(getattr(config, "patch_size", None)) if one_resolution else None
    if patch is None:
        inner = getattr(backbone, "model", backbone)
        patch = _patch(getattr(getattr(inner, "patch_embed", None), "patch_size", None))
        reduction = getattr(getattr(backbone, "feature_info", None), "reduction", None)
        reductions = list(reduction()) if callable(reduction) else []
        if patch is None or reductions != [patch[0]] * len(channels) or patch[0] != patch[1]:
            return None
    vertical, horizontal = patch
    stride = vertical if vertical == horizontal else (vertical, horizontal)
    return (stride,) * len(channels)


def _patch(size: Any) -> tuple[int, int] | None:
    """(height, width) of a patch given as one integer or two; else None."""
    if isinstance(size, int):
        return size, size
    if isinstance(size, Sequence) and len(size) == 2 and all(isinstance(n, int) for n in size):
        return size[0], size[1]
    return None


def check_patches(
    maps: Sequence[Tensor], strides: Sequence[Any], image_size: tuple[int, int], layout: str
) -> None:
    """Raise unless maps of an image have a cell for each whole stride, or for a part of one.

    Args:
        maps: ``(B, C_i, H_i, W_i)``.
        strides: what :func:`backbone_strides` gave.
        image_size: (H, W).
        layout: of the backbone, for the message.
    """
    for i, (one, stride) in enumerate(zip(maps, strides, strict=True)):
        steps = stride if isinstance(stride, tuple) else (stride, stride)
        for cells, step, pixels in zip(one.shape[2:], steps, image_size, strict=True):
            if not pixels // step <= cells <= -(-pixels // step):
                raise ValueError(
                    f"map {i} of the backbone is {tuple(one.shape[2:])} cells for images of "
                    f"{image_size} pixels ({layout}), which is no stride of {stride}, its patch "
                    "size. Set backbone.strides to the image pixels per cell of each map"
                )
