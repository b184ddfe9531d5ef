"""The paper's optimiser as a value: SGD, its parameter groups, and its schedule."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

__all__ = ["EDGE_RECIPE", "Recipe", "parameter_groups", "rate_factor", "step_decay"]


SCHEDULES = ("step", "cosine")
BACKBONE = "backbone."  # where PixelNet has it


@dataclass(frozen=True)
class Recipe:
    """SGD with momentum and step decay (section 4, default training), as the paper has it.

    The decay is given in fractions of the whole training, so that a run of another length keeps
    the schedule's shape: the paper trains 80 epochs at the first rate, 8 at a tenth of it and 8
    at a hundredth, 96 in all.

    Args:
        lr: learning rate of the weights; 1e-3 suits a pretrained VGG-16 with Gaussian heads.
            Networks with batch normalisation, from scratch, take 0.02 to 0.1.
        momentum: of SGD.
        weight_decay: of the weights; biases and batch normalisation have none.
        bias_lr_multiplier: the learning rate of the biases, as a multiple of `lr`.
        decay_at: fractions of the training, ascending, at which the rate is multiplied by `decay`.
        decay: that factor.
        backbone_lr_multiplier: the learning rate of a PixelNet's backbone, as a multiple of the
            head's. The paper has one rate for all (1); a pretrained backbone under a new head
            takes less.
        schedule: ``"step"``, the paper's decay as above, or ``"cosine"``, which is not the
            paper's: the rate falls from `lr` to 0 along half a cosine, and short trainings end
            better so.
        warmup: the fraction of the training in which the rate rises linearly to what the schedule
            says; 0 in the paper.

    Raises:
        ValueError: a value outside of its range.

    Example:
        >>> from pixelnet_triton.training import Recipe
        >>> Recipe(lr=0.05).momentum
        0.9
    """

    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 5e-4
    bias_lr_multiplier: float = 2.0
    decay_at: tuple[float, ...] = (80 / 96, 88 / 96)
    decay: float = 0.1
    backbone_lr_multiplier: float = 1.0
    schedule: str = "step"
    warmup: float = 0.0

    def __post_init__(self) -> None:
        for name in (
            "lr",
            "momentum",
            "weight_decay",
            "bias_lr_multiplier",
            "decay",
            "backbone_lr_multiplier",
            "warmup",
        ):
            object.__setattr__(self, name, _plain(name, getattr(self, name)))
        object.__setattr__(self, "decay_at", tuple(_plain("decay_at", f) for f in self.decay_at))
        ascending = list(self.decay_at) == sorted(self.decay_at)
        if not ascending or not all(0 < at <= 1 for at in self.decay_at):
            raise ValueError(
                f"decay_at={self.decay_at!r}; expected ascending fractions of the training in "
                "(0, 1], for example (0.8, 0.9)"
            )
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule={self.schedule!r} is unknown; use one of {SCHEDULES}")
        if not 0 <= self.warmup < 1:
            raise ValueError(
                f"warmup={self.warmup!r}; expected a fraction of the training in [0, 1)"
            )


def _plain(name: str, came: Any) -> float:
    """Python's own number: with NumPy's a checkpoint cannot be loaded again."""
    number = float(came) if isinstance(came, numbers.Real) else math.nan
    if not 0 <= number < math.inf:
        raise ValueError(f"{name}={came!r}; expected a finite number >= 0, of Python or NumPy")
    return number


# Section 4.3: a tenth of the rate after 15 epochs, again after 20, the end after 25.
EDGE_RECIPE = Recipe(decay_at=(15 / 25, 20 / 25))


def parameter_groups(model: nn.Module, recipe: Recipe = Recipe()) -> list[dict[str, Any]]:
    """Weights, biases, and the scales of normalisation layers, as groups for `torch.optim.SGD`.

    ======== ============================ ======================== ==============
    group    parameters                   learning rate            weight decay
    ======== ============================ ======================== ==============
    weights  all others                   lr                       weight_decay
    biases   named ``bias``               lr * bias_lr_multiplier  0
    scales   ``weight`` of one dimension  lr                       0
    ======== ============================ ======================== ==============

    The first two rows are the authors' solver (Caffe's ``lr_mult`` 1 and 2, ``decay_mult`` 1 and
    0). The scales of batch normalisation are not in the paper; as is usual now, they are not
    decayed. Parameters that do not require gradients are left out. Where the recipe's
    `backbone_lr_multiplier` is not 1, the backbone's have groups of their own, ``backbone weights``
    and so on.

    Args:
        model: any module.
        recipe: the rates.

    Returns:
        Groups that are not empty, each with ``params``, ``name``, ``lr`` and ``weight_decay``.

    Example:
        >>> from torch import nn
        >>> from pixelnet_triton.training import parameter_groups
        >>> groups = parameter_groups(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)))
        >>> [(group["name"], len(group["params"]), group["lr"]) for group in groups]
        [('weights', 1, 0.001), ('biases', 2, 0.002), ('scales', 1, 0.001)]
    """
    rates = {
        "weights": (1.0, recipe.weight_decay),
        "biases": (recipe.bias_lr_multiplier, 0.0),
        "scales": (1.0, 0.0),
    }
    apart = recipe.backbone_lr_multiplier != 1
    groups: dict[str, dict[str, Any]] = {}
    for part, factor in (("", 1.0), ("backbone ", recipe.backbone_lr_multiplier)):
        for kind, (multiplier, decay) in rates.items():
            groups[part + kind] = {
                "params": [],
                "name": part + kind,
                "lr": recipe.lr * multiplier * factor,
                "weight_decay": decay,
            }
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = "backbone " if apart and name.startswith(BACKBONE) else ""
        if name.rsplit(".", 1)[-1] == "bias":
            kind = "biases"
        else:
            kind = "scales" if parameter.dim() <= 1 else "weights"
        groups[part + kind]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]


def step_decay(recipe: Recipe, total_steps: int) -> Callable[[int], float]:
    """The factor on every learning rate at a step: decay ** #{f in decay_at: step >= f total}.

    Args:
        recipe: its `decay_at` and `decay`.
        total_steps: optimiser steps of the whole training.

    Returns:
        A function of the step, for :class:`torch.optim.lr_scheduler.LambdaLR`.

    Example:
        >>> from pixelnet_triton.training import Recipe, step_decay
        >>> factor = step_decay(Recipe(), 960)
        >>> [round(factor(step), 6) for step in (0, 799, 800, 880, 959)]
        [1.0, 1.0, 0.1, 0.01, 0.01]
    """
    # Rounded first: 80 / 96 * 960 is a rounding error off 800 in floating point.
    milestones = [round(fraction * total_steps) for fraction in recipe.decay_at]
    return lambda step: recipe.decay ** sum(step >= milestone for milestone in milestones)


def rate_factor(recipe: Recipe, total_steps: int) -> Callable[[int], float]:
    """The factor on every learning rate at a step, as the recipe's schedule and warm-up say.

    Args:
        recipe: its `schedule`, `warmup`, and what :func:`step_decay` takes.
        total_steps: optimiser steps of the whole training.

    Returns:
        A function of the step, for :class:`torch.optim.lr_scheduler.LambdaLR`.

    Example:
        >>> from pixelnet_triton.training import Recipe, rate_factor
        >>> factor = rate_factor(Recipe(schedule="cosine", warmup=0.02), 100)
        >>> [round(factor(step), 3) for step in (0, 1, 50, 99)]
        [0.5, 1.0, 0.5, 0.0]
    """
    rising = round(recipe.warmup * total_steps)
    decay = step_decay(recipe, total_steps) if recipe.schedule == "step" else _cosine(total_steps)
    return lambda step: decay(step) * min(1.0, (step + 1) / max(rising, 1))


def _cosine(total_steps: int) -> Callable[[int], float]:
    return lambda step: (1 + math.cos(math.pi * min(step / total_steps, 1.0))) / 2
