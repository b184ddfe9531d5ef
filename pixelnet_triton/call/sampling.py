"""`Sampling`: maps, points and how they meet. It defines the operator S = [S_1 | ... | S_M]."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from .geometry import Geometry

__all__ = ["Sampling"]

_T = TypeVar("_T")
_Known = dict[Hashable, Any]


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

    #: What an executor's forward pass leaves to its backward pass, where somebody carries it over.
    kept: Any = None

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

    @cached_property
    def known(self) -> _Known:
        """What follows from shapes, strides and dtypes, by :meth:`once`.

        An executor hands it on from call to call. Tensors do not belong here: they would live on.
        """
        return {}

    def once(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """What `make` returns, worked out once for all calls of a kind."""
        try:
            value: _T = self.known[key]
        except KeyError:
            value = self.known[key] = make()
        return value

    def of(
        self, layers: Sequence[int], features: Sequence[Tensor] | None = None, role: str = "maps"
    ) -> Sampling:
        """The same points on some of the maps, or on other tensors of these maps' grids.

        `role` names those tensors: in calls of one kind they have one dtype and one layout.
        """
        chosen = [self.features[i] for i in layers] if features is None else features
        geometry, known = self.once(
            ("of", role, *layers), lambda: (self.geometry.of(layers), _Known())
        )
        return self._like(chosen, self.points, self.batch_index, geometry, known)

    def at(self, points: Tensor, batch_index: Tensor | None) -> Sampling:
        """The same maps at other points, always of one dtype."""
        known = self.once("at", _Known)
        return self._like(self.features, points, batch_index, self.geometry, known)

    @classmethod
    def _like(
        cls,
        features: Sequence[Tensor],
        points: Tensor,
        batch_index: Tensor | None,
        geometry: Geometry,
        known: _Known,
    ) -> Sampling:
        s = cls(features, points, batch_index, geometry)
        s.known = known
        return s
