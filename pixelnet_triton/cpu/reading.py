"""`Reading`: a call's sampling with its corners, found once, and what reads and writes maps by it.

S = [S_1 | ... | S_M] as lists of corner cells and weights. Which way each map is read and written
is the route's to say (routes.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..call import Route, Sampling
from .corners import Corners
from .locating import locate
from .maps import read_map, write_maps
from .products import compute_dtype
from .routes import parts

__all__ = ["Reading"]


@dataclass(frozen=True)
class Reading:
    """The sampling `s`, read and written by the words of `route`; `part_of` a larger one.

    `halves`: see :func:`.locate`; of a forward pass.
    """

    s: Sampling
    route: Route
    part_of: _PartOf | None = None
    halves: bool = False
    _located: dict[tuple[tuple[int, ...], bool], Corners] = field(
        default_factory=dict, init=False, repr=False
    )

    @property
    def dtype(self) -> torch.dtype:
        """What everything is computed in."""
        return compute_dtype(self.s.features[0].dtype)

    @property
    def uniform(self) -> bool:
        """Does every image have P / B points, in order?"""
        return self.s.batch_index is None

    def parts(self) -> Iterator[tuple[slice, Reading]]:
        """Pieces of some thousand points, with only the images that they lie in."""
        s = self.s
        for points, images in parts(s.total, s.batch, not self.uniform):
            if points.stop - points.start == s.total:
                yield points, self
                continue
            features = [feature[images] for feature in s.features]
            index = None if s.batch_index is None else s.batch_index[points]
            piece = Sampling(features, s.points[points], index, s.geometry)
            yield points, Reading(piece, self.route, _PartOf(self, points, images.start))

    def corners(self, layers: Sequence[int], slopes: bool = False) -> dict[int, Corners]:
        """Corners (P, K) of each of `layers`, in that layer's own rows."""
        if self.part_of is not None:
            return self.part_of.corners(layers, slopes)
        return {
            layer: located.layer(n)
            for group, located in self._groups(layers, slopes)
            for n, layer in enumerate(group)
        }

    def _groups(
        self, layers: Sequence[int], slopes: bool = False
    ) -> Iterator[tuple[tuple[int, ...], Corners]]:
        """Corners (M, P, K) of those of `layers` with equally many corners; located once a call."""
        s, integers = self.s, not self.s.points.is_floating_point()
        for exact in (True, False):
            same = [i for i in layers if s.geometry.is_exact(i, integers) is exact]
            if same:
                key = (tuple(same), slopes)
                if key not in self._located:
                    self._located[key] = locate(
                        s.of(same), exact=exact, slopes=slopes, halves=self.halves
                    )
                yield key[0], self._located[key]

    def stacked_corners(self, layers: Sequence[int], slopes: bool = False) -> Corners:
        """Corners (P, K) of all `layers` in one table, their rows one layer after the other."""
        located = locate(self.s.of(layers), stack=True, slopes=slopes, halves=self.halves)
        return located.stacked()

    def read(self, layers: Sequence[int]) -> list[Tensor]:
        """S_i X_i, (P, C_i), of each of `layers`."""
        corners = self.corners(layers)
        columns = [self._read(i, corners[i]) for i in layers]
        if self.s.geometry.border:
            return columns
        return [corners[i].blank_outside(c) for i, c in zip(layers, columns, strict=True)]

    def _read(self, layer: int, corners: Corners) -> Tensor:
        word = self.route.read[layer]
        return read_map(self.s.features[layer], corners, word, self.uniform)

    def new_columns(self, layer: int) -> Tensor:
        """Uninitialised G_i (P, C_i), in the order of memory that :meth:`write` likes."""
        channels, points = self.s.features[layer].shape[1], self.s.total
        if self.route.write[layer] == "planes":
            return torch.empty(channels, points, dtype=self.dtype, device="cpu").t()
        return torch.empty(points, channels, dtype=self.dtype, device="cpu")

    def write(self, columns: dict[int, Tensor]) -> dict[int, Tensor]:
        """S_i^T G_i, laid out as X_i, of G_i (P, C_i) by layer; empties `columns` as it goes."""
        gradients: dict[int, Tensor] = {}
        for group, corners in self._groups(list(columns)):
            features = [self.s.features[i] for i in group]
            words = [self.route.write[i] for i in group]
            taken = [columns.pop(i) for i in group]
            if not self.s.geometry.border:
                taken = [_without_outside(corners.layer(n), c) for n, c in enumerate(taken)]
            written = write_maps(features, corners, taken, words, self.uniform)
            gradients |= zip(group, written, strict=True)
        return gradients

    def add_point_gradient(self, out: Tensor, layer: int, columns: Tensor) -> None:
        """out (P, 2) += sum over channels of G_i (P, C_i) * d(S_i X_i) / d(x, y)."""
        corners = self.corners([layer], slopes=True)[layer]
        if corners.slope is None:  # nearest cells do not change with the point
            return
        for axis, slope in enumerate(corners.slope):
            by_slope = Corners(corners.index, slope)
            moved = self._read(layer, by_slope)
            if not self.s.geometry.border:  # at the first cell outside there is a slope, no weight
                moved = by_slope.blank_outside(moved)
            out[:, axis] += moved.mul_(columns).sum(1)


def _without_outside(corners: Corners, columns: Tensor) -> Tensor:
    """G (P, C) without the rows that no cell sees: 0 times NaN would be NaN. A caller may own G."""
    outside = corners.outside()
    return columns if outside is None else columns.masked_fill(outside, 0)


@dataclass(frozen=True)
class _PartOf:
    """The place of a part in the whole call, whose corners, located once, it shares."""

    whole: Reading
    points: slice
    first_image: int

    def corners(self, layers: Sequence[int], slopes: bool) -> dict[int, Corners]:
        """The part's corners (P, K), rows counted from the first cell of its first image."""
        shared = {}
        for i, corners in self.whole.corners(layers, slopes).items():
            part, size = corners.of_points(self.points), self.whole.s.sizes[i]
            first_row = self.first_image * size[0] * size[1]
            index = part.index - first_row if first_row else part.index
            shared[i] = Corners(index, part.weight, part.slope)
        return shared
