"""What can be wrong with the options of a call, said before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .geometry import COORDINATES, INTERPOLATIONS, PADDING_MODES
from .options import Options
from .plan import PLAN_NAMES, Plan

__all__ = ["ACTIVATIONS", "check_image_size", "check_names", "check_plan", "check_strides"]

ACTIVATIONS = (None, "relu", "gelu")


def check_names(options: Options, weight: Tensor | None) -> None:
    """Raise `ValueError` for an unknown option, naming the known ones."""
    for name, known in (
        ("activation", ACTIVATIONS),
        ("interpolation", INTERPOLATIONS),
        ("padding_mode", PADDING_MODES),
        ("coordinates", COORDINATES),
    ):
        came = getattr(options, name)
        if came not in known:
            raise ValueError(f"{name}={came!r} is unknown; use one of {known}")
    if options.activation is not None and weight is None:
        raise ValueError(
            f"activation={options.activation!r} needs a weight: without one the hypercolumns "
            "themselves are returned. Pass weight=..., or apply the activation to the result"
        )


def check_image_size(image_size: tuple[int, int]) -> None:
    """Raise unless it is two positive integers."""
    if not isinstance(image_size, Sequence) or len(image_size) != 2:
        raise TypeError(
            f"image_size={image_size!r}; expected (height, width) in pixels, or one such pair for "
            "each image"
        )
    if any(not isinstance(n, (int, torch.SymInt)) or isinstance(n, bool) for n in image_size):
        raise TypeError(f"image_size={image_size!r}; expected two integers (height, width)")
    if image_size[0] < 1 or image_size[1] < 1:
        raise ValueError(f"image_size={image_size!r}; height and width must be at least 1 pixel")


def check_strides(strides: Sequence[Any], layers: int, align_corners: bool) -> None:
    """Raise unless there is a positive number, or a pair of them, for each layer."""
    if align_corners:
        raise ValueError(
            "strides cannot be combined with align_corners=True: a stride defines the half-pixel "
            "map (x - (s - 1) / 2) / s. Leave one of them out"
        )
    if not isinstance(strides, Sequence) or len(strides) != layers:
        raise ValueError(
            f"strides={strides!r}; expected one entry for each of the {layers} layers, a number "
            "of image pixels per cell or a pair (stride_y, stride_x)"
        )
    for i, stride in enumerate(strides):
        pair = stride if isinstance(stride, tuple) else (stride, stride)
        numbers = [s for s in pair if isinstance(s, (int, float)) and not isinstance(s, bool)]
        if len(pair) != 2 or len(numbers) != 2:
            raise TypeError(
                f"strides[{i}]={stride!r}; expected a number of image pixels per cell, or a "
                "tuple (stride_y, stride_x)"
            )
        if not all(0 < s < math.inf for s in numbers):  # which Dynamo traces, unlike isfinite
            raise ValueError(f"strides[{i}]={stride!r}; a stride must be positive and finite")


def check_plan(plan: str | Plan, layers: int) -> None:
    """Raise unless it is a known name, or a plan with a strategy for each of the `layers`."""
    if isinstance(plan, Plan):
        if len(plan.layers) != layers:
            raise ValueError(
                f"plan has strategies for {len(plan.layers)} layers but features has {layers}; "
                "make it with plan_hypercolumn for these features"
            )
    elif plan not in PLAN_NAMES:
        raise ValueError(
            f"plan={plan!r} is unknown; use one of {PLAN_NAMES}, or a plan made by plan_hypercolumn"
        )
