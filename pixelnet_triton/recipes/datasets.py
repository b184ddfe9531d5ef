"""The data sets that recipes know: of which task, from which splits, at which size.

A row of the table says all that differs between data sets; the commands say nothing of it. Labelled
images of one's own need no more than the layout of :class:`~pixelnet_triton.data.LabelledFolder`;
another layout, or another task, is another row::

    DATASETS.append(DataSet("mine", "segmentation", MyReader, folder="mine"))
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..data import (
    BSDS500,
    CamVid,
    ColourScale,
    Compose,
    LabelledFolder,
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
from ..training.presets import PRESETS as PAPERS
from .ranks import First, Samples
from .setup import PRESETS, Setup
from .view import View

__all__ = ["DATASETS", "TASKS", "DataSet"]

TASKS = ("segmentation", "edges", "normals", "depth")
VALIDATED = 20  # of BSDS500's test images; 300 train, and none are left


@dataclass(frozen=True)
class DataSet:
    """A row of the table.

    Args:
        name: on the command line, and in checkpoints; of several rows, if their tasks differ.
        task: one of `TASKS`.
        reader: ``reader(root, split, transform, cache=...)``, as the classes of
            :mod:`pixelnet_triton.data`.
        folder: its usual folder below PIXELNET_DATA; None where it needs no files.
        splits: the reader's words for training, validation (None: there is none) and test.
        view: the size at which a network sees the images.
        reduced: that of the presets for two CPU cores.
        cached: whether decoded files are kept in memory, where they are few.
        beginnings: of the names of its images, where images of one's own may have its layout.
        changes: by the name of a preset, what this data set changes in it.
    """

    name: str
    task: str
    reader: Callable[..., Samples]
    folder: str | None
    splits: tuple[str, str | None, str] = ("train", "val", "test")
    view: View = View()  # noqa: RUF009 (frozen)
    reduced: View = View(scale=0.5)  # noqa: RUF009 (frozen)
    cached: bool = False
    beginnings: tuple[str, ...] = ()
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)

    def setup(self, preset: str) -> Setup:
        """A preset, with what this data set changes in it.

        Example:
            >>> from pixelnet_triton.recipes import find
            >>> find("normals", "rooms")[0].setup("paper").init  # the authors'
            'normals'
        """
        return dataclasses.replace(PRESETS[preset], **self.changes.get(preset, {}))

    def seen(self, setup: Setup) -> View:
        """The size at which a network of this setup sees the images."""
        if setup.scale is not None:
            return View(scale=setup.scale)
        return self.reduced if setup.reduced else self.view

    def split_of(self, root: Path | None, split: str) -> str:
        """The reader's word for a split: that word itself where the reader has such a split.

        Only then is it what the row calls the training, validation or test split. BSDS500 trains on
        ``"trainval"``, and still has a ``"train"``; VOC is tested on ``"val"``, as it has no labels
        of a ``"test"``.

        Raises:
            ValueError, FileNotFoundError: there is no such split, nor one in its place.
        """
        usual = dict(zip(("train", "val", "test"), self.splits, strict=True)).get(split, split)
        if usual == split:
            return split
        # A split that is there and damaged is not replaced by another one.
        if (has_split := getattr(self.reader, "has_split", None)) is not None:
            return split if usual is None or has_split(root, split) else usual
        try:
            self.reader(root, split)
        except (KeyError, OSError, ValueError) as error:
            if usual is not None:
                return usual
            if isinstance(error, OSError):  # a split that the reader knows, without its files
                raise
            raise ValueError(f"{self.name} has no split {split!r}; use 'train' or 'test'") from None
        return split

    def read(
        self, root: Path | None, split: str, view: View | None = None, *, cache: bool = False
    ) -> Samples:
        """The images of a split.

        Args:
            root: the folder; None where none is needed.
            split: ``"train"``, ``"val"``, ``"test"``, or a word of the reader's own; what
                :meth:`split_of` says is read.
            view: the size to which image and target are resized; None leaves them.
            cache: whether decoded files are kept in memory.

        Raises:
            ValueError, FileNotFoundError: the reader's.
        """
        return self._read(root, self.split_of(root, split), view, cache=cache)

    def training(self, root: Path | None, setup: Setup) -> tuple[Samples, Transform]:
        """The images of the training, and what is done to each as it is drawn."""
        # What is resized anew for each mini-batch is not resized before.
        view = None if setup.random_scales else self.seen(setup)
        data: Any = self._read(root, self.splits[0], view, cache=self.cached)
        return RotatedBSDS500(data) if setup.turned else data, _augmentation(setup)

    def validation(self, root: Path | None, setup: Setup) -> Samples | None:
        """What is watched during training; None where all images are needed for more.

        Of edges the first test images are: the paper trains on all others. Nothing is chosen by
        them, neither the last step nor any option.
        """
        if self.task == "edges":
            return First(self._read(root, self.splits[2], self.seen(setup)), VALIDATED)
        watched = self.splits[1]
        if watched is None or watched == self.split_of(root, "test"):
            return None
        return self._read(root, watched, self.seen(setup))

    def _read(
        self, root: Path | None, word: str, view: View | None, *, cache: bool = False
    ) -> Samples:
        """The images of a split by the reader's word."""
        return self.reader(root, word, None if view is None else view.resize, cache=cache)


