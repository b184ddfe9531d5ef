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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from tqdm import tqdm

from pixelnet_triton.data import Sample
from pixelnet_triton.models import VGG16, PixelMLP, PixelNet
from pixelnet_triton.training import PixelNetModule, Recipe, StepLoader, Task, Transform, fit

from .scenes import RenderedScenes

__all__ = [
    "PAPER", "SMALL", "Samples", "Setup", "data_folder", "evaluate", "network", "parser",
    "print_metrics", "read_setup", "rendered", "train",
]  # fmt: skip


class Samples(Protocol):
    """A data set: its items are dicts of image, target, kind and name."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...


@dataclass(frozen=True)
class Setup:
    """What a run is determined by, besides task, data and decay of the learning rate."""

    steps: int = 7000
    width: float = 1.0
    batch_norm: bool = False
    hidden: tuple[int, ...] = (4096, 4096)
    head_batch_norm: bool = False
    dropout: float = 0.5
    init: str = "gaussian"
    lr: float = 1e-3
    points: int = 2000
    images: int = 5
    seed: int = 1989


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
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
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
        if isinstance(default, bool):
            result.add_argument(name, action=argparse.BooleanOptionalAction, default=None)
        elif isinstance(default, tuple):
            result.add_argument(name, type=int, nargs="*", metavar="WIDTH")
        else:
            result.add_argument(name, type=type(default))
    result.add_argument("--workers", type=int, default=0, help="processes that read images")
    result.add_argument("--checkpoint-every", type=int, default=200, metavar="STEPS")
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
    fit(
        module,
        loader,
        None if validation is None else torch.utils.data.DataLoader(validation),  # type: ignore[arg-type]
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
    return model


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
    """The task's metrics over whole images, predicted densely on the model's device."""
    device = next(model.parameters()).device
    metrics = task.metrics().to(device)
    indices = range(len(data))
    for index in tqdm(indices, "evaluation", unit="image", leave=False, disable=not progress):
        sample = data[index]
        prediction = model.predict(sample["image"][None].to(device))
        metrics.update(prediction, sample["target"][None].to(device))
    return {name: float(value) for name, value in metrics.compute().items()}


def print_metrics(title: str, metrics: dict[str, float]) -> None:
    """One line a metric."""
    print(f"{title}:")
    for name, value in metrics.items():
        print(f"  {name:<28}{value:.4f}")
