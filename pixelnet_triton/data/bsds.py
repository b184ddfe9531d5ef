"""BSDS500: edges that several people drew, their consensus as target, and HED's augmentation."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from .decoding import IMAGE_SUFFIXES, decoding, read_mat
from .folders import (
    IGNORE,
    Entry,
    PixelDataset,
    Sample,
    check_split,
    files_by_stem,
    find_layout,
    pair_up,
    position,
)

__all__ = ["BSDS500", "RotatedBSDS500"]

_SOURCE = (
    "BSDS500 is had from the Berkeley Computer Vision Group, 'Contour Detection and Image "
    "Segmentation Resources': the archive BSR_bsds500.tgz, folder BSR/BSDS500/data"
)
_ANGLES = 16


class BSDS500(PixelDataset):
    """Berkeley Segmentation Data Set 500 (Arbelaez et al., 2011): 200/100/200 images.

    Each image was annotated by four to nine people. With n(p) the number of them who drew an edge
    at pixel p, the target is HED's consensus, which section 4.3 of the paper follows:

        1 (edge) if n(p) >= min_annotators;  0 if n(p) = 0;  255 (ignored) otherwise

    The public layout is read, at `root` or below its ``data``, ``BSDS500/data``,
    ``BSR/BSDS500/data``::

        images/SPLIT/NAME.jpg  groundTruth/SPLIT/NAME.mat

    Args:
        root: the user's folder.
        split: ``"train"``, ``"val"``, ``"test"``, or ``"trainval"``, the 300 images on which HED
            and the paper train.
        transform, cache: as in :class:`~pixelnet_triton.data.folders.PixelDataset`.
        min_annotators: of the consensus, at least 1. With 1, nothing is ignored.

    Raises:
        FileNotFoundError: what is missing, and where to get it.
        ValueError: unknown `split`, `min_annotators` below 1.

    Example:
        >>> from pixelnet_triton.data import BSDS500
        >>> test = BSDS500("path/to/bsds500", "test")  # doctest: +SKIP
        >>> test[0]["target"].unique(), len(test.annotations(0))  # doctest: +SKIP
        (tensor([  0,   1, 255]), 5)
    """

    kind: ClassVar[str] = "edges"

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        transform: Callable[[Sample], Sample] | None = None,
        *,
        cache: bool = False,
        min_annotators: int = 3,
    ) -> None:
        check_split(split, ("train", "val", "test", "trainval"))
        if min_annotators < 1:
            raise ValueError(f"min_annotators={min_annotators}; expected at least 1")
        self.min_annotators = min_annotators
        entries = []
        for part in ("train", "val") if split == "trainval" else (split,):
            images, truths = find_layout(
                root,
                [
                    (f"{above}images/{part}", f"{above}groundTruth/{part}")
                    for above in ("", "data/", "BSDS500/data/", "BSR/BSDS500/data/")
                ],
                data_set=f"BSDS500's split {part!r}",
                source=_SOURCE,
            )
            image_files = files_by_stem(images, IMAGE_SUFFIXES)
            truth_files = files_by_stem(truths, (".mat",))
            entries += pair_up(image_files, truth_files, source=_SOURCE)
        super().__init__(entries, transform, cache=cache)

    def annotations(self, index: int) -> list[Tensor]:
        """The edges as each annotator drew them: bool ``(H, W)`` each, for the boundary metrics."""
        entry = self.entries[position(index, len(self))]
        return [torch.from_numpy(edges) for edges in _annotations(entry.target)]

    def read_target(self, entry: Entry) -> Tensor:
        count = np.sum(_annotations(entry.target), axis=0, dtype=np.uint8)
        target = np.where(count >= self.min_annotators, 1, IGNORE)
        return torch.from_numpy(np.where(count == 0, 0, target).astype(np.uint8))


class RotatedBSDS500(Dataset[Sample]):
    """HED's augmented set: each image turned by 16 angles, and each of these mirrored too.

    The angles are k * 22.5 degrees, counter-clockwise; the largest upright rectangle inside a
    turned image is cut out, so sizes differ. Item (image * 16 + k) * 2 + mirrored of
    ``BSDS500(root, "trainval")`` makes 300 * 16 * 2 = 9,600 images: the count of section 4.3,
    "rotation, flipping, totaling 9600 images without resizing". (HED's own archive holds these at
    three scales, 28,800 images.)

    Multiples of 90 degrees are exact. At the others, images are interpolated bilinearly and
    targets take the nearest pixel; HED's archive was made with MATLAB, and is not reproduced to
    the pixel.

    Args:
        dataset: a :class:`BSDS500`, or another data set of kind ``"edges"`` or ``"labels"``;
            without a transform of its own.
        transform: applied after turning and mirroring.

    Example:
        >>> from pixelnet_triton.data import BSDS500, RotatedBSDS500
        >>> len(RotatedBSDS500(BSDS500("path/to/bsds500", "trainval")))  # doctest: +SKIP
        9600
    """

    def __init__(
        self, dataset: PixelDataset, transform: Callable[[Sample], Sample] | None = None
    ) -> None:
        if dataset.kind not in ("edges", "labels"):
            raise ValueError(
                f"dataset holds {dataset.kind!r}; expected 'edges' or 'labels': vectors would have "
                "to be turned along with the image"
            )
        self.dataset = dataset
        self.transform = transform

    def __len__(self) -> int:
        return len(self.dataset) * _ANGLES * 2

    def __getitem__(self, index: int) -> Sample:
        turned, mirrored = divmod(position(index, len(self)), 2)
        image, k = divmod(turned, _ANGLES)
        sample = _rotate(self.dataset[image], k)
        if mirrored:
            for key in ("image", "target"):
                sample[key] = sample[key].flip(-1)
        sample["name"] = f"{sample['name']}_{k * 360 / _ANGLES:g}_{mirrored}"
        return sample if self.transform is None else self.transform(sample)


def _annotations(path: Path) -> list[np.ndarray]:
    people = read_mat(path, "groundTruth", _SOURCE)
    # A cell array, (1, people) or (people, 1), of structs (1, 1), whose fields are again arrays.
    with decoding(path):
        return [person["Boundaries"][0, 0].astype(bool) for person in people.ravel()]


def _rotate(sample: Sample, k: int) -> Sample:
    """Turn counter-clockwise by k * 22.5 degrees, and cut out the largest rectangle inside."""
    quarters, remainder = divmod(k, _ANGLES // 4)
    image = torch.rot90(sample["image"], quarters, dims=(-2, -1))
    target = torch.rot90(sample["target"], quarters, dims=(-2, -1))
    if remainder:
        grid = _grid(image.shape[-2], image.shape[-1], 2 * math.pi * remainder / _ANGLES)
        image = F.grid_sample(image[None], grid, padding_mode="border", align_corners=False)[0]
        # float32 holds labels exactly, and the nearest pixel is not changed by it.
        target = F.grid_sample(
            target[None, None].float(), grid, mode="nearest", align_corners=False
        )[0, 0].to(target.dtype)
    return {**sample, "image": image.contiguous(), "target": target.contiguous()}


def _grid(height: int, width: int, angle: float) -> Tensor:
    """Where the pixels of the turned and cut image lie in the image: (1, h, w, 2) in [-1, 1]."""
    new_height, new_width = inscribed_rectangle(height, width, angle)
    y = _pixels(new_height)[:, None] - (new_height - 1) / 2
    x = _pixels(new_width)[None, :] - (new_width - 1) / 2
    # y points down, so turning the picture counter-clockwise samples it clockwise.
    from_x = math.cos(angle) * x - math.sin(angle) * y
    from_y = math.sin(angle) * x + math.cos(angle) * y
    return torch.stack([2 * from_x / width, 2 * from_y / height], dim=-1)[None]


def _pixels(count: int) -> Tensor:
    return torch.arange(count, dtype=torch.float32, device="cpu")


def inscribed_rectangle(height: int, width: int, angle: float) -> tuple[int, int]:
    """(height, width) of the largest upright rectangle in a picture turned by `angle`.

    Either the picture's longer sides touch two corners of the rectangle each, or all four sides
    touch one corner each; the second where the picture is not too slender.

    Args:
        height, width: of the picture. angle: in radians, in [0, pi / 2].
    """
    sine, cosine = math.sin(angle), math.cos(angle)
    longer, shorter = max(height, width), min(height, width)
    if shorter <= 2 * sine * cosine * longer:
        across, along = shorter / 2 / sine, shorter / 2 / cosine
        inner_width, inner_height = (across, along) if width >= height else (along, across)
    else:
        double = cosine * cosine - sine * sine
        inner_width = (width * cosine - height * sine) / double
        inner_height = (height * cosine - width * sine) / double
    return max(1, math.floor(inner_height)), max(1, math.floor(inner_width))
