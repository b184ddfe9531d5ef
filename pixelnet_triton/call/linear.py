"""The first layer on the hypercolumns, and what its backward pass is asked for and answers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

from torch import Tensor

__all__ = ["Gradients", "Linear", "Wanted"]


class Linear(NamedTuple):
    """y = act(h W^T + b): weight (D, sum C_i), bias (D,), activation None, "relu" or "gelu"."""

    weight: Tensor
    bias: Tensor | None
    activation: str | None

    @property
    def out_features(self) -> int:
        """D."""
        return self.weight.shape[0]

    @property
    def layout(self) -> tuple[Hashable, ...]:
        """All but the numbers."""
        weight, bias, activation = self
        return (weight.dtype, weight.shape, weight.stride(), bias is None, activation)


class Wanted(NamedTuple):
    """Which gradients a backward pass is to find; `features` for each map."""

    features: tuple[bool, ...]
    points: bool
    weight: bool
    bias: bool

    @property
    def layers(self) -> list[int]:
        """The maps whose gradient is wanted."""
        return [i for i, wanted in enumerate(self.features) if wanted]


class Gradients(NamedTuple):
    """What a backward pass found: of each map, of points (P, 2), weight and bias; else None."""

    features: Sequence[Tensor | None]
    points: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
