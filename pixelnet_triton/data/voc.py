"""PASCAL VOC 2012 segmentation: 20 kinds of object and background."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from .decoding import read_indices
from .folders import (
    IGNORE,
    Entry,
    PixelDataset,
    Sample,
    check_split,
    files_by_stem,
    find_layout,
    pair_up,
    without_suffix,
)

__all__ = ["PascalVOC"]

_SOURCE = (
    "PASCAL VOC 2012 is had from http://host.robots.ox.ac.uk/pascal/VOC/voc2012: the archive "
    "VOCtrainval_11-May-2012.tar, folder VOCdevkit/VOC2012"
)
_AUGMENTED_SOURCE = (
    f"{_SOURCE}. The 10,582 labels of the split 'train_aug' are those of the Semantic Boundaries "
    "Dataset (Hariharan et al., 2011), converted to index images, as many projects describe"
)


class PascalVOC(PixelDataset):
    """PASCAL VOC 2012 segmentation (Everingham et al.): 1464 / 1449 images, 21 classes.

    The public layout is read, at `root` or below its ``VOC2012`` or ``VOCdevkit/VOC2012``::

        JPEGImages/NAME.jpg   SegmentationClass/NAME.png   ImageSets/Segmentation/SPLIT.txt

    Class 0 is background; 255, the outlines of objects and what is difficult, is ignored.

    The split ``"train_aug"``, with the labels of the Semantic Boundaries Dataset, is read where the
    folder has the usual two additions: ``SegmentationClassAug/NAME.png`` and
    ``ImageSets/Segmentation/train_aug.txt`` or ``trainaug.txt``.

    The reader is tested on small files in this layout, not on the real ones.

    Args:
        root: the user's folder.
        split: ``"train"``, ``"val"``, ``"trainval"`` or ``"train_aug"``.
        transform, cache: as in :class:`~pixelnet_triton.data.folders.PixelDataset`.

    Raises:
        FileNotFoundError: what is missing, and where to get it.
        ValueError: unknown `split`; when read, label images with other values than 0 to 20 and 255.

    Example:
        >>> from pixelnet_triton.data import PascalVOC
        >>> len(PascalVOC.CLASSES), PascalVOC.CLASSES[15], PascalVOC.PALETTE[15]
        (21, 'person', (192, 128, 128))
        >>> train = PascalVOC("path/to/VOCdevkit/VOC2012", "train")  # doctest: +SKIP
    """

    CLASSES: ClassVar[tuple[str, ...]] = (
        "background",
        "aeroplane",
        "bicycle",
        "bird",
        "boat",
        "bottle",
        "bus",
        "car",
        "cat",
        "chair",
        "cow",
        "diningtable",
        "dog",
        "horse",
        "motorbike",
        "person",
        "pottedplant",
        "sheep",
        "sofa",
        "train",
        "tvmonitor",
    )
    PALETTE: ClassVar[tuple[tuple[int, int, int], ...]]  # below: a rule, not a list

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        transform: Callable[[Sample], Sample] | None = None,
        *,
        cache: bool = False,
    ) -> None:
        check_split(split, ("train", "val", "trainval", "train_aug"))
        augmented = split == "train_aug"
        labels = "SegmentationClassAug" if augmented else "SegmentationClass"
        source = _AUGMENTED_SOURCE if augmented else _SOURCE
        images, truths, names = find_layout(
            root,
            [
                (
                    f"{above}JPEGImages",
                    f"{above}{labels}",
                    f"{above}ImageSets/Segmentation/{name}.txt",
                )
                for above in ("", "VOC2012/", "VOCdevkit/VOC2012/")
                for name in ((split, "trainaug") if augmented else (split,))
            ],
            data_set=f"PASCAL VOC 2012's split {split!r}",
            source=source,
        )
        entries = pair_up(
            files_by_stem(images, (".jpg",)),
            files_by_stem(truths, (".png",)),
            listed_names(names),
            source=source,
        )
        super().__init__(entries, transform, cache=cache)

    def read_target(self, entry: Entry) -> Tensor:
        labels = read_indices(entry.target)
        unknown = labels[(labels >= len(self.CLASSES)) & (labels != IGNORE)]
        if len(unknown):
            raise ValueError(
                f"{entry.target} holds the value {int(unknown[0])}; expected class indices 0 to "
                f"20, and 255 for void. {_SOURCE}"
            )
        return labels


def listed_names(path: Path) -> list[str]:
    """The names in a list of images; lists of paths of images and labels are understood too."""
    return [
        without_suffix(line.split()[0]) for line in path.read_text().splitlines() if line.strip()
    ]


def voc_palette(classes: Iterable[int]) -> tuple[tuple[int, int, int], ...]:
    """VOC's colours: bits 0, 3, 6 of a class are red's highest, 1, 4, 7 green's, 2, 5 blue's."""

    def channel(index: int, first: int) -> int:
        return sum(((index >> (first + 3 * j)) & 1) << (7 - j) for j in range(3))

    return tuple((channel(c, 0), channel(c, 1), channel(c, 2)) for c in classes)


PascalVOC.PALETTE = voc_palette(range(len(PascalVOC.CLASSES)))
