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
there if any pixel that it covers is one. Depths stay in metres whatever the scale. Integer and bool
targets become int64, which holds 255; those of edges have to be 0, 1 and 255.

All randomness comes from torch: from `generator` where one is given, else from the global
generator, which ``DataLoader`` seeds differently in each worker and each epoch. Transforms keep no
state, so they may be shared and pickled; they never write into the sample they get.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from .folders import Sample
from .resizing import (
    are_numbers,
    check_floating,
    check_size,
    pad_sample,
    parts_of,
    resize_sample,
)

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
        image, target, kind = parts_of(sample)
        if float(_uniform((), generator)) >= self.probability:
            return {**sample, "target": target}
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
        if not are_numbers(self.scales) or min(self.scales) <= 0:
            raise ValueError(
                f"scales={self.scales!r}; expected at least one factor, all positive and finite, "
                "such as (0.5, 1.0)"
            )

    def __call__(self, sample: Sample, *, generator: Generator | None = None) -> Sample:
        image, _, _ = parts_of(sample)
        scale = float(self.scales[_integer(len(self.scales), generator)])
        height, width = image.shape[-2:]
        return resize_sample(sample, (max(1, round(height * scale)), max(1, round(width * scale))))


@dataclass(frozen=True)
class Resize:
    """Resize to a size, whatever the aspect ratio; the authors train normals at (224, 224).

    Args:
        size: (height, width) in pixels.
    """

    size: tuple[int, int]

    def __post_init__(self) -> None:
        check_size(self.size)

    def __call__(self, sample: Sample, *, generator: Generator | None = None) -> Sample:
        return resize_sample(sample, self.size)


@dataclass(frozen=True)
class Pad:
    """Pad at the right and at the bottom up to a size: images with 0, targets with "unknown".

    After :class:`Normalize`, 0 is the mean colour.

    Args:
        size: (height, width) in pixels, at least those of the image.
    """

    size: tuple[int, int]

    def __post_init__(self) -> None:
        check_size(self.size)

    def __call__(self, sample: Sample, *, generator: Generator | None = None) -> Sample:
        image, _, _ = parts_of(sample)
        if image.shape[-2] > self.size[0] or image.shape[-1] > self.size[1]:
            raise ValueError(
                f"image has (height, width) {tuple(image.shape[-2:])}, more than size={self.size}; "
                "Pad only adds. Use Resize or RandomCrop first"
            )
        return pad_sample(sample, self.size)


@dataclass(frozen=True)
class RandomCrop:
    """Cut out a rectangle at a random place; images that are too small are padded first (`Pad`).

    Args:
        size: (height, width) in pixels.
    """

    size: tuple[int, int]

    def __post_init__(self) -> None:
        check_size(self.size)

    def __call__(self, sample: Sample, *, generator: Generator | None = None) -> Sample:
        sample = pad_sample(sample, self.size)
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
        low, high: ends of the range, both positive. The image has to be floating.
    """

    low: float = 0.8
    high: float = 1.3

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise ValueError(f"low={self.low!r}, high={self.high!r}; expected 0 < low <= high")

    def __call__(self, sample: Sample, *, generator: Generator | None = None) -> Sample:
        image, target, _ = parts_of(sample)
        check_floating(image)
        factors = self.low + (self.high - self.low) * _uniform((image.shape[0], 1, 1), generator)
        return {**sample, "image": image * factors.to(image), "target": target}


@dataclass(frozen=True)
class Normalize:
    """(image - mean) / std for each channel.

    Args:
        mean, std: one number for each channel of the image, in its units. It has to be floating,
            and is in [0, 1] as the readers give it.
    """

    mean: Sequence[float]
    std: Sequence[float]

    def __post_init__(self) -> None:
        numbers = are_numbers(self.mean) and are_numbers(self.std)
        if not numbers or len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise ValueError(
                f"mean={self.mean!r}, std={self.std!r}; expected equally many finite numbers, one "
                "for each channel, and std positive, such as (0.5, 0.5, 0.5) for both"
            )

    def __call__(self, sample: Sample, *, generator: Generator | None = None) -> Sample:
        image, target, _ = parts_of(sample)
        check_floating(image)
        if len(self.mean) != len(image):  # (1, H, W) would be broadcast
            raise ValueError(
                f"image has {len(image)} channels but mean and std {len(self.mean)} numbers; "
                "expected one for each channel"
            )
        mean = image.new_tensor(self.mean).view(-1, 1, 1)
        std = image.new_tensor(self.std).view(-1, 1, 1)
        return {**sample, "image": (image - mean) / std, "target": target}


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
    kinds = sorted({parts_of(sample)[2] for sample in samples})
    if len(kinds) != 1:
        raise ValueError(f"samples have the kinds {kinds}; expected at least one sample, all alike")
    size = (
        max(sample["image"].shape[-2] for sample in samples),
        max(sample["image"].shape[-1] for sample in samples),
    )
    padded = [pad_sample(sample, size) for sample in samples]
    batch: dict[str, object] = {
        key: torch.stack([sample[key] for sample in padded]) for key in ("image", "target")
    }
    batch["kind"] = kinds[0]
    if all("name" in sample for sample in samples):
        batch["name"] = [sample["name"] for sample in samples]
    return batch


def _integer(upper: int, generator: Generator | None) -> int:
    """Uniform in 0 .. upper - 1."""
    return int(torch.randint(upper, (), generator=generator, device=_device(generator)))


def _uniform(shape: tuple[int, ...], generator: Generator | None) -> Tensor:
    """float32 in [0, 1), whatever torch's default dtype and device."""
    return torch.rand(shape, generator=generator, device=_device(generator), dtype=torch.float32)


def _device(generator: Generator | None) -> torch.device:
    """Where random numbers are drawn: on the CPU, unless the generator is somewhere else."""
    return torch.device("cpu") if generator is None else generator.device