def _augmentation(setup: Setup) -> Compose:
    """What is drawn anew for each image of a mini-batch."""
    transforms: list[Transform] = []
    if setup.random_scales:
        transforms.append(RandomScale(setup.random_scales))
    if setup.crop:
        if len(setup.crop) != 2:
            raise ValueError(f"crop={setup.crop}; expected a height and a width")
        transforms.append(RandomCrop((setup.crop[0], setup.crop[1])))
    if setup.mirror:
        transforms.append(RandomHorizontalFlip())
    if setup.colours:
        transforms.append(ColourScale())
    return Compose(transforms)


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


_CONTEXT = PAPERS["segmentation"]
_VOC = partial(
    DataSet,
    task="segmentation",
    folder="VOCdevkit",
    splits=("train", "val", "val"),
    view=View(scale=_CONTEXT.test_scales[0]),
    reduced=View(scale=0.25),
    changes={
        "paper": {"random_scales": _CONTEXT.scales},
        "paper-conv7": {"random_scales": _CONTEXT.scales},
    },
)
# The authors initialise the last layer so that no output is near the zero vector.
_NORMALS: dict[str, Any] = {"task": "normals", "changes": {"paper": {"init": "normals"}}}
# Squared errors: at the rate of the other tasks a linear predictor diverges.
_DEPTH: dict[str, Any] = {"task": "depth", "changes": {"small": {"lr": 0.02}}}
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
_EDGES = PAPERS["edges"]
_EDGE_DECAY = {"decay_at": _EDGES.recipe.decay_at}
_EDGES_OF_THE_PAPER = {
    **_EDGE_DECAY,
    "epochs": float(_EDGES.epochs),
    "random_scales": _EDGES.scales,
    "turned": True,  # and mirrored
    "mirror": False,
    "colours": False,
}
_CROPPED = {"crop": (240, 240), "images": 6, "points": 500}

DATASETS = [
    DataSet(
        "camvid",
        "segmentation",
        CamVid,
        "camvid",
        reduced=View(size=(120, 160)),
        cached=True,
        beginnings=CamVid.FILMS,
    ),
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
        cached=True,
        changes={
            "paper": _EDGES_OF_THE_PAPER,
            "paper-conv7": _EDGES_OF_THE_PAPER,
            "small": {**_EDGE_DECAY, "crop": (144, 144), "colours": False},
            "frozen": _EDGE_DECAY,
            "finetuned": _CROPPED,
        },
    ),
    DataSet("own", "segmentation", LabelledFolder, "own", splits=("train", "val", "val")),
    _NYU(reader=NYUNormals, **_NORMALS),
    _NYU(reader=NYUDepth, **_DEPTH),
    _ROOMS(reader=partial(_rooms, "normals"), **_NORMALS),
    _ROOMS(reader=partial(_rooms, "depth"), **_DEPTH),
]
