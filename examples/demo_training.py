"""A small PixelNet learns from real images, in about a minute on two cores: the end of `make demo`.

    python -m examples.demo_training

Where CamVid is at hand (a folder camvid below PIXELNET_DATA), it learns the 11 classes of road
scenes, and is tested on images it has not seen. Otherwise it learns depth from the one photograph
with measured depth that comes with an installed package: the left view of Middlebury's
"Motorcycle" (Scharstein et al., 2014; scikit-image), whose disparity was measured by structured
light. It is trained on the left three fifths and tested on the rest. A network that has seen one
photograph knows that photograph; what it shows is that training works, not how well depth can be
estimated.

The loss must fall and the test be better than a constant, or the exit status is 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from pixelnet_triton.data import CamVid, Compose, RandomCrop, RandomHorizontalFlip, Resize, Sample
from pixelnet_triton.models import PixelNet
from pixelnet_triton.recipes import PRESETS, Setup, TaskCard, find, network
from pixelnet_triton.recipes.ranks import Samples
from pixelnet_triton.training import (
    PixelNetModule,
    Recipe,
    StepLoader,
    Transform,
    fit,
)  # fmt: skip

PICTURE = Path(__file__).resolve().parent.parent / "out" / "demo_training.png"
REPORTS = 10  # lines of progress
SMALL = PRESETS["small"]


@dataclass(frozen=True)
class Lesson:
    """What is learned, from what, and how it is shown."""

    title: str
    card: TaskCard
    setup: Setup
    steps: int
    train: Samples
    transform: Transform
    test: list[Sample]
    constant: Tensor  # an output (K,) to be better than, as `PixelNet.predict` gives it
    lower_is_better: bool
    colours: Callable[[Tensor], np.ndarray]  # a target (H, W) as an RGB picture


def camvid(folder: Path) -> Lesson:
    """Road scenes at a third of their size; the constant is the most frequent class."""
    resize = Resize((120, 160))
    train, test = (CamVid(folder, split, resize, cache=True) for split in ("train", "test"))
    counts = torch.zeros(256, dtype=torch.int64)
    for index in range(len(train)):
        counts += torch.bincount(train[index]["target"].flatten(), minlength=256)
    classes = len(CamVid.CLASSES)
    palette = np.zeros((256, 3))
    palette[:classes] = np.array(CamVid.PALETTE) / 255
    return Lesson(
        f"CamVid, {classes} classes, {len(train)} images at 120 x 160",
        TaskCard("segmentation", "camvid", classes=CamVid.CLASSES),
        SMALL,
        700,
        train,
        RandomHorizontalFlip(),
        [test[index] for index in range(0, len(test), 4)],
        (counts[:classes] == counts[:classes].max()).float(),
        lower_is_better=False,
        colours=lambda labels: palette[labels.numpy()],
    )


def motorcycle() -> Lesson:
    """Depth from one photograph; the constant is the median of the depths in training."""
    from matplotlib import colormaps
    from skimage.data import stereo_motorcycle

    image, _, disparity = stereo_motorcycle()
    # The calibration is in the docstring of `stereo_motorcycle`: f = 994.978 pixels, a baseline
    # of 0.193001 m, and principal points that differ by 31.086 pixels.
    depth = np.nan_to_num(994.978 * 0.193001 / (disparity + 31.086), posinf=0.0)
    half = Resize((250, 370))(
        {
            "image": torch.from_numpy(image).permute(2, 0, 1).float() / 255,
            "target": torch.from_numpy(depth).float(),
            "kind": "depth",
        }
    )
    border = 222  # three fifths of 370
    left = {**half, "image": half["image"][..., :border], "target": half["target"][..., :border]}
    right = half["target"].clone()
    right[:, :border] = 0  # unknown, so not tested
    setup = dataclasses.replace(SMALL, lr=0.02)
    known = left["target"][left["target"] > 0]
    return Lesson(
        f"depth of Middlebury's Motorcycle from one view: trained on columns 0 to {border - 1}, "
        f"tested on {border} to 369",
        TaskCard("depth", "motorcycle"),
        setup,
        400,
        [left] * setup.images,
        Compose([RandomCrop((160, 160))]),
        [{**half, "tested": right}],
        known.median()[None],
        lower_is_better=True,
        colours=lambda z: (
            colormaps["viridis_r"]((z.clamp(2, 5) - 2).numpy() / 3)[..., :3]
            * (z > 0)[..., None].numpy()
        ),
    )


class Progress(Callback):
    """A line with the mean loss, ten times in a run."""

    def __init__(self, steps: int) -> None:
        self.every = max(1, steps // REPORTS)
        self.losses: list[float] = []
        self.start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.losses.append(float(outputs["loss"]))
        step = len(self.losses)
        if step % self.every == 0:
            mean = sum(self.losses[-self.every :]) / self.every
            seconds = time.perf_counter() - self.start
            print(f"[{seconds:5.1f} s] step {step:4}: loss {mean:.3f}", flush=True)


def score(lesson: Lesson, predictions: list[Tensor]) -> float:
    """The task's metric over the test."""
    task = lesson.card.task(lesson.setup)
    metric = task.metrics()
    for sample, prediction in zip(lesson.test, predictions, strict=True):
        tested = sample["tested"] if "tested" in sample else sample["target"]
        metric.update(prediction, tested[None])
    return float(metric.compute()[task.monitor])


