"""PASCAL-Context: every pixel of VOC 2010's images labelled; its 59- and 33-class tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .decoding import read_indices, read_mat
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
from .voc import listed_names

__all__ = ["PascalContext"]

_SOURCE = (
    "The images and lists are PASCAL VOC 2010's (http://host.robots.ox.ac.uk/pascal/VOC/voc2010, "
    "archive VOCtrainval_03-May-2010.tar). The labels are had from the PASCAL-Context project, "
    "https://cs.stanford.edu/~roozbeh/pascal-context: 59_context_labels.tar.gz with 59_labels.txt, "
    "or 33_context_labels.tar.gz with 33_labels.txt, or trainval.tar.gz with labels.txt for both"
)
# Categories whose names in the tasks' lists differ from those in the list of all 459.
_OTHER_NAMES = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}


class PascalContext(PixelDataset):
    """PASCAL-Context (Mottaghi et al., 2014): 4998 / 5105 images, 59 or 33 classes (section 4.1).

    `root` holds the images and lists of VOC 2010, at the top or in ``VOC2010`` or
    ``VOCdevkit/VOC2010``, and the labels in one of the two forms of the project's page, with N = 59
    or 33::

        JPEGImages/NAME.jpg   ImageSets/Main/SPLIT.txt
        N_context_labels/NAME.png   N_labels.txt              the task's labels: 0 = other, 1 to N
        trainval/NAME.mat           N_labels.txt  labels.txt  all 459 categories, mapped by name

    The first form is preferred where both are there. The classes and their order are those of
    ``N_labels.txt`` in either case; nothing is built in. In the second form, a category counts
    where its name is on that list, as do three that are known to be spelt differently there. Pixels
    of no class are ignored (255), so there is no background class, unlike in the 60-class variant
    of some later work.

    The reader is tested on small files in these layouts, not on the real ones.

    Args:
        root: the user's folder.
        split: ``"train"``, ``"val"`` or ``"trainval"``.
        transform, cache: as in :class:`~pixelnet_triton.data.folders.PixelDataset`.
        classes: 59 or 33.

    Raises:
        FileNotFoundError: what is missing, and where to get it.
        ValueError: unknown `split` or `classes`; lists of classes that do not fit.

    Example:
        >>> from pixelnet_triton.data import PascalContext
        >>> val = PascalContext("path/to/VOCdevkit/VOC2010", "val", classes=59)  # doctest: +SKIP
        >>> val.CLASSES[0], val[0]["target"].dtype  # doctest: +SKIP
        ('aeroplane', torch.int64)
    """

    CLASSES: tuple[str, ...]

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        transform: Callable[[Sample], Sample] | None = None,
        *,
        cache: bool = False,
        classes: int = 59,
    ) -> None:
        check_split(split, ("train", "val", "trainval"))
        if classes not in (59, 33):
            raise ValueError(f"classes={classes!r}; PASCAL-Context has tasks of 59 and 33 classes")
        images, names = find_layout(
            root,
            [
                (f"{above}JPEGImages", f"{above}ImageSets/Main/{split}.txt")
                for above in ("", "VOC2010/", "VOCdevkit/VOC2010/")
            ],
            data_set=f"PASCAL-Context's split {split!r}",
            source=_SOURCE,
        )
        labels, task, *categories = find_layout(
            root,
            [
                (f"{above}{form[0]}", *(f"{above}{name}" for name in form[1:]))
                for form in (
                    (f"{classes}_context_labels", f"{classes}_labels.txt"),
                    ("trainval", f"{classes}_labels.txt", "labels.txt"),
                )
                for above in ("", "VOC2010/", "VOCdevkit/VOC2010/")
            ],
            data_set=f"PASCAL-Context's labels of {classes} classes",
            source=_SOURCE,
        )
        self.CLASSES = _class_names(task)
        if len(self.CLASSES) != classes:
            raise ValueError(f"{task} lists {len(self.CLASSES)} classes; expected {classes}")
        if categories:
            self._lookup = _from_categories(self.CLASSES, categories[0], task)
        else:
            self._lookup = np.array([IGNORE, *range(classes)], np.uint8)
        entries = pair_up(
            files_by_stem(images, (".jpg",)),
            files_by_stem(labels, (".mat",) if categories else (".png",)),
            listed_names(names),
            source=_SOURCE,
        )
        super().__init__(entries, transform, cache=cache)

    def read_target(self, entry: Entry) -> Tensor:
        path = entry.target
        if path.suffix == ".mat":
            labels = read_mat(path, "LabelMap", _SOURCE)
        else:
            labels = read_indices(path).numpy()
        wrong = labels[~np.isin(labels, np.arange(len(self._lookup)))]
        if len(wrong):
            raise ValueError(
                f"{path} holds the value {wrong[0]}; expected 0 to {len(self._lookup) - 1}. "
                f"{_SOURCE}"
            )
        return torch.from_numpy(self._lookup[labels.astype(np.int64)])


def _class_names(path: Path) -> tuple[str, ...]:
    """Names in lines ``7: dining table``, numbered upwards from 1; spaces in them do not count."""
    names: list[str] = []
    for line in path.read_text().splitlines():
        number, separator, name = line.partition(":")
        if not line.strip():
            continue
        if not number.strip().isdecimal() or not separator or int(number) != len(names) + 1:
            raise ValueError(
                f"{path} has the line {line!r}; expected '{len(names) + 1}: NAME'. {_SOURCE}"
            )
        names.append("".join(name.split()))
    return tuple(names)


def _from_categories(classes: tuple[str, ...], categories: Path, task: Path) -> np.ndarray:
    """The class of each of the 459 categories, numbered from 1; 0 is none."""
    number = {name: i for i, name in enumerate(_class_names(categories), start=1)}
    lookup = np.full(len(number) + 1, IGNORE, np.uint8)
    for index, name in enumerate(classes):
        category = name if name in number else _OTHER_NAMES.get(name, name)
        if category not in number:
            raise ValueError(
                f"{task} has the class {name!r}, which {categories} does not list under this name; "
                "use the labels that are already merged (N_context_labels). " + _SOURCE
            )
        lookup[number[category]] = index
    return lookup
