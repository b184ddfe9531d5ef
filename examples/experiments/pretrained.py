"""One run on an ImageNet-pretrained efficientnet-lite0, frozen or fine-tuned, on real data."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from pixelnet_triton.data import (
    BSDS500,
    CamVid,
    ColourScale,
    Compose,
    RandomCrop,
    RandomHorizontalFlip,
    Sample,
)
from pixelnet_triton.models import NetworkConfig, PixelNet, build
from pixelnet_triton.recipes import TaskCard, View, find
from pixelnet_triton.recipes.ranks import Samples
from pixelnet_triton.sampling import BiasedSampler, ClassBalancedSampler, UniformSampler
from pixelnet_triton.tools.cache import cache_folder
from pixelnet_triton.training import (
    EDGE_RECIPE,
    CachedFeatures,
    Edges,
    PixelNetModule,
    Recipe,
    Segmentation,
    StepLoader,
    Task,
)

from .pretrained_tests import evaluate_edges, evaluate_segmentation
from .runs import train_quietly

__all__ = ["Pretrained", "run"]

TAPS = ("_blocks.0", "_blocks.2", "_blocks.4", "_blocks.10", "_blocks.15")  # strides 2 ... 32
CONV7 = "_bn1"  # 1,280 channels at stride 32: the last convolution, as conv-7 is VGG's
CROP = (240, 240)  # of BSDS500's images, for fine-tuning


@dataclass(frozen=True)
class Pretrained:
    """The fields that determine a run.

    Args:
        task: ``"segmentation"`` (CamVid, 360 x 480) or ``"edges"`` (BSDS500 trainval, full size).
        finetuned: whether the backbone is trained along, from images; else from its kept features.
        conv7: whether the coarsest, widest map joins the hypercolumn.
        hidden: widths of the head's hidden layers.
        head_batch_norm: batch normalisation of the hypercolumns.
        init: of the head.
        points, images: N and M of a mini-batch.
        steps, lr, seed: of the training.
        schedule, backbone_lr_multiplier, warmup: as in :class:`pixelnet_triton.training.Recipe`.
        disparity: the finest map times this, the coarsest times 1, those between in equal ratios,
            as a network without batch normalisation may have them; of kept features.
        sampling: ``"uniform"``, ``"balanced"`` over the classes, or the share of edges, ``"50%"``.
        test: ``"points"`` (600 pixels of each of CamVid's 233 test images), ``"some"`` (every
            eighth of BSDS500's 200 test images with 15 thresholds, every tenth of CamVid's),
            ``"scales"`` (the same at several scales, and mirrored) or ``"all"`` (every pixel of
            every image, 99 thresholds).
    """

    task: str
    finetuned: bool = False
    conv7: bool = False
    hidden: tuple[int, ...] = (256, 256)
    head_batch_norm: bool = True
    init: str = "kaiming"
    points: int = 200
    images: int = 5
    steps: int = 600
    lr: float = 0.02
    seed: int = 0
    schedule: str = "step"
    backbone_lr_multiplier: float = 1.0
    warmup: float = 0.0
    disparity: float = 1.0
    sampling: str = "uniform"
    test: str = "points"


def run(configuration: Pretrained) -> dict[str, Any]:
    """Train and test; everything random follows from the configuration."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    c = configuration
    task = _task(c)
    torch.manual_seed(c.seed)
    model = build(_network(c, task))
    recipe = Recipe(
        lr=c.lr,
        decay_at=(EDGE_RECIPE if c.task == "edges" else Recipe()).decay_at,
        schedule=c.schedule,
        backbone_lr_multiplier=c.backbone_lr_multiplier,
        warmup=c.warmup,
    )
    loader = StepLoader(*_training_data(c), seed=c.seed, transform=_augmentation(c))
    kept = os.environ.get("PIXELNET_CHECKPOINTS")
    losses = train_quietly(PixelNetModule(model, task, recipe=recipe, seed=c.seed), loader, c.steps)
    if kept and c.test in ("all", "scales"):
        kind = "finetuned" if c.finetuned else "frozen"
        model.save(Path(kept) / f"{c.task}-{kind}-seed{c.seed}.safetensors")
    metrics = _test(c, model)
    curve = losses.curve()
    return metrics | {"last_loss": curve[-1], "losses": curve}


