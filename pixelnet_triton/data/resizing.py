"""What transforms do to a sample, by its kind: its parts checked, resized, padded."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tools.values import values_at_hand
from .folders import IGNORE, KINDS, Sample

__all__ = [
    "FILL",
    "are_numbers",
    "check_floating",
    "check_size",
    "pad_sample",
    "parts_of",
    "resize_sample",
]

# What stands in the target where nothing is known.
FILL = {"labels": IGNORE, "edges": IGNORE, "normals": 0, "depth": 0}


def parts_of(sample: Sample) -> tuple[Tensor, Tensor, str]:
    """Image, target and kind, if they are there and fit together.

    Integer and bool targets become int64: bool and int8 cannot hold 255, uint8 no negative
    component, and torch does not flip uint16.
    """
    missing = [key for key in ("image", "target", "kind") if key not in sample]
    if missing:
        raise KeyError(
            f"sample has no {missing[0]!r}; a joint transform needs 'image' (3, H, W), 'target' "
            f"and 'kind', one of {KINDS}"
        )
    image, target, kind = sample["image"], sample["target"], sample["kind"]
    if kind not in KINDS:
        raise ValueError(f"sample['kind']={kind!r} is unknown; use one of {KINDS}")
    dims = 3 if kind == "normals" else 2
    if image.dim() != 3 or target.dim() != dims or image.shape[-2:] != target.shape[-2:]:
        raise ValueError(
            f"image {tuple(image.shape)} and target {tuple(target.shape)} of kind {kind!r}; "
            f"expected (C, H, W) and {'(3, H, W)' if dims == 3 else '(H, W)'} with the same H and W"
        )
    if not target.is_floating_point():
        return image, target.long(), kind
    if kind == "edges":
        raise TypeError(
            f"target of kind 'edges' is {target.dtype}; expected integers, 1 = edge, 0 = none, "
            f"{IGNORE} = ignored. Threshold soft edges first, such as (target > 0.5).long()"
        )
    return image, target, kind


def resize_sample(sample: Sample, size: tuple[int, int]) -> Sample:
    image, target, kind = parts_of(sample)
    if tuple(image.shape[-2:]) == size:
        return {**sample, "target": target}
    shrinks = size[0] < image.shape[-2] or size[1] < image.shape[-1]
    resized = F.interpolate(
        image[None], size, mode="bilinear", align_corners=False, antialias=shrinks
    )[0]
    resized_target = _resize_edges(target, size) if kind == "edges" else _nearest(target, size)
    return {**sample, "image": resized, "target": resized_target}


def _nearest(target: Tensor, size: tuple[int, int]) -> Tensor:
    """The pixel whose area holds the centre of the new one, as bilinear interpolation sees it."""
    rows = _nearest_indices(target.shape[-2], size[0], target.device)
    columns = _nearest_indices(target.shape[-1], size[1], target.device)
    return target[..., rows[:, None], columns]


def _nearest_indices(old: int, new: int, device: torch.device) -> Tensor:
    return ((2 * torch.arange(new, device=device) + 1) * old).div(2 * new, rounding_mode="floor")


def _resize_edges(target: Tensor, size: tuple[int, int]) -> Tensor:
    """Edge if any pixel covered is one, else ignored if any is; nearest where nothing shrinks."""
    if values_at_hand(target):
        strange = target[(target != 0) & (target != 1) & (target != IGNORE)]
        if len(strange):
            raise ValueError(
                f"target of kind 'edges' has the value {int(strange[0])}; expected 1 = edge, 0 = "
                f"none, {IGNORE} = ignored. Map the values first, such as (target > 0).long()"
            )
    height, width = target.shape
    # Enlarged axes take their nearest pixel first; what remains is to shrink.
    larger = (max(size[0], height), max(size[1], width))
    target = _nearest(target, larger)
    # float32: integers have no adaptive pooling
    rank = (target == IGNORE).float() + 2 * (target == 1).float()
    rank = F.adaptive_max_pool2d(rank[None, None], size)[0, 0]
    return torch.tensor([0, IGNORE, 1], device=target.device)[rank.long()]


def pad_sample(sample: Sample, size: tuple[int, int]) -> Sample:
    image, target, kind = parts_of(sample)
    bottom, right = max(0, size[0] - image.shape[-2]), max(0, size[1] - image.shape[-1])
    if bottom == 0 and right == 0:
        return {**sample, "target": target}
    margins = (0, right, 0, bottom)
    fill = FILL[kind]
    return {**sample, "image": F.pad(image, margins), "target": F.pad(target, margins, value=fill)}


def check_size(size: tuple[int, int]) -> None:
    pair = isinstance(size, (tuple, list)) and len(size) == 2
    if not pair or not all(isinstance(n, int) and n >= 1 for n in size):
        raise ValueError(
            f"size={size!r}; expected (height, width), two positive integers, such as (224, 224)"
        )


def are_numbers(values: Any) -> bool:
    """Whether these are one or more finite numbers, in a tuple, a list or an array."""
    try:
        return len(values) > 0 and all(math.isfinite(value) for value in values)
    except TypeError:
        return False


def check_floating(image: Tensor) -> None:
    """uint8 factors and means would be 0 or 1."""
    if not image.is_floating_point():
        raise TypeError(
            f"image is {image.dtype}; expected floating values in [0, 1]. Convert it with "
            ".float() / 255"
        )
