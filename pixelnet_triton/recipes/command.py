"""The commands: train, evaluate, predict. Options in, files and tables out."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..models import PixelNet
from ..training import Terminated
from .card import TaskCard
from .curves import draw_curves
from .datasets import DataSet
from .evaluation import Evaluation, evaluate, evaluate_boundaries
from .files import official_folder, write_official
from .finding import find
from .network import card_of, has_card, load
from .options import NETWORK_FIELDS, PROGRAM, command_line, given, setup_of
from .prediction import find_images, predict_files
from .ranks import First, Samples, first_process
from .setup import Setup
from .tables import as_json, as_text
from .training import train
from .view import View

__all__ = ["main"]


def main(words: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        words: of the command line; None takes the process's own.

    Returns:
        the exit status: 0; 2 where something that was asked for is wrong or missing; 143 where
        SIGTERM ended a training.
    """
    arguments = command_line().parse_args(words)
    command = f"{PROGRAM} {arguments.command}"
    commands = {"train": _train, "evaluate": _evaluate, "predict": _predict}
    try:
        commands[arguments.command](arguments)
    except (ImportError, OSError, ValueError) as error:
        # What the library and Lightning refuse, and files that cannot be read or written.
        if sys.flags.dev_mode:
            raise
        print(f"{command}: error: {error}", file=sys.stderr)
        return 2
    except Terminated as ended:
        print(
            f"{command}: SIGTERM stopped it at step {ended.step}; the same command with --resume "
            f"goes on from the last checkpoint in {arguments.out}",
            file=sys.stderr,
        )
        return Terminated.STATUS
    return 0


def _train(arguments: argparse.Namespace) -> None:
    data, root = find(arguments.task, arguments.data)
    setup = setup_of(arguments, data.setup(arguments.preset))
    if arguments.init_from is not None and (named := given(arguments, NETWORK_FIELDS)):
        for free in ("frozen", "fixed_statistics"):
            named.pop(free, None)
        if named:
            raise ValueError(
                f"--{next(iter(named)).replace('_', '-')} is a property of the network, which "
                "--init-from takes from the checkpoint; leave one of them out"
            )
    model = train(
        data,
        root,
        setup,
        arguments.out,
        init_from=arguments.init_from,
        resume=arguments.resume,
        checkpoint_every=arguments.checkpoint_every,
        workers=arguments.workers,
        features=arguments.features,
        accelerator=arguments.accelerator,
        devices=arguments.devices,
        strategy=arguments.strategy,
        precision=arguments.precision,
    )
    if arguments.test_images != 0:
        _measure(arguments, model, data, root, split="test", out=arguments.out)


def _evaluate(arguments: argparse.Namespace) -> None:
    model = _loaded(arguments)
    card = card_of(model) if has_card(model) else None
    task = arguments.task if card is None else card.name
    if task is None or (card is None and arguments.data is None):
        raise ValueError(
            f"{arguments.checkpoint} does not say what its task is; give --task and --data"
        )
    usual = None if card is None else card.data
    data, root = find(task, arguments.data or usual, usual)
    out = arguments.out or arguments.checkpoint.parent
    _measure(
        arguments, model, data, root, split=arguments.split, out=out, official=arguments.official
    )


def _predict(arguments: argparse.Namespace) -> None:
    images = find_images(arguments.images, arguments.names)
    model = _loaded(arguments)
    card = card_of(model) if has_card(model) else _card_by_hand(arguments, model)
    written = predict_files(
        model,
        card,
        images,
        arguments.out,
        scales=arguments.scales,
        flip=arguments.flip,
        official=arguments.official,
    )
    print(f"{len(written)} files of {len(images)} images in {written[0].parent}")


