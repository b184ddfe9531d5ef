"""What a checkpoint says of its module, so that the file alone is enough to build it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch

from .. import sampling
from ..models import NetworkConfig, build
from ..models.checkpoint import VERSION, described
from . import tasks
from .recipe import Recipe

if TYPE_CHECKING:
    from .module import PixelNetModule

__all__ = ["describe", "parts", "task_from_dict", "task_to_dict"]

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
        value = getattr(task, one.name)
        if dataclasses.is_dataclass(value) or not isinstance(value, (int, float, str, type(None))):
            value = task_to_dict(value)
            if value is None:
                return None
        plain[one.name] = value
    return plain


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
