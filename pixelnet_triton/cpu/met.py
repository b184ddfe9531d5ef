"""Points that meet the centres of cells, where `grid_sample` would miss these.

    t = (a x + b) / c an integer on both axes:        S X = X[t_y, t_x],  to the bit

`grid_sample` computes t again from u = (2 t + 1) / W rounded to float32, and is off by up to W / 2
units in the last place. Looking for such points takes as long as sampling a layer at few of them,
so it is done where there may be any: integers on a map as fine as the image, or floating points
where u is not exact anyway (in [0, 1] and [-1, 1] it is).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..call import Geometry
from ..call.geometry import cell_lattice, integers_meet_cells
from .corners import Sizes, axes_of, nearest_cells

__all__ = ["Cells", "Meeting"]


class Cells(NamedTuple):
    """The cells of one layer that points meet, all (B, 1, N).

    at: index in a plane. off: False where a point meets its cell; None if all do. weight: 0 for
    cells outside a zero-padded map; None if all are 1.
    """

    at: Tensor
    off: Tensor | None
    weight: Tensor | None

    def taken(self, feature: Tensor) -> Tensor:
        """X at all cells, (B, C, 1, N)."""
        width = feature.shape[3]
        if feature.stride(2) == width * feature.stride(3):
            planes = feature.flatten(2).gather(2, self.at.expand(-1, feature.shape[1], -1))
        else:  # a crop, which this reads where it lies
            at, image = self.at.squeeze(1), torch.arange(len(feature)).unsqueeze(1)
            cells = feature.permute(0, 2, 3, 1)
            planes = cells[image, at.div(width, rounding_mode="floor"), at % width].mT
        if self.weight is not None:
            planes = planes.masked_fill(self.weight == 0, 0)  # which may be infinite
        return planes.unsqueeze(2)

    def without(self, planes: Tensor) -> Tensor:
        """What the other points send of planes (B, C, 1, N)."""
        return planes * 0 if self.off is None else planes.masked_fill(~self.off.unsqueeze(2), 0)

    def give(self, gradient: Tensor, planes: Tensor) -> None:
        """gradient (B, C, H, W) += what points that meet cells send, of planes (B, C, 1, N)."""
        sent = planes.squeeze(2)
        if self.off is not None:
            sent = sent.masked_fill(self.off, 0)
        if self.weight is not None:
            sent = sent.masked_fill(self.weight == 0, 0)
        gradient.flatten(2).scatter_add_(2, self.at.expand(-1, sent.shape[1], -1), sent)


@dataclass(frozen=True)
class Meeting:
    """Which points meet cells.

    lattice: 1 / spacing of the coordinates at which `grid_sample` may miss a centre; None for none.
    same: layers whose cells are the integer points. others: do integers meet other layers' cells?
    """

    geometry: Geometry
    sizes: Sizes
    lattice: Tensor | None
    same: tuple[int, ...]
    others: bool

    @staticmethod
    def of(geometry: Geometry, sizes: Sizes, scale: Tensor, offset: Tensor) -> Meeting:
        """On maps of those sizes, of which u = scale * point + offset."""
        same = [i for i, layer in enumerate(geometry.affine) if layer == (1.0, 0.0, 1.0, 0.0)]
        others = [layer for i, layer in enumerate(geometry.affine) if i not in same]
        lattice = None
        # Points of few bits have an exact u if this only shifts these bits.
        shifts = (scale.frexp()[0] == 0.5) & ((offset * (1 << 20)).frac() == 0)
        if not bool(shifts.all()):
            spacing = math.lcm(*map(cell_lattice, geometry.affine))
            lattice = torch.tensor(spacing, dtype=torch.float32, device="cpu")
        return Meeting(geometry, sizes, lattice, tuple(same), any(map(integers_meet_cells, others)))

    def cells(self, batch: int, points: Tensor) -> dict[int, Cells]:
        """Of each layer of which points, (B, N, 2) or (P, 2), meet cells."""
        if points.is_floating_point():
            if self.lattice is None or _all_off(points.mul(self.lattice)):
                return {}
        elif not self.others:
            return {i: self._same(i, batch, points) for i in self.same}
        by_image = (batch, 1, -1)
        axes = axes_of(self.geometry.affine, self.sizes, torch.float64, self.geometry.border)
        t = axes.positions(points.reshape(-1, 2))
        off = torch.logical_or(*t.frac().unbind(0))  # (M, P)
        found = nearest_cells(t, axes, torch.zeros((), dtype=torch.int64), self.sizes)
        cells = {}
        for i, count in enumerate(off.sum(1).tolist()):
            if count < off.shape[1]:
                corners = found.layer(i)
                weight = None if corners.weight is None else corners.weight.view(by_image)
                off_layer = off[i].view(by_image) if count else None
                cells[i] = Cells(corners.index.view(by_image), off_layer, weight)
        return cells

    def on_steps(self, points: Tensor) -> Tensor | None:
        """Rows (n,) of the points (P, 2) that may lie on a cell's row or column; None for none."""
        if self.lattice is None:
            return None
        share = points.detach().mul(self.lattice).frac()
        return None if bool(share.all()) else (share == 0).any(1).nonzero().squeeze(1)

    def _same(self, layer: int, batch: int, points: Tensor) -> Cells:
        """Those of integer points on a map as fine as the image."""
        inside = points.clamp(*_bounds(self.sizes[layer]))
        x, y = inside.unbind(-1)
        index = torch.add(x, y, alpha=self.sizes[layer][1]).view(batch, 1, -1)
        if self.geometry.border:
            return Cells(index, None, None)
        return Cells(index, None, (inside == points).all(-1).view(batch, 1, -1))


def _all_off(points: Tensor) -> bool:
    """Has every point (..., 2) a coordinate that is no integer?"""
    share = points.frac()
    if share.dtype == torch.float32 and share.is_contiguous():
        return bool(share.view(torch.int64).all())  # x and y as one number: a third of the time
    return bool(share.any(-1).all())


@lru_cache(maxsize=256)
def _bounds(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """First and last cell as (x, y)."""
    last = torch.tensor((size[1] - 1, size[0] - 1), device="cpu")
    return torch.zeros_like(last), last