def draw(lesson: Lesson, predictions: list[Tensor], caption: str) -> None:
    """Rows of image, ground truth and prediction."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = np.linspace(0, len(lesson.test) - 1, min(3, len(lesson.test))).round().astype(int)
    figure, rows = plt.subplots(
        len(shown), 3, figsize=(11, 2.5 * len(shown) + 0.7), layout="constrained", squeeze=False
    )
    for row, index in zip(rows, shown, strict=True):
        sample, prediction = lesson.test[index], predictions[index][0]
        dense = prediction.argmax(0) if len(prediction) > 1 else prediction[0]
        pictures = (
            sample["image"].permute(1, 2, 0).clamp(0, 1).numpy(),
            lesson.colours(sample["target"]),
            lesson.colours(dense),
        )
        titles = ("image", "ground truth (black: unknown)", "prediction")
        for axes, picture, title in zip(row, pictures, titles, strict=True):
            axes.imshow(picture, interpolation="nearest")
            axes.set_title(title, fontsize=10)
            axes.set_axis_off()
    figure.suptitle(caption, fontsize=10)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=110)
    plt.close(figure)


def learn(lesson: Lesson) -> tuple[PixelNet, list[float]]:
    """Train, printing the loss; returns the network and the losses of all steps."""
    setup = lesson.setup
    task = lesson.card.task(setup)
    model = network(setup, lesson.card)
    progress = Progress(lesson.steps)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        fit(
            PixelNetModule(model, task, recipe=Recipe(lr=setup.lr), seed=setup.seed),
            StepLoader(lesson.train, setup.images, seed=setup.seed, transform=lesson.transform),
            folder=folder,
            steps=lesson.steps,
            callbacks=[progress],
            accelerator="cpu",
            enable_progress_bar=False,
            log_every_n_steps=1,
            enable_model_summary=False,
        )
    return model, progress.losses


def main() -> int:
    argparse.ArgumentParser(
        prog="python -m examples.demo_training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    return learn_and_test()


def learn_and_test() -> int:
    """The lesson that the machine has data for; returns the exit status."""
    try:
        folder = find("segmentation", "camvid")[1]
    except FileNotFoundError:
        folder = None
        print("no CamVid below PIXELNET_DATA: learning from scikit-image's photograph instead")
    lesson = motorcycle() if folder is None else camvid(folder)
    setup = lesson.setup
    print(
        f"training a PixelNet: {lesson.title}\n"
        f"VGG-16 of {setup.width:g} the width, MLP {'-'.join(map(str, setup.hidden))}, "
        f"{setup.points} pixels of each of {setup.images} images a step, {lesson.steps} steps"
    )
    model, losses = learn(lesson)
    predictions = [model.predict(sample["image"][None]) for sample in lesson.test]
    constants = [lesson.constant[None, :, None, None].expand_as(p) for p in predictions]
    reached, constant = score(lesson, predictions), score(lesson, constants)
    tenth = len(losses) // 10
    before, after = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
    monitor = lesson.card.task(setup).monitor
    caption = (
        f"{lesson.title}\ntest: {monitor} {reached:.3f} after {lesson.steps} steps; "
        f"the training set's constant has {constant:.3f}"
    )
    draw(lesson, predictions, caption)
    print(f"loss {before:.3f} -> {after:.3f} (first and last tenth)")
    print(caption.split("\n")[1])
    print(f"the picture: {PICTURE}")
    better = reached < constant if lesson.lower_is_better else reached > constant
    if not (after < 0.7 * before and better):
        print("the network did not learn: this is a bug, please report it", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
