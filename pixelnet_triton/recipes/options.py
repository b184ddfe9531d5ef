"""The command line: its words, their help, and nothing that computes."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .datasets import DATASETS, TASKS
from .numbers import COUNT, COUNT_FROM_0, FACTOR, folder
from .setup import PRESETS, Setup

__all__ = ["NETWORK_FIELDS", "PROGRAM", "command_line", "given", "setup_of"]

PROGRAM = "python -m pixelnet_triton"
_DESCRIPTION = f"""Train, evaluate and use PixelNet (arXiv 1609.06694).

  train     a network for a task on a data set: OUT/model.safetensors, OUT/last.ckpt
  evaluate  a checkpoint: the task's table, JSON, and of edges the precision-recall curve
  predict   your own images by a checkpoint: pictures, overlays, maps

Each has its own help: {PROGRAM} train --help

A first run, of minutes on two CPU cores and without any data, is

  {PROGRAM} train --task normals --preset small --out out/normals
  {PROGRAM} evaluate --checkpoint out/normals/model.safetensors
  {PROGRAM} predict photo.jpg --checkpoint out/normals/model.safetensors --out out/pictures

A checkpoint holds network, weights, task, classes and the size of its images; nothing else is
needed to use it.

"""
_DATA_SETS = """Data sets (--data): NAME, where the environment variable PIXELNET_DATA names the
folder above them; FOLDER, whose layout says which it is; or NAME=FOLDER, where it may be several.

"""
_TRAIN = f"""Train a network for a task.

  {PROGRAM} train --task segmentation --data camvid --preset small --out out/camvid
  {PROGRAM} train --task edges --data /data/BSR --pretrained vgg16.pth --out out/edges \\
      --precision bf16-mixed --workers 8
  {PROGRAM} train --task segmentation --data voc2012 --preset multi-scale \\
      --init-from out/voc/model.safetensors --out out/voc-scales
  torchrun --nproc-per-node 4 -m pixelnet_triton train --task edges --out out/edges --strategy ddp

An option that is not given has the preset's value, with what the data set changes in it; the run
prints all of them. --preset multi-scale is the paper's fine-tuning of a trained network (section
4.1, Analysis-4). A killed run that is started again with --resume goes on from its last checkpoint,
with the same outcome. At the end the test images are measured.

"""
_EVALUATE = f"""Measure a checkpoint on the images of a data set, at their own size.

  {PROGRAM} evaluate --checkpoint out/camvid/model.safetensors
  {PROGRAM} evaluate --checkpoint out/voc/model.safetensors --data /data/VOCdevkit \\
      --scales 0.5 1 2 --flip --official
  {PROGRAM} evaluate --checkpoint out/edges/model.safetensors --test-images 25 --thresholds 15

Segmentation: pixel accuracy, AC (mean class accuracy), mean IU, each class, the confusion matrix.
Edges: ODS, OIS and AP of the boundary benchmark, and the precision-recall curve as a picture.
Normals: mean, median, RMSE, and the shares within 11.25, 22.5 and 30 degrees. Depth: the usual
errors and accuracies. All of it is written to OUT/evaluation.json.

"""
_PREDICT = f"""Predict images by a checkpoint, each at its own size.

  {PROGRAM} predict photo.jpg holiday/ --checkpoint out/camvid/model.safetensors --out out/pictures
  {PROGRAM} predict VOCdevkit/VOC2012/JPEGImages --checkpoint out/voc/model.safetensors \\
      --names VOCdevkit/VOC2012/ImageSets/Segmentation/test.txt --official test --out out/voc

Segmentation: class indices under the palette, and an overlay. Edges: as they are, thinned, and dark
on white. Normals: in colours, (n + 1) / 2. Depth: millimetres in 16 bits, and in colours.

