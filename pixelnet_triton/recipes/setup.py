"""The settings of a run, and the presets from which they start."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..models.presets import CONV7_LAYERS
from ..training import Recipe
from ..training.presets import PRESETS as PAPERS
from .numbers import COUNT, FACTOR, FRACTION, RATE, SEED

__all__ = ["PRESETS", "Setup"]

_BASELINE = PAPERS["segmentation-baseline"]
_MULTI_SCALE = PAPERS["segmentation-multi-scale"]
_HEAD = _BASELINE.network.head


def _option(default: Any, text: str, kind: Callable[[str], Any] | None = None) -> Any:
    """A field, its help, and what reads its values where that is not the default's type."""
    kind = type(default) if kind is None else kind
    return dataclasses.field(default=default, metadata={"help": text, "type": kind})


@dataclass(frozen=True)
class Setup:
    """The fields that determine a training, besides task and data.

    The defaults are those of the paper's baseline. A field's `help` is that of its option on the
    command line.

    Example:
        >>> from pixelnet_triton.recipes import PRESETS
        >>> PRESETS["paper"].hidden, PRESETS["small"].hidden
        ((4096, 4096), (128, 128))
    """

    # The network.
    backbone: str = _option("vgg16", "the network that gives the maps, by name")
    pretrained: str | None = _option(
        None, "its weights: a file, or 'imagenet' where a package has them", str
    )
    normalization: str = _option("torchvision", "of VGG-16's images, as its weights want it")
    frozen: bool = _option(False, "the backbone is not trained")
    layers: tuple[str, ...] = _option((), "names of its maps; none takes the backbone's own", str)
    fixed_statistics: bool = _option(
        False, "batch normalisation of a pretrained backbone keeps its statistics"
    )
    width: float = _option(1.0, "factor on VGG-16's numbers of channels", FACTOR)
    batch_norm: bool = _option(False, "VGG-16 with batch normalisation after every convolution")
    hidden: tuple[int, ...] = _option(
        tuple(_HEAD["hidden_features"]), "widths of the head's hidden layers", COUNT
    )
    head_batch_norm: bool = _option(False, "batch normalisation of the hypercolumns")
    dropout: float = _option(_HEAD["dropout"], "probability, after each hidden layer", FRACTION)
    init: str = _option(_HEAD["init"], "of the head: gaussian, normals or kaiming")
    # The mini-batches.
    points: int = _option(2000, "pixels drawn from each image", COUNT)
    images: int = _option(_BASELINE.images, "images of a mini-batch, on each rank", COUNT)
    positives: float = _option(
        0.5, "fraction of edges among the drawn pixels (edges only)", FRACTION
    )
    reduced: bool = _option(False, "images of the reduced size that the data set's row names")
    scale: float | None = _option(
        None, "factor on the size of images, instead of the data set's", FACTOR
    )
    random_scales: tuple[float, ...] = _option(
        (), "training images are resized by one of these factors, drawn anew each time", FACTOR
    )
    turned: bool = _option(False, "training images turned by 16 angles and mirrored, as HED's")
    crop: tuple[int, ...] = _option((), "height and width of crops of training images", COUNT)
    mirror: bool = _option(True, "training images are mirrored every other time")
    colours: bool = _option(True, "their colours are scaled at random")
    # The optimiser.
    epochs: float = _option(
        float(_BASELINE.epochs), "length of the training in passes of all ranks together", FACTOR
    )
    steps: int | None = _option(None, "its length in optimiser steps, instead of epochs", COUNT)
    lr: float = _option(
        _BASELINE.recipe.lr, "learning rate of weights; of biases twice as much", RATE
    )
    backbone_lr: float = _option(1.0, "that of the backbone, as a multiple of the head's", RATE)
    schedule: str = _option("step", "of the rate: step, as the paper's, or cosine")
    decay_at: tuple[float, ...] = _option(
        _BASELINE.recipe.decay_at,
        "fractions of the training after which step lowers the rate to a tenth",
        FRACTION,
    )
    warmup: float = _option(0.0, "fraction of the training in which the rate rises", FRACTION)
    seed: int = _option(1989, "of everything random", SEED)

    def recipe(self) -> Recipe:
        """The optimiser."""
        return Recipe(
            lr=self.lr,
            decay_at=self.decay_at,
            backbone_lr_multiplier=self.backbone_lr,
            schedule=self.schedule,
            warmup=self.warmup,
        )


_PAPER = Setup()
# A head that needs no more than minutes on two CPU cores, on features that come as a package.
_FROZEN = dataclasses.replace(
    _PAPER,
    backbone="efficientnet-lite0",
    pretrained="imagenet",
    frozen=True,
    colours=False,  # so that features may be kept
    hidden=(256, 256),
    head_batch_norm=True,
    dropout=0.0,
    init="kaiming",
    points=200,
    steps=1500,
    lr=0.02,
)

#: By name: the paper's baseline; that with conv-7 (section 4.1, Analysis-3); the fine-tuning of a
#: trained network at all scales (Analysis-4); a narrow VGG-16 from scratch, for two CPU cores;
#: EfficientNet-lite0 from ImageNet, kept as it is or trained along.
PRESETS = {
    "paper": _PAPER,
    "paper-conv7": dataclasses.replace(_PAPER, layers=CONV7_LAYERS),
    "multi-scale": dataclasses.replace(
        _PAPER,
        epochs=float(_MULTI_SCALE.epochs),
        decay_at=_MULTI_SCALE.recipe.decay_at,
        random_scales=_MULTI_SCALE.scales,
    ),
    "small": dataclasses.replace(
        _PAPER,
        width=1 / 8,
        batch_norm=True,
        hidden=(128, 128),
        dropout=0.0,
        init="kaiming",
        points=500,
        reduced=True,
        steps=400,
        lr=0.05,
    ),
    "frozen": _FROZEN,
    "finetuned": dataclasses.replace(
        _FROZEN,
        frozen=False,
        colours=True,
        fixed_statistics=True,
        points=700,
        images=3,
        steps=400,
        backbone_lr=0.25,
        schedule="cosine",
        warmup=0.1,
    ),
}
