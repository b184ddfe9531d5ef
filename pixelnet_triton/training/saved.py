"""What a checkpoint says of its module, so that the file alone is enough to build it."""

from __future__ import annotations

import dataclasses
import numbers
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .. import sampling
from ..models import NetworkConfig, build
from ..models.checkpoint import KEY, VERSION, described, read_lightning
from . import tasks
from .recipe import Recipe

if TYPE_CHECKING:
    from .module import PixelNetModule

__all__ = ["check_continues", "describe", "parts", "task_from_dict", "task_to_dict"]

# Frozen dataclasses, which a checkpoint holds by name and fields.
_CLASSES: dict[str, Any] = {
    one.__name__: one
    for one in (
        tasks.Segmentation,
        tasks.Edges,
        tasks.Normals,
        tasks.Depth,
        sampling.UniformSampler,
        sampling.StratifiedSampler,
        sampling.BiasedSampler,
        sampling.ClassBalancedSampler,
    )
}


def task_to_dict(task: Any) -> dict[str, Any] | None:
    """A task of this library as plain values; None of another, or with another's sampler.

    Example:
        >>> from pixelnet_triton.training import Edges
        >>> from pixelnet_triton.training.saved import task_from_dict, task_to_dict
        >>> task_to_dict(Edges())["sampler"]["positive_fraction"]
        0.5
        >>> task_from_dict(task_to_dict(Edges())) == Edges()
        True
    """
    if _CLASSES.get(type(task).__name__) is not type(task):
        return None
    plain: dict[str, Any] = {"name": type(task).__name__}
    for one in dataclasses.fields(task):
        value = _plain(getattr(task, one.name))
        if not isinstance(value, (int, float, str, type(None))):
            value = task_to_dict(value)
            if value is None:
                return None
        plain[one.name] = value
    return plain


def _plain(value: Any) -> Any:
    """Python's own number for NumPy's, with which the checkpoint could not be loaded again."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def task_from_dict(plain: dict[str, Any]) -> Any:
    """Undo :func:`task_to_dict`.

    Raises:
        ValueError: an unknown name, or fields that the class does not have.
    """
    fields = {
        name: task_from_dict(value) if isinstance(value, dict) else value
        for name, value in plain.items()
        if name != "name"
    }
    try:
        return _CLASSES[plain["name"]](**fields)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"task={plain!r} is none that this version knows ({error}); expected one of "
            f"{sorted(_CLASSES)} with its fields. Pass task= to load_from_checkpoint"
        ) from error


def describe(module: PixelNetModule) -> dict[str, Any]:
    """Everything a :class:`PixelNetModule` is made of but weights, as plain values."""
    config = described(module.model)
    return {
        "version": VERSION,
        "network": None if config is None else config.to_dict(),
        "task": task_to_dict(module.task),
        "recipe": dataclasses.asdict(module.recipe),
        "seed": module.seed,
        "channels_last": module.memory_format == torch.channels_last,
    }


def parts(description: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Arguments of :class:`PixelNetModule`: those given, the others as :func:`describe` has them.

    Raises:
        ValueError: a part is neither given nor described.
    """
    for name, key in (("model", "network"), ("task", "task")):
        if name not in given and description[key] is None:
            raise ValueError(
                f"the checkpoint does not describe its {name}, which was none that has a "
                f"description (a PixelNet without config, a task of one's own); pass {name}="
            )
    result = dict(given)
    if "model" not in result:
        result["model"] = build(NetworkConfig.from_dict(description["network"]), pretrained=False)
    if "task" not in result:
        result["task"] = task_from_dict(description["task"])
    result.setdefault("recipe", Recipe(**description["recipe"]))
    result.setdefault("seed", description["seed"])
    result.setdefault("channels_last", description["channels_last"])
    return result


def check_continues(path: Path, module: PixelNetModule) -> None:
    """Raise unless a checkpoint is of a run that this module can go on with.

    Lightning would take the rest of the optimiser and of the schedule from the checkpoint, whatever
    the module says.

    Raises:
        ValueError: the file cannot be read, or its network, task, recipe or seed is another.
    """
    try:
        with zipfile.ZipFile(path):  # of half a file read_lightning says that it is another one
            then = read_lightning(path)[KEY]
    except (zipfile.BadZipFile, RuntimeError) as error:
        raise ValueError(
            f"{path} cannot be read: {error}; it is damaged. Put a copy in its place, or begin "
            "anew in another folder"
        ) from error
    differences = list(_differences(then, describe(module)))
    if differences:
        raise ValueError(
            f"{path} is of a run with other settings: {'; '.join(differences)}. Go on with those "
            "of the checkpoint, or begin anew in another folder"
        )


def _differences(then: dict[str, Any], now: dict[str, Any], above: str = "") -> Iterator[str]:
    """What two descriptions both say, and differently."""
    for name in [name for name in then if name in now]:
        old, new, place = then[name], now[name], above + name
        # Files of weights are named, not compared; and they are the checkpoint's by now.
        if old == new or place == "network.backbone_options.weights":
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{place}.")
        elif above or None not in (old, new):  # a network or task of one's own has no description
            yield f"{place} was {old!r} and is {new!r}"
