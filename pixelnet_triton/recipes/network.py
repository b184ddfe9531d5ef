"""The network of a setup, new or from a checkpoint, and what a checkpoint says of its task."""

from __future__ import annotations

import dataclasses
import os
import warnings
from pathlib import Path
from typing import Any

import torch

from ..models import VGG16, NetworkConfig, PixelNet, build
from .card import TaskCard
from .setup import Setup

__all__ = ["card_of", "has_card", "load", "network", "trained"]


def network(setup: Setup, card: TaskCard) -> PixelNet:
    """A new network of the setup's sizes, initialised from its seed.

    A VGG-16 of full width, without batch normalisation and without weights, gets a warning: the
    paper's recipes fine-tune one that ImageNet has trained, and learn little from a random one.

    Raises:
        ValueError: an unknown backbone, one that cannot have the setup's options, or frozen
            features that nothing has trained.
        ModuleNotFoundError: the backbone's package is missing.

    Example:
        >>> from pixelnet_triton.recipes import PRESETS, TaskCard, network
        >>> model = network(PRESETS["small"], TaskCard("depth", "rooms"))
        >>> model.head.in_channels, model.config.task["name"]
        ((8, 16, 32, 64, 64), 'depth')
    """
    if setup.frozen and setup.pretrained is None:
        raise ValueError(
            "frozen=True without pretrained weights would keep random features; give "
            "--pretrained imagenet or a file, or --init-from a checkpoint"
        )
    if setup.pretrained is None and _is_papers(setup):
        warnings.warn(
            "the VGG-16 begins with random weights, from which the paper's recipe learns little: "
            "give --pretrained vgg16.pth (pretrained=), or --init-from a trained checkpoint, or "
            "train a small network with --preset small",
            stacklevel=2,
        )
    task = card.task(setup)
    config = NetworkConfig(
        setup.backbone,
        _backbone_options(setup),
        {
            "hidden_features": setup.hidden,
            "out_features": task.out_features,
            "dropout": setup.dropout,
            "init": setup.init,
            "batch_norm": setup.head_batch_norm,
        },
        task.output,
        task=card.as_dict(),
    )
    torch.manual_seed(setup.seed)
    return _with_gradients(build(config), setup)


def trained(path: str | os.PathLike[str], setup: Setup, card: TaskCard) -> PixelNet:
    """The network of a checkpoint, to be trained on: its backbone frozen or not, as in `setup`.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: it was trained for another task, or other classes.
    """
    before = load(path)
    known, config = card_of(before), before.config
    assert config is not None  # or it would have no card
    if (known.name, known.classes) != (card.name, card.classes):
        raise ValueError(
            f"{path} was trained for {_described(known)}, and cannot begin a training for "
            f"{_described(card)}; expected the same task and classes"
        )
    options = dict(config.backbone_options)
    for name in ("frozen", "fixed_statistics"):
        if name in options:
            options[name] = getattr(setup, name)
    config = dataclasses.replace(config, backbone_options=options, task=card.as_dict())
    model = build(config, pretrained=False)
    model.load_state_dict(before.state_dict())
    return _with_gradients(model, setup).train()


def load(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> PixelNet:
    """The network of a checkpoint, in evaluation mode.

    Args:
        path: ``model.safetensors`` or ``last.ckpt`` of a training.
        device: where to put it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no checkpoint that says what its network is.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; expected model.safetensors or last.ckpt")
    return PixelNet.load(path, device=device)


def card_of(model: PixelNet) -> TaskCard:
    """What the model's configuration says of its task.

    Raises:
        ValueError: nothing; the model was not made by these recipes.
    """
    task = None if model.config is None else model.config.task
    if task is None or not has_card(model):
        raise ValueError(
            "the model does not say what its task is; expected a checkpoint that `python -m "
            "pixelnet_triton train` wrote, or a NetworkConfig(..., task=TaskCard(...).as_dict())"
        )
    return TaskCard.from_dict(task)


def has_card(model: PixelNet) -> bool:
    """Whether the configuration's task is a card, and not a description of the user's own."""
    task = None if model.config is None else model.config.task
    fields = {field.name for field in dataclasses.fields(TaskCard)}
    return task is not None and fields <= set(task)


def _is_papers(setup: Setup) -> bool:
    return setup.backbone == "vgg16" and setup.width == 1 and not setup.batch_norm


def _backbone_options(setup: Setup) -> dict[str, Any]:
    """What the backbone's maker takes of a setup."""
    options: dict[str, Any] = {"weights": setup.pretrained}
    if setup.layers:
        options["layers"] = setup.layers
    if setup.backbone == "vgg16":
        options |= {"width": setup.width, "batch_norm": setup.batch_norm}
        return {**options, "normalization": setup.normalization}
    if setup.width != 1 or setup.batch_norm:
        raise ValueError(
            f"width and batch_norm are VGG-16's, but backbone={setup.backbone!r}; leave them out"
        )
    return {**options, "frozen": setup.frozen, "fixed_statistics": setup.fixed_statistics}


def _with_gradients(model: PixelNet, setup: Setup) -> PixelNet:
    """VGG-16 has no options `frozen` and `fixed_statistics` of its own."""
    if setup.fixed_statistics and isinstance(model.backbone, VGG16):
        raise ValueError(
            "fixed_statistics=True, but batch normalisation of a VGG-16 has the statistics of its "
            "mini-batches; give --no-fixed-statistics, or another --backbone"
        )
    if setup.frozen:
        if isinstance(model.backbone, VGG16) and model.backbone.batch_norm:
            raise ValueError(
                "frozen=True, but the VGG-16 has batch normalisation, whose statistics would go "
                "on changing; leave --batch-norm or --frozen out"
            )
        model.backbone.requires_grad_(False)
    return model


def _described(card: TaskCard) -> str:
    return f"{card.name} of {len(card.classes)} classes" if card.classes else card.name
