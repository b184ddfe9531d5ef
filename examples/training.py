"""What the recipe scripts share: the settings of a run, its command line, its network.

Each script has two presets. The default is the paper's: VGG-16 at full width, a 4096-4096 head
with Gaussian initialisation and dropout, 2,000 pixels of each of 5 images, SGD at 1e-3; it wants
a GPU and ImageNet weights (``--pretrained``). ``--small`` is for two CPU cores and minutes: an
eighth of the width, from scratch with batch normalisation, images at a third of their size.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from tqdm import tqdm

from pixelnet_triton.data import RenderedScenes, Sample, collate
from pixelnet_triton.models import VGG16, PixelMLP, PixelNet
from pixelnet_triton.training import PixelNetModule, Recipe, StepLoader, Task, Transform, fit

__all__ = [
    "PAPER", "SMALL", "Samples", "Setup", "Share", "data_folder", "evaluate", "first_process",
    "network", "parser", "print_metrics", "read_setup", "rendered", "train",
]  # fmt: skip


class Samples(Protocol):
    """A data set: its items are dicts of image, target, kind and name."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...


def _option(default: Any, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Setup:
    """The fields that determine a run, besides task, data and decay of the learning rate.

    A field's `help` is that of its option on the command line.
    """

    steps: int = _option(7000, "optimiser steps of the whole training")
    width: float = _option(1.0, "factor on VGG-16's numbers of channels")
    batch_norm: bool = _option(False, "batch normalisation after every convolution")
    hidden: tuple[int, ...] = _option((4096, 4096), "widths of the head's hidden layers")
    head_batch_norm: bool = _option(False, "batch normalisation of the hypercolumns")
    dropout: float = _option(0.5, "probability, after each hidden layer")
    init: str = _option("gaussian", "of the head: gaussian, normals or kaiming")
    lr: float = _option(1e-3, "learning rate of the weights; biases have twice as much")
    points: int = _option(2000, "pixels drawn from each image")
    images: int = _option(5, "images of a mini-batch, on each rank")
    seed: int = _option(1989, "of everything random")


PAPER = Setup()
SMALL = Setup(
    steps=400,
    width=1 / 8,
    batch_norm=True,
    hidden=(128, 128),
    dropout=0.0,
    init="kaiming",
    lr=0.05,
    points=500,
)


def parser(description: str | None, *, data: str | None) -> argparse.ArgumentParser:
    """The command line of a recipe; `data` names the subfolder of PIXELNET_DATA, if it needs one.

    An option that is not given keeps the value of the preset.
    """
    result = argparse.ArgumentParser(
        prog=f"python -m examples.{Path(sys.argv[0]).stem}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if data is not None:
        result.add_argument("--data", type=Path, default=data_folder(data), help="the data set")
    result.add_argument("--out", type=Path, required=True, help="folder of checkpoints and logs")
    result.add_argument("--resume", action="store_true", help="go on from OUT/last.ckpt")
    result.add_argument("--small", action="store_true", help="the preset for two CPU cores")
    result.add_argument("--pretrained", help="torchvision's vgg16 weights: a .pth file")
    for field in dataclasses.fields(Setup):
        default = getattr(PAPER, field.name)
        name = "--" + field.name.replace("_", "-")
        text = field.metadata["help"]
        if isinstance(default, bool):
            action = argparse.BooleanOptionalAction
            result.add_argument(name, action=action, default=None, help=text)
        elif isinstance(default, tuple):
            result.add_argument(name, type=int, nargs="*", metavar="WIDTH", help=text)
        else:
            result.add_argument(name, type=type(default), help=text)
    every = "between checkpoints (200); there is one at the end too"
    result.add_argument("--checkpoint-every", type=int, default=200, metavar="STEPS", help=every)
    result.add_argument("--workers", type=int, default=0, help="processes that read images")
    result.add_argument("--accelerator", default="auto", help="cpu, gpu ... (Lightning)")
    result.add_argument("--devices", default="auto", help="how many, or which (Lightning)")
    result.add_argument("--strategy", default="auto", help="ddp ... (Lightning)")
    result.add_argument("--precision", default="32-true", help="bf16-mixed, 16-mixed ...")
    return result


def data_folder(name: str) -> Path | None:
    """The data set below the folder PIXELNET_DATA, where that is set and has it."""
    data = os.environ.get("PIXELNET_DATA")
    if not data:
        return None
    folder = Path(data) / name
    return folder if folder.is_dir() else None


def read_setup(arguments: argparse.Namespace, *, paper: Setup, small: Setup) -> Setup:
    """The preset with the options that were given in its place."""
    given: dict[str, Any] = {
        field.name: tuple(value) if isinstance(value, list) else value
        for field in dataclasses.fields(Setup)
        if (value := getattr(arguments, field.name)) is not None
    }
    return dataclasses.replace(small if arguments.small else paper, **given)


def network(setup: Setup, task: Task, pretrained: str | None = None) -> PixelNet:
    """VGG-16 and an MLP of the setup's sizes, initialised from its seed."""
    torch.manual_seed(setup.seed)
    backbone = VGG16(batch_norm=setup.batch_norm, width=setup.width, normalization="torchvision")
    if pretrained is not None:
        backbone.load_torchvision(pretrained)
    head = PixelMLP(
        backbone.channels,
        setup.hidden,
        out_features=task.out_features,
        dropout=setup.dropout,
        init=setup.init,
        batch_norm=setup.head_batch_norm,
    )
    return PixelNet(backbone, head, output=task.output)


def train(
    arguments: argparse.Namespace,
    setup: Setup,
    task: Task,
    data: Samples,
    validation: Samples | None,
    *,
    transform: Transform | None = None,
    recipe: Recipe,
) -> PixelNet:
    """Train as the command line says; `recipe` gives the shape of the schedule."""
    model = network(setup, task, arguments.pretrained)
    module = PixelNetModule(
        model, task, recipe=dataclasses.replace(recipe, lr=setup.lr), seed=setup.seed
    )
    loader = StepLoader(
        data, setup.images, seed=setup.seed, transform=transform, workers=arguments.workers
    )
    print(f"{type(task).__name__}: {len(data)} images, {setup}", flush=True)
    trainer = fit(
        module,
        loader,
        None if validation is None else Share(validation),
        folder=arguments.out,
        steps=setup.steps,
        resume=arguments.resume,
        checkpoint_every=arguments.checkpoint_every,
        accelerator=arguments.accelerator,
        devices=arguments.devices,
        strategy=arguments.strategy,
        precision=arguments.precision,
        # About ten validations in a run, whatever an epoch's length.
        val_check_interval=max(1, setup.steps // 10),
        check_val_every_n_epoch=None,
        log_every_n_steps=min(10, len(loader)),  # Lightning's logs end with an epoch
    )
    # Lightning takes the model to the CPU at the end, where the evaluation would be slow.
    return model.to(trainer.strategy.root_device)


def rendered(kind: str, *, small: bool) -> tuple[Samples, Samples]:
    """Rooms for training and for the test, as many as 2 cores or a GPU have time for."""
    size, count = ((120, 160), 400) if small else ((240, 320), 5000)
    # Other seeds, other rooms: nothing of the test is seen in training.
    return (
        RenderedScenes(count, kind, size=size, seed=1),
        RenderedScenes(100, kind, size=size, seed=2),
    )


def evaluate(
    model: PixelNet, task: Task, data: Samples, *, progress: bool = True
) -> dict[str, float]:
    """The task's metrics over whole images, predicted densely on the model's device.

    Under ``torch.distributed`` the ranks share the images, and each gets the metrics of all.
    """
    device = next(model.parameters()).device
    metrics = task.metrics().to(device)
    batches = Share(data)
    progress = progress and first_process()
    for batch in tqdm(batches, "evaluation", unit="image", leave=False, disable=not progress):
        prediction = model.predict(batch["image"].to(device))
        metrics.update(prediction, batch["target"].to(device))
    # compute adds up the counts of all ranks: that is how torchmetrics treats them
    return {name: float(value) for name, value in metrics.compute().items()}


class Share:
    """This rank's samples of a data set, as batches of one; all of them without ranks."""

    def __init__(self, data: Samples) -> None:
        self.data = data

    def _indices(self) -> range:
        rank, world = (dist.get_rank(), dist.get_world_size()) if _has_ranks() else (0, 1)
        count = len(self.data)
        # With fewer samples than ranks each takes all: metrics are ratios, and none is without.
        return range(rank, count, world) if count >= world else range(count)

    def __len__(self) -> int:
        return len(self._indices())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for index in self._indices():
            yield collate([self.data[index]])


def first_process() -> bool:
    """Whether this process is the one that reports: rank 0, or the only one."""
    return not _has_ranks() or dist.get_rank() == 0


def _has_ranks() -> bool:
    return dist.is_available() and dist.is_initialized()


def print_metrics(title: str, metrics: dict[str, float]) -> None:
    """One line a metric, from the first process."""
    if not first_process():
        return
    print(f"{title}:")
    for name, value in metrics.items():
        print(f"  {name:<28}{value:.4f}")