def _measure(
    arguments: argparse.Namespace,
    model: PixelNet,
    data: DataSet,
    root: Path | None,
    *,
    split: str,
    out: Path,
    official: bool = False,
) -> None:
    """Measure a split; print the table and write JSON, curve and predictions."""
    split = data.split_of(root, split)  # what is measured is reported, whatever was asked for
    samples = data.read(root, split)
    card = _card_for(arguments, model, data, samples)
    count = min(arguments.test_images or len(samples), len(samples))
    how: dict[str, Any] = {"scales": arguments.scales, "flip": arguments.flip}
    if official:
        folder = out / official_folder(card, split)
        how["keep"] = partial(write_official, folder, card)
    if data.task == "edges":
        if not first_process():  # it counts in processes of its own
            return
        outcome = evaluate_boundaries(
            model,
            card,
            samples,
            images=count,
            thresholds=arguments.thresholds,
            workers=arguments.workers if arguments.command == "evaluate" else None,
            **how,
        )
    else:
        outcome = evaluate(model, card, First(samples, count), **how)
    if first_process():
        _report(arguments, card, outcome, split, out)
        if official:
            print(f"predictions in {folder}")


def _report(
    arguments: argparse.Namespace, card: TaskCard, outcome: Evaluation, split: str, out: Path
) -> None:
    print(as_text(card, outcome))
    out.mkdir(parents=True, exist_ok=True)
    how = {"split": split, "scales": arguments.scales, "flip": arguments.flip}
    (out / "evaluation.json").write_text(as_json(card, outcome, **how))
    print(f"\nin {out}: evaluation.json", end="")
    if outcome.curve:
        curve = {**outcome.curve, "ods": outcome.metrics["ods"]}
        draw_curves(out / "precision_recall.png", {"PixelNet": curve})
        print(", precision_recall.png", end="")
    print()


def _card_for(
    arguments: argparse.Namespace, model: PixelNet, data: DataSet, samples: Samples
) -> TaskCard:
    """The network's card, for the data set that is measured; of one without, that data set's."""
    measured = TaskCard.of(data.task, data.name, View(), samples)
    if not has_card(model):
        _check_outputs(arguments, model, measured)
        return measured
    card = card_of(model)
    if card.classes != measured.classes:
        raise ValueError(
            f"the network knows the {len(card.classes)} classes of {card.data}, but {data.name} "
            f"has {len(measured.classes)} others; measure it on data of the same classes"
        )
    return dataclasses.replace(card, data=data.name)


def _loaded(arguments: argparse.Namespace) -> PixelNet:
    device = arguments.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:
        first_line = str(error).splitlines()[0]
        raise ValueError(
            f"--device {device} is none that can be used here: {first_line}"
        ) from error
    model = load(arguments.checkpoint, device)
    if has_card(model) and arguments.task not in (None, card_of(model).name):
        raise ValueError(
            f"--task {arguments.task}, but {arguments.checkpoint} was trained for "
            f"{card_of(model).name}; leave --task out"
        )
    return model


def _card_by_hand(arguments: argparse.Namespace, model: PixelNet) -> TaskCard:
    """The card of a network that says nothing of its task, for the task of the command line."""
    if arguments.task is None:
        raise ValueError(f"{arguments.checkpoint} does not say what its task is; give --task")
    if arguments.task == "segmentation":
        raise ValueError(
            f"{arguments.checkpoint} does not name the classes of its segmentation. Save the "
            "network with a NetworkConfig(..., task=TaskCard('segmentation', 'own', classes=..., "
            "palette=...).as_dict())"
        )
    card = TaskCard(arguments.task, "own")
    _check_outputs(arguments, model, card)
    return card


def _check_outputs(arguments: argparse.Namespace, model: PixelNet, card: TaskCard) -> None:
    """Raise unless a network that says nothing of its task predicts what the card's has."""
    needed = card.task(Setup())
    outputs: list[str | None] = [needed.output]
    if card.name == "segmentation":
        outputs.append(None)  # the greatest score is the greatest probability
    if model.output not in outputs or model.head.out_features != needed.out_features:
        raise ValueError(
            f"--task {card.name} on {card.data} needs a network with output={needed.output!r} and "
            f"{needed.out_features} values a pixel, but {arguments.checkpoint} has "
            f"output={model.output!r} and {model.head.out_features}; give the --task and the data "
            "that it was trained for"
        )
