"""The data sets that recipes know: of which task, from which splits, at which size.

A row of the table says all that differs between data sets; the commands say nothing of it. Another
data set is another row::

    DATASETS.append(DataSet("mine", "segmentation", MyReader, folder="mine"))
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..data import (
    BSDS500,
    CamVid,
    ColourScale,
    Compose,
    NYUDepth,
    NYUNormals,
    PascalContext,
    PascalVOC,
    RandomCrop,
    RandomHorizontalFlip,
    RandomScale,
    RenderedScenes,
    Resize,
    RotatedBSDS500,
)
from ..data.folders import check_split
from ..training import Transform
from .ranks import First, Samples
from .setup import PRESETS, Setup
from .view import View

__all__ = ["DATASETS", "TASKS", "DataSet", "find"]

TASKS = ("segmentation", "edges", "normals", "depth")
VALIDATED = 20  # of BSDS500's test images; 300 train, and none are left

_AUGMENTATION = Compose([RandomHorizontalFlip(), ColourScale()])  # the authors'


@dataclass(frozen=True)
class DataSet:
    """A row of the table.

    Args:
        name: on the command line, and in checkpoints; of several rows, if their tasks differ.
        task: one of `TASKS`.
        reader: ``reader(root, split, transform, cache=...)``, as the classes of
            :mod:`pixelnet_triton.data`.
        folder: its usual folder below PIXELNET_DATA; None where it needs no files.
        splits: the reader's words for train, validation (None: there is none) and test.
        view: the size at which a network sees the images.
        reduced: that of the presets for two CPU cores.
        augmentation, reduced_augmentation: of training images of that size.
        enlarged: makes the training set of the full size from the images that were read.
        cached: whether decoded files are kept in memory, where they are few.
        changes, reduced_changes: fields of :class:`~pixelnet_triton.recipes.Setup` in which the
            data set differs from the preset.
    """

    name: str
    task: str
    reader: Callable[..., Samples]
    folder: str | None
    splits: tuple[str, str | None, str] = ("train", "val", "test")
    view: View = View()  # noqa: RUF009 (frozen)
    reduced: View = View(scale=0.5)  # noqa: RUF009 (frozen)
    augmentation: Transform | None = _AUGMENTATION
    reduced_augmentation: Transform | None = _AUGMENTATION
    enlarged: Callable[[Any], Samples] | None = None
    cached: bool = False
    changes: dict[str, Any] = field(default_factory=dict)
    reduced_changes: dict[str, Any] = field(default_factory=dict)

    def setup(self, preset: Setup) -> Setup:
        """The preset with what this data set changes in it."""
        if preset.reduced:
            return dataclasses.replace(preset, **self.reduced_changes)
        paper = PRESETS["paper"]  # where the preset differs from it, it means to
        changes = {
            name: value
            for name, value in self.changes.items()
            if getattr(preset, name) == getattr(paper, name)
        }
        return dataclasses.replace(preset, **changes)

    def seen(self, setup: Setup) -> View:
        """The size at which a network of this setup sees the images."""
        return self.reduced if setup.reduced else self.view

    def read(
        self, root: Path | None, split: str, view: View | None = None, *, cache: bool = False
    ) -> Samples:
        """The images of a split.

        Args:
            root: the folder; None where none is needed.
            split: ``"train"``, ``"val"``, ``"test"``, or a word of the reader's own.
            view: the size to which image and target are resized; None leaves them.
            cache: whether decoded files are kept in memory.

        Raises:
            ValueError, FileNotFoundError: the reader's.
        """
        word = dict(zip(("train", "val", "test"), self.splits, strict=True)).get(split, split)
        if word is None:
            raise ValueError(f"{self.name} has no split {split!r}; use 'train' or 'test'")
        return self.reader(root, word, None if view is None else view.resize, cache=cache)

    def training(self, root: Path | None, setup: Setup) -> tuple[Samples, Transform]:
        """The images of the training, and what is done to each as it is drawn."""
        # What is resized anew for each mini-batch is not resized before.
        view = None if setup.random_scales else self.seen(setup)
        data = self.read(root, "train", view, cache=self.cached)
        if self.enlarged is not None and not setup.reduced:
            data = self.enlarged(data)
        augmentation = self.reduced_augmentation if setup.reduced else self.augmentation
        resize = [RandomScale(setup.random_scales)] if setup.random_scales else []
        return data, Compose([*resize, *([] if augmentation is None else [augmentation])])

    def validation(self, root: Path | None, setup: Setup) -> Samples | None:
        """What is watched during training; None where all images are needed for more."""
        if self.task == "edges":
            return First(self.read(root, "test", self.seen(setup)), VALIDATED)
        if self.splits[1] is None or self.splits[1] == self.splits[2]:
            return None
        return self.read(root, "val", self.seen(setup))


def find(task: str, data: str | None, usual: str | None = None) -> tuple[DataSet, Path | None]:
    """The data set of a task and its folder, as the command line names them.

    Args:
        task: one of `TASKS`.
        data: ``NAME``, a data set in its usual folder below PIXELNET_DATA; ``FOLDER``, whose layout
            says which of the task's data sets it is; ``NAME=FOLDER``; None takes rendered rooms for
            normals and depth.
        usual: the name to take where the folder can be read as several.

    Raises:
        ValueError: an unknown task or name, or a folder of no data set, or of several.
        FileNotFoundError: the folder is missing; the message says what was looked for.
    """
    if task not in TASKS:
        raise ValueError(f"task={task!r} is unknown; use one of {TASKS}")
    rows = {row.name: row for row in DATASETS if row.task == task}
    if data is None:
        if "rooms" not in rows:
            raise ValueError(f"data is missing; expected one of {tuple(rows)}, or a folder")
        data = "rooms"
    name, _, folder = data.partition("=")
    if name in rows:
        return rows[name], Path(folder) if folder else _usual_folder(rows[name])
    if folder or not Path(data).is_dir():
        raise ValueError(
            f"data={data!r} is neither a folder nor a data set for {task}; expected one of "
            f"{tuple(rows)}, a folder that holds one, or NAME=FOLDER"
        )
    return _recognised(Path(data), list(rows.values()), usual), Path(data)


def _recognised(root: Path, rows: Sequence[DataSet], usual: str | None) -> DataSet:
    """The one of `rows` whose layout the folder has."""
    reasons: dict[str, str] = {}
    rows = [row for row in rows if row.folder is not None]
    fitting = [row for row in rows if _has(row, root, "test", reasons)]
    if len(fitting) > 1:  # VOC's two training sets share the test images
        fitting = [row for row in fitting if _has(row, root, "train", reasons)] or fitting
    if not fitting:
        raise FileNotFoundError(
            f"{root} has the layout of no data set for {rows[0].task}.\n  "
            + "\n  ".join(f"{name}: {reason}" for name, reason in reasons.items())
        )
    names = [row.name for row in fitting]
    if len(fitting) > 1 and usual not in names:
        raise ValueError(
            f"{root} can be read as {' and as '.join(names)}; say which: {names[0]}={root}"
        )
    return fitting[names.index(usual) if usual in names else 0]


def _has(row: DataSet, root: Path, split: str, reasons: dict[str, str]) -> bool:
    try:
        row.read(root, split)
    except FileNotFoundError as error:
        reasons[row.name] = str(error)
        return False
    return True


def _usual_folder(row: DataSet) -> Path | None:
    if row.folder is None:
        return None
    data = os.environ.get("PIXELNET_DATA")
    if not data:
        raise FileNotFoundError(
            f"the folder of {row.name} is not known: give {row.name}=FOLDER, or set the "
            f"environment variable PIXELNET_DATA to the folder that holds {row.folder}/"
        )
    folder = Path(data) / row.folder
    if not folder.is_dir():
        raise FileNotFoundError(
            f"PIXELNET_DATA={data} has no folder {row.folder}/: give {row.name}=FOLDER"
        )
    return folder


def _rooms(
    kind: str, root: Path | None, split: str, transform: Any = None, *, cache: bool = False
) -> Samples:
    """Rendered rooms. Those of the test have another seed, so training has seen none of them."""
    check_split(split, ("train", "test"))
    count, seed = {"train": (5000, 1), "test": (100, 2)}[split]
    size = (240, 320)
    if isinstance(transform, Resize):  # rendered at that size rather than resized
        size, transform = transform.size, None
    return RenderedScenes(count, kind, size=size, seed=seed, transform=transform)


_VOC = partial(
    DataSet,
    task="segmentation",
    folder="VOCdevkit",
    splits=("train", "val", "val"),
    view=View(scale=0.5),  # section 4.1: "a single scale"
    reduced=View(scale=0.25),
)
# The authors initialise the last layer so that no output is near the zero vector.
_NORMALS: dict[str, Any] = {"task": "normals", "changes": {"init": "normals"}}
# Squared errors: at the rate of the other tasks a linear predictor diverges.
_DEPTH: dict[str, Any] = {"task": "depth", "reduced_changes": {"lr": 0.02}}
_NYU = partial(
    DataSet,
    "nyu",
    folder="nyuv2",
    splits=("train", None, "test"),
    view=View(size=(224, 224)),
    reduced=View(size=(120, 160)),
)
_ROOMS = partial(
    DataSet,
    "rooms",
    folder=None,
    splits=("train", None, "test"),
    reduced=View(size=(120, 160)),
)
# Section 4.3: a tenth of the rate after 15 epochs, again after 20, the end after 25.
_EDGE_DECAY = (15 / 25, 20 / 25)

DATASETS = [
    DataSet("camvid", "segmentation", CamVid, "camvid", reduced=View(size=(120, 160)), cached=True),
    _VOC("voc2012", reader=PascalVOC),
    _VOC("voc2012-aug", reader=PascalVOC, splits=("train_aug", "val", "val")),
    _VOC("context59", reader=partial(PascalContext, classes=59)),
    _VOC("context33", reader=partial(PascalContext, classes=33)),
    DataSet(
        "bsds500",
        "edges",
        BSDS500,
        "bsds500",
        splits=("trainval", None, "test"),
        augmentation=None,
        reduced_augmentation=Compose([RandomCrop((144, 144)), RandomHorizontalFlip()]),
        enlarged=RotatedBSDS500,
        cached=True,
        changes={"epochs": 25.0, "decay_at": _EDGE_DECAY, "random_scales": (0.5, 1.0)},
        reduced_changes={"decay_at": _EDGE_DECAY},
    ),
    _NYU(reader=NYUNormals, **_NORMALS),
    _NYU(reader=NYUDepth, **_DEPTH),
    _ROOMS(reader=partial(_rooms, "normals"), **_NORMALS),
    _ROOMS(reader=partial(_rooms, "depth"), **_DEPTH),
]
