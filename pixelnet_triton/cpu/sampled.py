"""Few points on small maps, sampled as a whole by `grid_sample`, which autograd differentiates.

Positions are told exactly (call/grids.py), where float32 cannot in float64. On a map as fine as the
image integer points are taken by index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..call import CallShape, Geometry
from ..call.grids import Grid, grid_of
from .grid_sample import BILINEAR, FAR, PADDING
from .routes import in_double

__all__ = ["Sampled"]

FINE = (1.0, 0.0, 1.0, 0.0)  # the affine map of a layer as fine as the image


class _Layer(NamedTuple):
    """Is it as fine as the image; columns and rows that are added; does its dtype change?"""

    fine: bool
    aligned: bool
    right: int
    below: int
    converts: bool


@dataclass(frozen=True)
class Sampled:
    """Reads some maps, for equally many points an image.

    Args:
        layers: what is known of each map.
        padding: torch's number for the mode.
        a, b, c: u = (a * point + b) / c: (M, 1, 2) by layer, or (2,) if they are alike, as they are
            where each map covers the image. c None: all 1. In float64, unless float32 is exact.
        last: u of the last cell where any map is enlarged and its border counts, else None.
    """

    layers: tuple[_Layer, ...]
    padding: int
    a: Tensor
    b: Tensor
    c: Tensor | None
    last: Tensor | None
    one: Tensor  # kept: a number takes longer to become a tensor than to be subtracted

    @staticmethod
    def of(geometry: Geometry, shape: CallShape, chosen: Sequence[int]) -> Sampled:
        """That of some layers of calls of that shape; `geometry` is theirs."""
        sizes = [(shape.layers[i].rows, shape.layers[i].columns) for i in chosen]
        grids = [
            grid_of(affine, *size) for affine, size in zip(geometry.affine, sizes, strict=True)
        ]
        bounded = geometry.border and [(grid.rows, grid.columns) for grid in grids] != sizes
        last = _last(grids, sizes) if bounded else [[0.0, 0.0]] * len(sizes)
        dtype = torch.float64 if in_double(shape) else torch.float32
        exact = all(grid.exact for grid in grids)
        converts = in_double(shape) or shape.itemsize < 4
        numbers = torch.tensor(
            [[(*grid.x, x), (*grid.y, y)] for grid, (x, y) in zip(grids, last, strict=True)],
            dtype=dtype if exact else torch.float64,
            device="cpu",
        ).unsqueeze(1)
        if bool((numbers == numbers[:1]).all()):  # to the bit, as each layer would be alone
            numbers = numbers[0, 0]
        a, b, c, bounds = [number.contiguous() for number in numbers.unbind(-1)]
        layers = [
            _Layer(
                affine == FINE,
                grid.aligned,
                grid.columns - columns,
                grid.rows - rows,
                converts,
            )
            for affine, grid, (rows, columns) in zip(geometry.affine, grids, sizes, strict=True)
        ]
        return Sampled(
            tuple(layers),
            PADDING[geometry.padding_mode],
            a,
            b,
            None if bool((c == 1).all()) else c,
            bounds.to(dtype) if bounded else None,
            torch.ones((), dtype=dtype, device="cpu"),
        )

    def __call__(self, features: Sequence[Tensor], points: Tensor) -> list[Tensor]:
        """S_i X_i of each map, (B, C_i, 1, N), in float64 where positions are."""
        grids = self._positions(features, points)
        integers, dtype = not points.is_floating_point(), self.one.dtype
        planes = []
        for (fine, aligned, right, below, converts), feature, grid in zip(
            self.layers, features, grids, strict=True
        ):
            if fine and integers:
                plane = self._at_cells(feature, points)
                planes.append(plane.to(dtype) if converts else plane)
                continue
            map_ = pad(feature, (0, right, 0, below)) if right or below else feature
            map_ = map_.to(dtype) if converts else map_
            planes.append(torch.grid_sampler_2d(map_, grid, BILINEAR, self.padding, aligned))
        return planes

    def _positions(self, features: Sequence[Tensor], points: Tensor) -> Sequence[Tensor]:
        """The grid of each layer, (B, 1, N, 2)."""
        alike = self.a.dim() == 1
        u = torch.addcmul(self.b, self.a, points if alike else points.reshape(1, -1, 2))
        if self.c is not None:
            u.div_(self.c)
        if self.padding == PADDING["zeros"]:
            u.clamp_(-FAR, FAR)  # what is infinite has no weights
        u = u.to(self.one.dtype)
        if self.last is not None:
            u = torch.minimum(u, self.last)
        u.sub_(self.one)  # which the kernels add again, without loss
        batch = features[0].shape[0]
        if alike:
            return (u.reshape(batch, 1, -1, 2),) * len(features)
        return u.reshape(len(features), batch, 1, -1, 2).unbind(0)

    def _at_cells(self, feature: Tensor, points: Tensor) -> Tensor:
        """X at integer points, (B, C, 1, N), where it is as fine as the image."""
        inside = points.clamp(*_bounds((feature.shape[2], feature.shape[3])))
        batch, width = feature.shape[0], feature.shape[3]
        x, y = inside.reshape(batch, -1, 2).long().unbind(-1)
        if feature.stride(2) == width * feature.stride(3):
            at = torch.add(x, y, alpha=width).unsqueeze(1)
            planes = feature.flatten(2).gather(2, at.expand(-1, feature.shape[1], -1))
        else:  # a crop, which this reads where it lies
            image = torch.arange(batch, device="cpu").unsqueeze(1)
            planes = feature.permute(0, 2, 3, 1)[image, y, x].mT
        if self.padding == PADDING["zeros"]:  # what lies outside may be infinite
            outside = (inside != points).any(-1).view(batch, 1, -1)
            planes = planes.masked_fill(outside, 0)
        return planes.unsqueeze(2)


def _last(grids: Sequence[Grid], sizes: Sequence[tuple[int, int]]) -> list[list[float]]:
    """u of the last column and row of each map, exact."""
    return [
        [
            2 * (cells - 1) / max(side - 1, 1) if grid.aligned else (2 * cells - 1) / side
            for cells, side in ((columns, grid.columns), (rows, grid.rows))
        ]
        for grid, (rows, columns) in zip(grids, sizes, strict=True)
    ]


@lru_cache(maxsize=256)
def _bounds(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """First and last cell as (x, y)."""
    last = torch.tensor((size[1] - 1, size[0] - 1), device="cpu")
    return torch.zeros_like(last), last
