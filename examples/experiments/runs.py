"""One training run of the experiments: a configuration in, test metrics and loss curve out."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from pixelnet_triton.data import (
    BSDS500,
    CamVid,
    Compose,
    RandomCrop,
    RandomHorizontalFlip,
    RandomScale,
    RenderedScenes,
    Resize,
    Sample,
)
from pixelnet_triton.models import PixelMLP, PixelNet
from pixelnet_triton.recipes import (
    PRESETS,
    Setup,
    TaskCard,
    View,
    evaluate,
    evaluate_boundaries,
    find,
    network,
)
from pixelnet_triton.recipes.ranks import Samples
from pixelnet_triton.sampling import BiasedSampler, UniformSampler
from pixelnet_triton.training import (
    EDGE_RECIPE,
    Depth,
    Edges,
    Normals,
    PixelNetModule,
    Recipe,
    Segmentation,
    StepLoader,
    Task,
    fit,
)

__all__ = ["Configuration", "run", "train_quietly"]

SIZE = (90, 120)  # of CamVid, a quarter of 360 x 480, and of the rooms
BSDS_SCALE, BSDS_TESTED, BSDS_THRESHOLDS = 0.5, 25, 15  # of 200 test images, of 99 thresholds
SCENES = (400, 100)  # rendered rooms for training and for the test
CURVE = 25  # points of the recorded loss curve
SMALL = PRESETS["small"]


@dataclass(frozen=True)
class Configuration:
    """The fields that determine a run.

    Args:
        task: ``"segmentation"``, ``"edges"``, ``"normals"`` or ``"depth"``.
        features: what the predictor sees at a pixel. ``"trained"``: hypercolumns of a VGG-16
            that is trained along; ``"random"``: those of one that stays as it was initialised;
            ``"colour"``: the pixel's own colour; ``"none"``: nothing, so that the predictor is
            the constant that the loss prefers.
        hidden: widths of the predictor's hidden layers; () is the linear one, fc-1.
        head_batch_norm: batch normalisation of the hypercolumns.
        points, images: N and M of a mini-batch.
        steps, lr, seed: of the training.
        positives: fraction of edges among the sampled pixels; None samples uniformly.
    """

    task: str
    features: str = "trained"
    hidden: tuple[int, ...] = SMALL.hidden
    head_batch_norm: bool = False
    points: int = SMALL.points
    images: int = SMALL.images
    steps: int = 400
    lr: float = SMALL.lr
    seed: int = 0
    positives: float | None = None


def run(configuration: Configuration) -> dict[str, Any]:
    """Train and test; everything random follows from the configuration."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    task = _task(configuration)
    train, test = _data(configuration.task)
    model = _model(configuration, task)
    edges = configuration.task == "edges"
    recipe = dataclasses.replace(EDGE_RECIPE if edges else Recipe(), lr=configuration.lr)
    loader = StepLoader(
        train,
        configuration.images,
        seed=configuration.seed,
        transform=_augmentation(configuration.task),
    )
    module = PixelNetModule(model, task, recipe=recipe, seed=configuration.seed)
    losses = train_quietly(module, loader, configuration.steps)
    card = _card(configuration.task)
    measured = evaluate(model, card, test, progress=False).metrics
    metrics = {name: value for name, value in measured.items() if "/" not in name}
    if edges:
        scores = evaluate_boundaries(
            model,
            dataclasses.replace(card, view=View(scale=BSDS_SCALE)),
            BSDS500(_needed("bsds500"), "test"),
            images=BSDS_TESTED,
            thresholds=BSDS_THRESHOLDS,
            workers=1,
            progress=False,
        ).metrics
        metrics |= {name: scores[name] for name in ("ods", "ois", "ap")}
    curve = losses.curve()
    metrics["last_loss"] = curve[-1]
    return {name: round(value, 5) for name, value in metrics.items()} | {"losses": curve}


