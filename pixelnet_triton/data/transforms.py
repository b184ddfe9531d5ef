"""Joint transforms of an image and its target: callables dict -> dict on torch tensors.

A sample is what the readers of this package give (``image``, ``target``, ``kind``, ``name``; see
:class:`~pixelnet_triton.data.folders.PixelDataset`). Its ``kind`` says how the target is treated:

=========== ================ ============== =====================================
``kind``    when resized     when padded    when mirrored
=========== ================ ============== =====================================
``labels``  nearest          255            moved
``edges``   as below         255            moved
``normals`` nearest          (0, 0, 0)      moved, and the x component negated
``depth``   nearest          0              moved
=========== ================ ============== =====================================

Images are interpolated bilinearly, with a low-pass filter where they shrink. Targets are never
interpolated: the mean of two labels is a third one, that of the normals or depths at two sides of
an edge lies on neither, and unknown pixels would leak into known ones. Edges are one pixel wide, so
where they shrink the nearest pixel would leave a quarter of them, in dashes: a pixel is an edge
there if any pixel that it covers is one. Depths stay in metres whatever the scale.

All randomness comes from torch: from `generator` where one is given, else from the global
generator, which ``DataLoader`` seeds differently in each worker and each epoch. Transforms keep no
state, so they may be shared and pickled; they never write into the sample they get.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from .folders import IGNORE, KINDS, Sample

__all__ = [
    "ColourScale",
    "Compose",
    "Normalize",
    "Pad",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomScale",
    "Resize",
    "collate",
]

_FILL = {"labels": IGNORE, "edges": IGNORE, "normals": 0, "depth": 0}


@dataclass(frozen=True)
class Compose:
    """Apply transforms one after the other.

    Args:
        transforms: those of this module, or functions ``f(sample, generator=...) -> sample``.

    Example:
        >>> import torch
        >>> from pixelnet_triton.data import Compose, RandomCrop, RandomHorizontalFlip, RandomScale
        >>> augment = Compose([RandomScale((0.5, 1)), RandomCrop((32, 32)), RandomHorizontalFlip()])
        >>> sample = {"image": torch.rand(3, 40, 60), "kind": "labels",
        ...           "target": torch.zeros(40, 60, dtype=torch.int64)}
        >>> augment(sample)["image"].shape
        torch.Size([3, 32, 32])
    """

    transforms: Sequence[Callable[..., Sample]]

    def __call__(self, sample: Sample, *, generator: Generator | None = None) -> Sample:
        for transform in self.transforms:
            sample = transform(sample, generator=generator)
        return sample


@dataclass(frozen=True)
class RandomHorizontalFlip:
    """Mirror left and right with a probability; the x component of normals changes its sign.

    Args:
        probability: in [0, 1]; 1 always mirrors.
    """

    probability: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability={self.probability!r}; expected a number in [0, 1]")

    def __call__(self, sample: Sample, *, generator: Generator | None = None) -> Sample:
        image, target, kind = _parts(sample)
        if torch.rand((), generator=generator) >= self.probability:
            return sample
        target = target.flip(-1)
        if kind == "normals":
            target[0].neg_()  # of the copy that flip has made
        return {**sample, "image": image.flip(-1), "target": target}


@dataclass(frozen=True)
class RandomScale:
    """Resize by a factor drawn from `scales`; the paper's segmentation and edges use (0.5, 1.0).

    Args:
        scales: factors of height and width, one of which is drawn with equal probability.
    """

    scales: Sequence[float]

    def __post_init__(self) -> None:
        if not self.scales or not all(s > 0 and math.isfinite(s) for s in self.scales):
            raise ValueError(
                f"scales={self.scales!r}; expected at least one factor, all positive and finite"
            )

    def __call__(self, sample: Sample, *, generator: Generator | None = None) -> Sample:
        _parts(sample)
        scale = self.scales[_integer(len(self.scales), generator)]
        height, width = sample["image"].shape[-2:]
        return _resize(sample, (max(1, round(height * scale)), max(1, round(width * scale))))


@dataclass(frozen=True)
class Resize:
    """Resize to a size, whatever the aspect ratio; the authors train normals at (224, 224).

    Args:
        size: (height, width) in pixels.
    """

    size: tuple[int, int]

    def __post_init__(self) -> None:
        _check_size(self.size)

    def __call__(self, sample: Sample, *, generator: Generator | None = None) -> Sample:
        _parts(sample)
        return _resize(sample, self.size)


@dataclass(frozen=True)
class Pad:
    """Pad at the right and at the bottom up to a size: images with 0, targets with "unknown".

    After :class:`Normalize`, 0 is the mean colour.

    Args:
        size: (height, width) in pixels, at least those of the image.
    """

    size: tuple[int, int]

    def __post_init__(self) -> None:
        _check_size(self.size)

    def __call__(self, sample: Sample, *, generator: Generator | None = None) -> Sample:
        image, _, _ = _parts(sample)
        if image.shape[-2] > self.size[0] or image.shape[-1] > self.size[1]:
            raise ValueError(
                f"image has (height, width) {tuple(image.shape[-2:])}, more than size={self.size}; "
                "Pad only adds. Use Resize or RandomCrop first"
            )
        return _pad(sample, self.size)


@dataclass(frozen=True)
class RandomCrop:
    """Cut out a rectangle at a random place; images that are too small are padded first (`Pad`).

    Args:
        size: (height, width) in pixels.
    """

    size: tuple[int, int]

    def __post_init__(self) -> None:
        _check_size(self.size)

    def __call__(self, sample: Sample, *, generator: Generator | None = None) -> Sample:
        _parts(sample)
        sample = _pad(sample, self.size)
        image, target = sample["image"], sample["target"]
        height, width = self.size
        top = _integer(image.shape[-2] - height + 1, generator)
        left = _integer(image.shape[-1] - width + 1, generator)
        window = (..., slice(top, top + height), slice(left, left + width))
        # Copies: a view would keep the whole image alive, and be sent whole to another process.
        return {**sample, "image": image[window].clone(), "target": target[window].clone()}


@dataclass(frozen=True)
class ColourScale:
    """Multiply each colour channel by a factor of its own, drawn from [low, high].

    The authors' [0.8, 1.3] is the default. Values above 1 are kept, not clipped.

    Args:
        low, high: ends of the range, both positive.
    """

    low: float = 0.8
    high: float = 1.3

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise ValueError(f"low={self.low!r}, high={self.high!r}; expected 0 < low <= high")

    def __call__(self, sample: Sample, *, generator: Generator | None = None) -> Sample:
        image, _, _ = _parts(sample)
        factors = torch.rand(image.shape[0], 1, 1, generator=generator)
        return {**sample, "image": image * (self.low + (self.high - self.low) * factors)}


@dataclass(frozen=True)
class Normalize:
    """(image - mean) / std for each channel.

    Args:
        mean, std: one number for each channel, in units of the image (which is in [0, 1]).
    """

    mean: Sequence[float]
    std: Sequence[float]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise ValueError(
                f"mean={self.mean!r}, std={self.std!r}; expected equally many numbers, one for "
                "each channel, and std positive"
            )

    def __call__(self, sample: Sample, *, generator: Generator | None = None) -> Sample:
        image, _, _ = _parts(sample)
        mean = torch.tensor(self.mean).view(-1, 1, 1)
        std = torch.tensor(self.std).view(-1, 1, 1)
        return {**sample, "image": (image - mean) / std}


def collate(samples: Sequence[Sample]) -> dict[str, object]:
    """A mini-batch of images of any sizes, padded to the largest height and width (`Pad`).

    Give it to ``DataLoader`` as ``collate_fn``.

    Args:
        samples: at least one, all of the same kind.

    Returns:
        ``image (B, 3, H, W)``, ``target (B, H, W)`` or ``(B, 3, H, W)``, ``kind`` (one word), and
        ``name``, a list, if the samples have names.

    Raises:
        ValueError: no samples, or samples of different kinds.
    """
    kinds = sorted({_parts(sample)[2] for sample in samples})
    if len(kinds) != 1:
        raise ValueError(f"samples have the kinds {kinds}; expected at least one sample, all alike")
    size = (
        max(sample["image"].shape[-2] for sample in samples),
        max(sample["image"].shape[-1] for sample in samples),
    )
    padded = [_pad(sample, size) for sample in samples]
    batch: dict[str, object] = {
        key: torch.stack([sample[key] for sample in padded]) for key in ("image", "target")
    }
    batch["kind"] = kinds[0]
    if all("name" in sample for sample in samples):
        batch["name"] = [sample["name"] for sample in samples]
    return batch


def _parts(sample: Sample) -> tuple[Tensor, Tensor, str]:
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
    return image, target, kind


def _resize(sample: Sample, size: tuple[int, int]) -> Sample:
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
    rows = _nearest_indices(target.shape[-2], size[0])
    columns = _nearest_indices(target.shape[-1], size[1])
    return target[..., rows[:, None], columns]


def _nearest_indices(old: int, new: int) -> Tensor:
    return ((2 * torch.arange(new) + 1) * old).div(2 * new, rounding_mode="floor")


def _resize_edges(target: Tensor, size: tuple[int, int]) -> Tensor:
    """Edge if any pixel covered is one, else ignored if any is; nearest where nothing shrinks."""
    height, width = target.shape
    # Enlarged axes take their nearest pixel first; what remains is to shrink.
    larger = (max(size[0], height), max(size[1], width))
    target = _nearest(target, larger)
    rank = (target == IGNORE).float() + 2 * (target == 1).float()
    rank = F.adaptive_max_pool2d(rank[None, None], size)[0, 0]
    return torch.tensor([0, IGNORE, 1])[rank.long()]


def _pad(sample: Sample, size: tuple[int, int]) -> Sample:
    image, target = sample["image"], sample["target"]
    bottom, right = max(0, size[0] - image.shape[-2]), max(0, size[1] - image.shape[-1])
    if bottom == 0 and right == 0:
        return sample
    margins = (0, right, 0, bottom)
    fill = _FILL[sample["kind"]]
    return {**sample, "image": F.pad(image, margins), "target": F.pad(target, margins, value=fill)}


def _check_size(size: tuple[int, int]) -> None:
    if len(size) != 2 or not all(isinstance(n, int) and n >= 1 for n in size):
        raise ValueError(f"size={size!r}; expected (height, width), two positive integers")


def _integer(upper: int, generator: Generator | None) -> int:
    """Uniform in 0 .. upper - 1."""
    return int(torch.randint(upper, (), generator=generator))
