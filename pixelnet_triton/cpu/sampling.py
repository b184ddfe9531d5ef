"""One call's features and points, and the operator S = [S_1 | ... | S_M] that they define."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from ..call.geometry import Geometry
from .corners import Corners, is_exact, locate
from .maps import prefers_planes, read_map, scatter_maps
from .products import compute_dtype

__all__ = ["Sampling", "blocks"]

# Points worked on together: their columns and their rows of the output stay in the cache, and
# a product with 2,000 rows runs at the rate of one with 10,000 (84-88 GFLOP/s a core).
PART_POINTS = 2048
# One image is divided only above this: dividing repeats the conversion of maps that need one.
PART_POINTS_OF_ONE_IMAGE = 16384


def blocks(length: int, size: int) -> list[slice]:
    """0 .. length in slices of `size`, the last of which may be shorter."""
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


@dataclass(frozen=True)
class Sampling:
    """Features (B, C_i, H_i, W_i) at points (P, 2) of images `batch_index` (P,) or P / B each."""

    features: Sequence[Tensor]
    points: Tensor
    batch_index: Tensor | None
    geometry: Geometry
    part_of: _PartOf | None = None
    _located: dict[tuple[tuple[int, ...], bool], Corners] = field(
        default_factory=dict, init=False, repr=False
    )

    @property
    def batch(self) -> int:
        return self.features[0].shape[0]

    @property
    def dtype(self) -> torch.dtype:
        """What everything is computed in."""
        return compute_dtype(self.features[0].dtype)

    @property
    def empty(self) -> bool:
        return self.points.shape[0] == 0 or self.batch == 0

    def columns(self) -> list[slice]:
        """Each layer's columns in a hypercolumn."""
        ends = [0]
        for feature in self.features:
            ends.append(ends[-1] + feature.shape[1])
        return [slice(*pair) for pair in pairwise(ends)]

    def parts(self) -> Iterator[tuple[slice, Sampling]]:
        """Pieces of some thousand points, with only the images that they lie in."""
        for part, images in self._cuts():
            if part.stop - part.start == self.points.shape[0]:
                yield part, self
                continue
            features = [feature[images] for feature in self.features]
            index = None if self.batch_index is None else self.batch_index[part]
            place = _PartOf(self, part, images.start)
            yield part, Sampling(features, self.points[part], index, self.geometry, place)

    def _cuts(self) -> Iterator[tuple[slice, slice]]:
        """Slices of points and of images: several whole images, or some points of one image."""
        points, batch = self.points.shape[0], self.batch
        if self.batch_index is not None:
            for part in blocks(points, PART_POINTS_OF_ONE_IMAGE):
                yield part, slice(0, batch)
            return
        per_image = points // batch
        together = max(1, PART_POINTS // per_image)
        for images in blocks(batch, together):
            first = images.start * per_image
            for part in blocks((images.stop - images.start) * per_image, PART_POINTS_OF_ONE_IMAGE):
                yield slice(first + part.start, first + part.stop), images

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
        for exact in (True, False):
            same = [i for i in layers if is_exact(self.points, self.geometry.affine[i]) is exact]
            if same:
                key = (tuple(same), slopes)
                if key not in self._located:
                    self._located[key] = self._locate(same, exact=exact, slopes=slopes)
                yield key[0], self._located[key]

    def stacked_corners(self, layers: Sequence[int], slopes: bool = False) -> Corners:
        """Corners (P, K) of all `layers` in one table, their rows one layer after the other."""
        return self._locate(layers, stack=True, slopes=slopes).stacked()

    def _locate(self, layers: Sequence[int], **options: bool) -> Corners:
        sizes = tuple((f.shape[2], f.shape[3]) for f in self.features)
        return locate(
            self.points,
            self.batch_index,
            self.geometry,
            tuple(layers),
            sizes,
            self.batch,
            self.dtype,
            **options,
        )

    def read(self, layers: Sequence[int]) -> list[Tensor]:
        """S_i X_i, (P, C_i), of each of `layers`."""
        corners, uniform = self.corners(layers), self.batch_index is None
        return [read_map(self.features[i], corners[i], uniform) for i in layers]

    def new_columns(self, layer: int) -> Tensor:
        """Uninitialised G_i (P, C_i), in the order of memory that :meth:`scatter` likes."""
        feature, points = self.features[layer], self.points.shape[0]
        exact = is_exact(self.points, self.geometry.affine[layer])
        one_corner = exact or self.geometry.interpolation == "nearest"
        if prefers_planes(feature, points * (1 if one_corner else 4)):
            return torch.empty(feature.shape[1], points, dtype=self.dtype).t()
        return torch.empty(points, feature.shape[1], dtype=self.dtype)

    def scatter(self, grads: dict[int, Tensor]) -> dict[int, Tensor]:
        """S_i^T G_i, laid out as X_i, of G_i (P, C_i) by layer; empties `grads` as it goes."""
        uniform = self.batch_index is None
        out: dict[int, Tensor] = {}
        for group, corners in self._groups(list(grads)):
            features = [self.features[i] for i in group]
            found = scatter_maps(features, corners, [grads.pop(i) for i in group], uniform)
            out |= zip(group, found, strict=True)
        return out

    def add_point_grad(self, out: Tensor, layer: int, grad: Tensor) -> None:
        """out (P, 2) += sum over channels of grad (P, C_i) * d(S_i X_i) / d(x, y)."""
        corners, uniform = self.corners([layer], slopes=True)[layer], self.batch_index is None
        if corners.slope is None:  # nearest cells do not change with the point
            return
        for axis, slope in enumerate(corners.slope):
            moved = read_map(self.features[layer], Corners(corners.index, slope), uniform)
            out[:, axis] += moved.mul_(grad).sum(1)


@dataclass(frozen=True)
class _PartOf:
    """The place of a part in the whole call, whose corners, located once, it shares."""

    whole: Sampling
    points: slice
    first_image: int

    def corners(self, layers: Sequence[int], slopes: bool) -> dict[int, Corners]:
        """The part's corners (P, K), rows counted from the first cell of its first image."""
        found = {}
        for i, corners in self.whole.corners(layers, slopes).items():
            own, feature = corners.of_points(self.points), self.whole.features[i]
            first_row = self.first_image * feature.shape[2] * feature.shape[3]
            index = own.index - first_row if first_row else own.index
            found[i] = Corners(index, own.weight, own.slope)
        return found