def _task(c: Pretrained) -> Task:
    if c.task == "segmentation":
        classes = len(CamVid.CLASSES)
        if c.sampling == "balanced":
            return Segmentation(classes, ClassBalancedSampler(c.points, num_classes=classes))
        return Segmentation(classes, UniformSampler(c.points))
    if c.sampling == "uniform":
        return Edges(UniformSampler(c.points))
    return Edges(BiasedSampler(c.points, float(c.sampling.removesuffix("%")) / 100))


def _network(c: Pretrained, task: Task) -> NetworkConfig:
    return NetworkConfig(
        backbone="efficientnet-lite0",
        backbone_options={
            "layers": [*TAPS, CONV7] if c.conv7 else list(TAPS),
            "frozen": not c.finetuned,
            "fixed_statistics": c.finetuned,
        },
        head={
            "hidden_features": list(c.hidden),
            "out_features": task.out_features,
            "dropout": 0.0,
            "init": c.init,
            "batch_norm": c.head_batch_norm,
        },
        output=task.output,
        task=_card(c.task).as_dict(),
    )


def _card(task: str) -> TaskCard:
    """What a checkpoint says of its task, for the commands."""
    if task == "edges":
        return TaskCard(task, "bsds500", View())
    return TaskCard(task, "camvid", View(), CamVid.CLASSES, CamVid.PALETTE)


def _training_data(c: Pretrained) -> tuple[Samples, int]:
    if c.finetuned:
        return _images(c.task, "train"), c.images
    return _Maps(features(c.task, "train"), c), c.images


def _augmentation(c: Pretrained) -> Compose | None:
    """Of images; kept features have their mirror images among them."""
    if not c.finetuned:
        return None
    colour_and_flip: list[Any] = [RandomHorizontalFlip(), ColourScale()]
    return Compose([RandomCrop(CROP), *colour_and_flip] if c.task == "edges" else colour_and_flip)


def _test(c: Pretrained, model: PixelNet) -> dict[str, Any]:
    images = _images(c.task, "test")
    if c.task == "edges":
        return evaluate_edges(model, images, c.test)
    if c.test == "points":
        maps = None if c.finetuned else _Maps(features(c.task, "test"), c)
        return evaluate_segmentation(model, images, c.test, maps)
    return evaluate_segmentation(model, images, c.test)


@cache
def _images(task: str, part: str) -> Any:
    name = "camvid" if task == "segmentation" else "bsds500"
    folder = find(task, name)[1]
    assert folder is not None
    if task == "segmentation":
        return CamVid(folder, part, cache=True)
    return BSDS500(folder, "trainval" if part == "train" else part, cache=True)


@cache
def features(task: str, part: str) -> CachedFeatures:
    """All maps of a data set, in the library's cache folder; of training images mirrored too."""
    images = _images(task, part)
    largest = Pretrained(task, conv7=True)
    model = build(_network(largest, _task(largest)))
    folder = cache_folder() / "features" / f"{task}-{part}"
    return CachedFeatures(images, model, folder, flip=part == "train")


class _Maps:
    """Of kept features the maps that a run takes."""

    def __init__(self, data: CachedFeatures, c: Pretrained) -> None:
        self.data = data
        count = len(TAPS) + c.conv7
        self.factors = [c.disparity ** (1 - i / (count - 1)) for i in range(count)]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Sample:
        sample = self.data[index]
        maps = zip(self.factors, sample["features"], strict=False)
        # float32: the products may be beyond float16.
        return {**sample, "features": [m if f == 1 else f * m.float() for f, m in maps]}

    def collate(self, samples: Sequence[Sample]) -> dict[str, Any]:
        return self.data.collate(samples)
