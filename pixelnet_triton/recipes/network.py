"""The network of a setup, new or from a checkpoint, and what a checkpoint says of its task."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from ..models import VGG16, NetworkConfig, PixelNet, build
from .card import TaskCard
from .setup import Setup

__all__ = ["card_of", "load", "network", "trained"]


def network(setup: Setup, card: TaskCard) -> PixelNet:
    """A new network of the setup's sizes, initialised from its seed."""
    task = card.task(setup)
    options: dict[str, Any]
    if setup.backbone == "vgg16":
        options = {
            "width": setup.width,
            "batch_norm": setup.batch_norm,
            "normalization": "torchvision",
        }
    else:
        options = {"weights": setup.pretrained, "frozen": setup.frozen}
    config = NetworkConfig(
        backbone=setup.backbone,
        backbone_options=options,
        head={
            "hidden_features": list(setup.hidden),
            "out_features": task.out_features,
            "dropout": setup.dropout,
            "init": setup.init,
            "batch_norm": setup.head_batch_norm,
        },
        output=task.output,
        task=card.as_dict(),
    )
    torch.manual_seed(setup.seed)
    model = build(config)
    if isinstance(model.backbone, VGG16) and setup.pretrained is not None:
        model.backbone.load_torchvision(setup.pretrained)
    return model


def card_of(model: PixelNet) -> TaskCard:
    """What the model's configuration says of its task.

    Raises:
        ValueError: nothing; the model was not made by these recipes.
    """
    if model.config is None or model.config.task is None:
        raise ValueError(
            "the model does not say what its task is; expected a checkpoint that `python -m "
            "pixelnet_triton train` wrote"
        )
    return TaskCard.from_dict(model.config.task)


def load(path: Path, device: str | torch.device = "cpu") -> PixelNet:
    """The network of a checkpoint, ready to predict.

    Args:
        path: ``model.safetensors`` or ``last.ckpt`` of a training.
        device: where to put it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no checkpoint of these recipes.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; expected model.safetensors or last.ckpt")
    model = PixelNet.load(path, device=device)
    card_of(model)
    return model.eval()


def trained(path: Path, setup: Setup, card: TaskCard) -> PixelNet:
    """The network of a checkpoint, to be trained on: its backbone frozen or not, as in `setup`.

    Raises:
        ValueError: it was trained for another task, or other classes.
    """
    model = load(path)
    before = card_of(model)
    if (before.name, before.classes) != (card.name, card.classes):
        raise ValueError(
            f"{path} was trained for {before.name} of {len(before.classes)} classes, and cannot "
            f"begin a training for {card.name} of {len(card.classes)}; expected the same task"
        )
    options = dict(model.config.backbone_options)
    if "frozen" in options:
        options["frozen"] = setup.frozen
    config = dataclasses.replace(
        model.config, backbone_options={**options, "weights": None}, task=card.as_dict()
    )
    changed = build(config)
    changed.load_state_dict(model.state_dict())
    return changed.train()