"""
NETWORK_FIELDS = (
    "backbone", "pretrained", "normalization", "frozen", "layers", "fixed_statistics", "width",
    "batch_norm", "hidden", "head_batch_norm", "dropout", "init",
)  # fmt: skip


def command_line() -> argparse.ArgumentParser:
    """The parser of all three commands."""
    parser = argparse.ArgumentParser(prog=PROGRAM, **_text(_DESCRIPTION + _data_sets()))
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    train = commands.add_parser(
        "train",
        help="train a network",
        usage=f"{PROGRAM} train --task TASK --out FOLDER [--data NAME|FOLDER] [option ...]",
        **_text(_TRAIN + _data_sets()),
    )
    _add_train(train)
    evaluate = commands.add_parser("evaluate", help="measure a checkpoint", **_text(_EVALUATE))
    _add_evaluate(evaluate)
    predict = commands.add_parser("predict", help="predict images", **_text(_PREDICT))
    _add_predict(predict)
    return parser


def setup_of(arguments: argparse.Namespace, preset: Setup) -> Setup:
    """The preset with the options that were given in its place."""
    changes = given(arguments)
    if "epochs" in changes:  # a preset's steps would win over them
        changes.setdefault("steps", None)
    return dataclasses.replace(preset, **changes)


def given(arguments: argparse.Namespace, names: Sequence[str] | None = None) -> dict[str, Any]:
    """The fields of a setup that the command line names; of `names` only, if there are any."""
    values = {f.name: getattr(arguments, f.name) for f in dataclasses.fields(Setup)}
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
        if value is not None and (names is None or name in names)
    }


def _add_train(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--task", choices=TASKS, required=True, help="what is predicted at each pixel")
    _add_data(parser, "the training's data set; rendered rooms for normals and depth if not given")
    add("--out", type=folder, required=True, metavar="FOLDER", help="for checkpoints and logs")
    add("--preset", choices=PRESETS, default="paper", help="where options start from (paper)")
    add("--small", dest="preset", action="store_const", const="small", help="--preset small")
    add("--init-from", type=Path, metavar="CHECKPOINT", help="begin with its network and weights")
    add("--resume", action="store_true", help="go on from OUT/last.ckpt")
    add(
        "--features",
        type=folder,
        metavar="FOLDER",
        help="keep the maps of a frozen backbone there, so that they are computed once; GBs",
    )
    network = parser.add_argument_group(
        "network (the values are those of the presets; --init-from brings its own)"
    )
    training = parser.add_argument_group("training")
    for field in dataclasses.fields(Setup):
        _add_field(network if field.name in NETWORK_FIELDS else training, field)
    every = "between checkpoints (200); there is one at the end too"
    machine = parser.add_argument_group("machine")
    machine.add_argument("--checkpoint-every", type=COUNT, default=200, metavar="STEPS", help=every)
    machine.add_argument(
        "--workers", type=COUNT_FROM_0, default=0, help="processes that read images (0)"
    )
    machine.add_argument("--accelerator", default="auto", help="cpu, gpu ... (Lightning)")
    machine.add_argument("--devices", default="auto", help="how many, or which (Lightning)")
    machine.add_argument("--strategy", default="auto", help="ddp ... (Lightning)")
    machine.add_argument("--precision", default="32-true", help="bf16-mixed, 16-mixed ...")
    group = parser.add_argument_group("test, after the training")
    _add_measured(group, COUNT_FROM_0, "measure the first N images only (all; 0: none)")


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    _add_checkpoint(parser)
    _add_data(parser, "by default that of the training, in its usual folder")
    add = parser.add_argument
    add("--split", default="test", help="train, val, test, or a word of the reader's (test)")
    add("--out", type=folder, metavar="FOLDER", help="for the results (the checkpoint's)")
    add(
        "--official",
        action="store_true",
        help="also write the predictions as the data set's own evaluation wants them",
    )
    add("--workers", type=COUNT, help="processes that count boundaries (all cores)")
    _add_measured(parser, COUNT, "measure the first N images only (all)")


def _add_predict(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("images", nargs="+", type=Path, metavar="IMAGE", help="files, or folders of them")
    _add_checkpoint(parser)
    add("--out", type=folder, required=True, metavar="FOLDER", help="for what is written")
    add("--names", type=Path, metavar="FILE", help="which images of the folders: one name a line")
    add(
        "--official",
        metavar="SPLIT",
        help="write what the data set's own evaluation wants, and where, for this split",
    )
    _add_views(parser)


def _add_checkpoint(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="model.safetensors or last.ckpt of train")
    add(
        "--task",
        choices=TASKS,
        help="what a network predicts that was saved by PixelNet.save without a task",
    )
    add("--device", default="auto", help="cpu, cuda, cuda:1 ... (the GPU if there is one)")


def _add_data(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--data", metavar="NAME|FOLDER", help=text)


def _add_measured(parser: Any, count: Any, text: str) -> None:
    parser.add_argument("--test-images", type=count, metavar="N", help=text)
    parser.add_argument(
        "--thresholds", type=COUNT, default=99, metavar="N", help="of the boundary benchmark (99)"
    )
    _add_views(parser)


def _add_views(parser: Any) -> None:
    parser.add_argument(
        "--scales",
        type=FACTOR,
        nargs="+",
        default=[1.0],
        metavar="FACTOR",
        help="average over these sizes; 1 is that of the training",
    )
    parser.add_argument("--flip", action="store_true", help="average with the mirror image")


def _add_field(parser: Any, field: dataclasses.Field[Any]) -> None:
    """The option of a field of `Setup`."""
    name, kind = "--" + field.name.replace("_", "-"), field.metadata["type"]
    text = f"{field.metadata['help']} ({_presets_values(field.name)})"
    if kind is bool:
        parser.add_argument(name, action=argparse.BooleanOptionalAction, default=None, help=text)
    elif isinstance(field.default, tuple):
        parser.add_argument(name, type=kind, nargs="*", metavar="N", help=text)
    else:
        metavar = {"str": "NAME", "int": "N", "float": "X"}[kind.__name__]
        parser.add_argument(name, type=kind, help=text, metavar=metavar)


def _presets_values(name: str) -> str:
    """What the presets have: that of the paper, and those that differ from it."""
    values = {preset: _shown(getattr(setup, name)) for preset, setup in PRESETS.items()}
    usual = values.pop("paper")
    others = [f"{preset}: {value}" for preset, value in values.items() if value != usual]
    return "; ".join([usual, *others])


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_shown, value)) or "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    return {None: "none", True: "yes", False: "no"}.get(value, str(value))


def _data_sets() -> str:
    """A line for each."""
    rows = [f"  {row.name:<13}{row.task:<14}{_where(row.folder)}" for row in DATASETS]
    return _DATA_SETS + "\n".join(rows)


def _where(folder: str | None) -> str:
    return "rendered; needs no files" if folder is None else f"PIXELNET_DATA/{folder}"


def _text(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }
