"""`Sampling`: maps, points and how they meet. It defines the operator S = [S_1 | ... | S_M]."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from typing import NamedTuple

from torch import Tensor

from .geometry import Geometry

__all__ = ["Sampling"]


class _Fields(NamedTuple):
    features: Sequence[Tensor]
    points: Tensor
    batch_index: Tensor | None
    geometry: Geometry


class Sampling(_Fields):
    """M maps, the points at which they are sampled, and the geometry between them.

    Args:
        features: M maps ``(B, C_i, H_i, W_i)`` of one dtype and device, any strides.
        points: ``(P, 2)`` of (x, y), all images in one list.
        batch_index: ``(P,)`` the image of each point; None for P / B points an image, in order.
        geometry: where a point falls on the grid of each map.

    What is read off all maps is read once: a pass asks for it many times, and torch takes a tenth
    of a microsecond for each size.
    """

    @property
    def batch(self) -> int:
        """B."""
        return self.features[0].shape[0]

    @property
    def total(self) -> int:
        """P."""
        return self.points.shape[0]

    @property
    def empty(self) -> bool:
        return self.total == 0 or self.batch == 0

    @cached_property
    def channels(self) -> tuple[int, ...]:
        """C_i of each map."""
        return tuple([feature.shape[1] for feature in self.features])

    @cached_property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(H_i, W_i) of each map."""
        return tuple([(feature.shape[2], feature.shape[3]) for feature in self.features])

    @cached_property
    def columns(self) -> list[slice]:
        """The columns of each map in a hypercolumn, and in the weight."""
        ends = accumulate(self.channels, initial=0)
        return [slice(start, stop) for start, stop in pairwise(ends)]

    def of(self, layers: Sequence[int], features: Sequence[Tensor] | None = None) -> Sampling:
        """The same points on some of the maps, or on other tensors of these maps' grids."""
        chosen = [self.features[i] for i in layers] if features is None else features
        return Sampling(chosen, self.points, self.batch_index, self.geometry.of(layers))
