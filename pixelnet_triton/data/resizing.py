"""What transforms do to a sample, by its kind: its parts checked, resized, padded."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .folders import IGNORE, KINDS, Sample

__all__ = ["FILL", "check_size", "pad_sample", "parts_of", "resize_sample"]

# What stands in the target where nothing is known.
FILL = {"labels": IGNORE, "edges": IGNORE, "normals": 0, "depth": 0}


def parts_of(sample: Sample) -> tuple[Tensor, Tensor, str]:
    """Image, target and kind, if they are there and fit together."""
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
    if target.dtype in (torch.uint16, torch.uint32, torch.uint64):
        target = target.long()  # torch stores these, but does not flip them
    return image, target, kind


def resize_sample(sample: Sample, size: tuple[int, int]) -> Sample:
    image, target = sample["image"], sample["target"]
    if tuple(image.shape[-2:]) == size:
        return sample
    shrinks = size[0] < image.shape[-2] or size[1] < image.shape[-1]
    resized = F.interpolate(
        image[None], size, mode="bilinear", align_corners=False, antialias=shrinks
    )[0]
    if sample["kind"] == "edges":
        return {**sample, "image": resized, "target": _resize_edges(target, size)}
    return {**sample, "image": resized, "target": _nearest(target, size)}


def _nearest(target: Tensor, size: tuple[int, int]) -> Tensor:
    """The pixel whose area holds the centre of the new one, as bilinear interpolation sees it."""
    rows = _nearest_indices(target.shape[-2], size[0], target.device)
    columns = _nearest_indices(target.shape[-1], size[1], target.device)
    return target[..., rows[:, None], columns]


def _nearest_indices(old: int, new: int, device: torch.device) -> Tensor:
    return ((2 * torch.arange(new, device=device) + 1) * old).div(2 * new, rounding_mode="floor")


def _resize_edges(target: Tensor, size: tuple[int, int]) -> Tensor:
    """Edge if any pixel covered is one, else ignored if any is; nearest where nothing shrinks."""
    height, width = target.shape
    # Enlarged axes take their nearest pixel first; what remains is to shrink.
    larger = (max(size[0], height), max(size[1], width))
    target = _nearest(target, larger)
    # float32: integers have no adaptive pooling
    rank = (target == IGNORE).float() + 2 * (target == 1).float()
    rank = F.adaptive_max_pool2d(rank[None, None], size)[0, 0]
    return torch.tensor([0, IGNORE, 1], device=target.device)[rank.long()]


def pad_sample(sample: Sample, size: tuple[int, int]) -> Sample:
    image, target = sample["image"], sample["target"]
    bottom, right = max(0, size[0] - image.shape[-2]), max(0, size[1] - image.shape[-1])
    if bottom == 0 and right == 0:
        return sample
    margins = (0, right, 0, bottom)
    fill = FILL[sample["kind"]]
    return {**sample, "image": F.pad(image, margins), "target": F.pad(target, margins, value=fill)}


def check_size(size: tuple[int, int]) -> None:
    if len(size) != 2 or not all(isinstance(n, int) and n >= 1 for n in size):
        raise ValueError(f"size={size!r}; expected (height, width), two positive integers")
