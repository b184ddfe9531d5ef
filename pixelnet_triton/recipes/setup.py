"""The settings of a run, and the presets: each number of a training in one place."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

__all__ = ["PRESETS", "Setup"]


def _option(default: Any, text: str, kind: type | None = None) -> Any:
    """A field, its help, and the type of its values where the default does not have it."""
    kind = type(default) if kind is None else kind
    return dataclasses.field(default=default, metadata={"help": text, "type": kind})


@dataclass(frozen=True)
class Setup:
    """The fields that determine a training, besides task and data.

    The defaults are the paper's. A field's `help` is that of its option on the command line.

    Example:
        >>> from pixelnet_triton.recipes import PRESETS
        >>> PRESETS["paper"].hidden, PRESETS["small"].hidden
        ((4096, 4096), (128, 128))
    """

    backbone: str = _option("vgg16", "the network that gives the maps, by name")
    pretrained: str | None = _option(
        None, "its weights: a file, or 'imagenet' where a package has them", str
    )
    frozen: bool = _option(False, "the backbone is not trained")
    layers: tuple[str, ...] = _option((), "names of its maps; none takes the backbone's own", str)
    fixed_statistics: bool = _option(
        False, "batch normalisation of a pretrained backbone keeps its statistics"
    )
    width: float = _option(1.0, "factor on VGG-16's numbers of channels")
    batch_norm: bool = _option(False, "VGG-16 with batch normalisation after every convolution")
    hidden: tuple[int, ...] = _option((4096, 4096), "widths of the head's hidden layers", int)
    head_batch_norm: bool = _option(False, "batch normalisation of the hypercolumns")
    dropout: float = _option(0.5, "probability, after each hidden layer")
    init: str = _option("gaussian", "of the head: gaussian, normals or kaiming")
    epochs: float = _option(96.0, "length of the training in passes over the images")
    steps: int | None = _option(None, "its length in optimiser steps, instead of epochs", int)
    lr: float = _option(1e-3, "learning rate of the weights; biases have twice as much")
    decay_at: tuple[float, ...] = _option(
        (80 / 96, 88 / 96), "fractions of the training after which the rate falls to a tenth", float
    )
    points: int = _option(2000, "pixels drawn from each image")
    images: int = _option(5, "images of a mini-batch, on each rank")
    positives: float = _option(0.5, "fraction of edges among the drawn pixels (edges only)")
    random_scales: tuple[float, ...] = _option(
        (), "training images are resized by one of these factors, drawn anew each time", float
    )
    reduced: bool = _option(False, "images of the reduced size that the data set's row names")
    seed: int = _option(1989, "of everything random")


_PAPER = Setup()
PRESETS = {
    # Section 4, default network and training.
    "paper": _PAPER,
    # Section 4.1, Analysis-4: goes on from a trained network, at all scales of the test.
    "multi-scale": dataclasses.replace(
        _PAPER, epochs=24.0, decay_at=(8 / 24, 16 / 24), random_scales=(0.25, 0.5, 1.0)
    ),
    # The head alone, on ImageNet features that come as a package.
    "frozen": dataclasses.replace(
        _PAPER,
        backbone="efficientnet-lite0",
        pretrained="imagenet",
        frozen=True,
        hidden=(512, 512),
        head_batch_norm=True,
        init="kaiming",
        lr=0.02,
    ),
    # Two CPU cores and minutes: an eighth of the width, from scratch.
    "small": dataclasses.replace(
        _PAPER,
        steps=400,
        width=1 / 8,
        batch_norm=True,
        hidden=(128, 128),
        dropout=0.0,
        init="kaiming",
        lr=0.05,
        points=500,
        reduced=True,
    ),
}