def _task(configuration: Configuration) -> Task:
    uniform = UniformSampler(configuration.points)
    match configuration.task:
        case "segmentation":
            return Segmentation(len(CamVid.CLASSES), uniform)
        case "normals":
            return Normals(uniform)
        case "depth":
            return Depth(uniform)
        case "edges":
            if configuration.positives is None:
                return Edges(uniform)
            return Edges(BiasedSampler(configuration.points, configuration.positives))
    raise ValueError(f"task={configuration.task!r} is unknown")


def _card(task: str) -> TaskCard:
    """Of images that have been reduced before, and are seen as they are."""
    classes = CamVid.CLASSES if task == "segmentation" else ()
    return TaskCard(task, task, classes=classes)


def _model(configuration: Configuration, task: Task) -> PixelNet:
    setup = dataclasses.replace(
        SMALL,
        hidden=configuration.hidden,
        head_batch_norm=configuration.head_batch_norm,
        seed=configuration.seed,
    )
    if configuration.features in ("colour", "none"):
        return _shallow_network(setup, task, float(configuration.features == "colour"))
    model = network(setup, _card(configuration.task))
    if configuration.features == "random":
        # Its batch normalisations still follow the statistics of the images.
        model.backbone.requires_grad_(False)
    return model


def _shallow_network(setup: Setup, task: Task, factor: float) -> PixelNet:
    """A predictor on the image times `factor`."""
    torch.manual_seed(setup.seed)
    head = PixelMLP(
        [3], setup.hidden, out_features=task.out_features, init=setup.init, batch_norm=True
    )
    return PixelNet(_Scaled(factor), head, output=task.output)


class _Scaled(nn.Module):
    """The image times a factor, as the only map."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: Tensor) -> list[Tensor]:
        return [images * self.factor]


@cache
def _data(task: str) -> tuple[Samples, Samples]:
    """Training and test set, decoded and reduced once a process."""
    if task in ("normals", "depth"):
        count, tested = SCENES
        return (
            _Loaded(RenderedScenes(count, task, size=SIZE, seed=1)),
            _Loaded(RenderedScenes(tested, task, size=SIZE, seed=2)),
        )
    if task == "segmentation":
        resize = Resize(SIZE)
        folder = _needed("camvid")
        return _Loaded(CamVid(folder, "train", resize)), _Loaded(CamVid(folder, "test", resize))
    half, folder = RandomScale((BSDS_SCALE,)), _needed("bsds500")
    return (
        _Loaded(BSDS500(folder, "trainval", half)),
        _Loaded(BSDS500(folder, "test", half), BSDS_TESTED),
    )


def _needed(name: str) -> Path:
    root = find("edges" if name == "bsds500" else "segmentation", name)[1]
    assert root is not None
    return root


class _Loaded:
    """The first samples of a data set, in memory."""

    def __init__(self, data: Samples, count: int | None = None) -> None:
        self.samples = [data[index] for index in range(count or len(data))]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


def _augmentation(task: str) -> Compose:
    if task == "edges":
        return Compose([RandomCrop((112, 112)), RandomHorizontalFlip()])
    return Compose([RandomHorizontalFlip()])


def train_quietly(module: PixelNetModule, loader: StepLoader, steps: int) -> Losses:
    """Train on the CPU without a word, and leave nothing but the losses behind."""
    losses = Losses()
    with tempfile.TemporaryDirectory() as folder:
        fit(
            module,
            loader,
            folder=folder,
            steps=steps,
            checkpoint_every=steps,
            callbacks=[losses],
            accelerator="cpu",
            devices=1,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=min(50, len(loader)),  # Lightning warns of fewer batches than that
        )
    return losses


class Losses(Callback):
    """The loss of every step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.values.append(float(outputs["loss"]))

    def curve(self) -> list[float]:
        """Means over equally long stretches of the training."""
        stretches = torch.tensor(self.values).tensor_split(min(CURVE, len(self.values)))
        return [round(float(stretch.mean()), 4) for stretch in stretches]
