"""Train a network as its setup says, on a data set of the table."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..models import PixelNet
from ..tools.settings import whole_number
from ..training import CachedFeatures, PixelNetModule, StepLoader, Transform, fit
from .card import TaskCard
from .datasets import DataSet
from .network import network, trained
from .ranks import (
    Batches,
    Samples,
    expected_ranks,
    first_process,
    share_statistics,
    torchruns_ranks,
)
from .setup import Setup

__all__ = ["train"]

VALIDATIONS = 10  # in a run, whatever an epoch's length ...
BETWEEN = 20  # ... but for short ones: fewest steps between two


def train(
    data: DataSet,
    root: str | os.PathLike[str] | None,
    setup: Setup,
    out: str | os.PathLike[str],
    *,
    init_from: str | os.PathLike[str] | None = None,
    features: str | os.PathLike[str] | None = None,
    resume: bool = False,
    checkpoint_every: int = 200,
    workers: int = 0,
    **options: Any,
) -> PixelNet:
    """Train, and write ``out/last.ckpt``, to go on from, and ``out/model.safetensors``, to use.

    Args:
        data, root: a row of the table and its folder, as :func:`~pixelnet_triton.recipes.find`
            gives them.
        setup: of the run; ``data.setup("paper")`` is the paper's for this data set.
        out: a folder, made if it is missing. Logs go there too.
        init_from: a checkpoint of the same task, to begin with its network and weights.
        features: a folder in which the maps of a frozen backbone are kept, of each image and of its
            mirror image, so that they are computed once
            (:class:`~pixelnet_triton.training.CachedFeatures`).
        resume: go on from ``out/last.ckpt``.
        checkpoint_every: steps.
        workers: processes that read images.
        **options: of ``lightning.Trainer``, such as accelerator, devices, strategy, precision.
            Below torchrun devices and num_nodes are its own, unless they are given.

    Returns:
        The network, on the device of the training.

    Raises:
        FileExistsError: `out` holds a checkpoint, and `resume` is False.
        FileNotFoundError, ValueError: of the data, the setup, the machine or the checkpoint.
        Terminated: SIGTERM stopped it.
        ModuleNotFoundError: the backbone's package is missing.
    """
    root, out = None if root is None else Path(root), Path(out)
    if options.get("devices", "auto") == "auto":
        ranks = torchruns_ranks()
        options = {**ranks, **options, "devices": ranks.get("devices", "auto")}
    world, first = expected_ranks(options)
    samples, transform = data.training(root, setup)
    card = TaskCard.of(data.task, data.name, data.seen(setup), samples)
    model = network(setup, card) if init_from is None else trained(init_from, setup, card)
    module = PixelNetModule(model, card.task(setup), recipe=setup.recipe(), seed=setup.seed)
    steps = _steps(setup, len(samples), world)
    if first:
        print(f"{data.task} on {data.name}: {len(samples)} images, {steps} steps\n{setup}")
    loader = _loader(model, samples, transform, setup, workers, features, progress=first)
    validation = data.validation(root, setup)
    log_every = max(1, min(10, len(loader) // world))  # Lightning's logs end with an epoch
    trainer = fit(
        module,
        loader,
        None if validation is None else Batches(validation),
        folder=out,
        steps=steps,
        resume=resume,
        checkpoint_every=checkpoint_every,
        val_check_interval=max(BETWEEN, steps // VALIDATIONS),
        check_val_every_n_epoch=None,
        log_every_n_steps=log_every,
        **options,
    )
    # Lightning takes the model to the CPU at the end, where the evaluation would be slow.
    model.to(trainer.strategy.root_device)
    share_statistics(model)  # one network is saved, and all ranks are to measure that
    if first_process():
        model.save(out / "model.safetensors")
    return model


def _steps(setup: Setup, images: int, world: int) -> int:
    """Of the whole training: an epoch is a pass of all ranks together."""
    if setup.steps is not None:
        return whole_number("steps", setup.steps)
    steps = round(setup.epochs * (images // (whole_number("images", setup.images) * world)))
    if steps < 1:
        raise ValueError(
            f"epochs={setup.epochs:g} of {images} images are no step of {setup.images} images on "
            f"each of {world} ranks; give more --epochs, or --steps, or fewer --images"
        )
    return steps


def _loader(
    model: PixelNet,
    samples: Samples,
    transform: Transform,
    setup: Setup,
    workers: int,
    features: str | os.PathLike[str] | None,
    *,
    progress: bool,
) -> StepLoader:
    """Mini-batches of images, or of their features."""
    if features is None:
        return StepLoader(
            samples, setup.images, seed=setup.seed, transform=transform, workers=workers
        )
    for name in ("random_scales", "crop", "colours"):
        if getattr(setup, name):
            raise ValueError(
                f"features are kept of images as they are, but {name}={getattr(setup, name)} "
                "changes them at each step; give --no-colours, and --crop and --random-scales "
                "without numbers, or leave --features out"
            )
    kept = CachedFeatures(samples, model, Path(features), flip=setup.mirror, progress=progress)
    return StepLoader(kept, setup.images, seed=setup.seed, workers=workers)
