"""Few points on large maps: the cells that they touch are copied and weighted.

    (S X)^T[c, p] = sum over k of weight[p, k] * X[c, cell[p, k]]

For expressions, which autograd differentiates. A cell whose channels lie side by side is copied by
`embedding`, whose gradient adds rows of memory; planes are copied by `gather`, one index for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..call import Geometry, Sampling
from .locating import locate

__all__ = ["Picked"]


@dataclass(frozen=True)
class Picked:
    """Reads some maps, all channels_last (`rows`) or none, for equally many points an image.

    `training`: autograd sums gradients by the same weights.
    """

    geometry: Geometry
    rows: bool
    training: bool

    def __call__(self, features: Sequence[Tensor], points: Tensor) -> list[Tensor]:
        """S_i X_i of each map, (B, C_i, 1, N), in the dtype that is computed in."""
        s = Sampling(features, points.reshape(-1, 2), None, self.geometry)
        corners = locate(s, in_image=not self.rows, halves=not self.training)
        index, weight = corners.index, corners.weight
        assert weight is not None
        of_points = weight
        layers, batch = len(features), s.batch
        # What all layers share is shaped at once: an operator takes as long as any other.
        if self.rows:
            shape = (layers, batch, 1, -1, 4)
            index, weight = index.view(shape), weight.view(*shape, 1)
            read = _rows
        else:
            by_corner = (layers, 4, batch, -1)
            index = index.mT.view(by_corner).transpose(1, 2).reshape(layers, batch, 1, -1)
            weight = weight.mT.view(by_corner).transpose(1, 2).unsqueeze(2)
            read = _planes
        values = [*map(read, features, index.unbind(), weight.unbind())]
        if not self.geometry.border:  # what lies outside may be infinite
            outside = of_points.any(2).logical_not().view(layers, batch, 1, 1, -1)
            if bool(outside.any()):
                blank = zip(values, outside.unbind(), strict=True)
                values = [value.masked_fill(where, 0) for value, where in blank]
        return values


def _rows(feature: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """For index (B, 1, N, K) and weight (B, 1, N, K, 1)."""
    table = feature.permute(0, 2, 3, 1).reshape(-1, feature.shape[1])
    cells = torch.embedding(table, index).to(weight.dtype)
    return cells.mul(weight).sum(3).permute(0, 3, 1, 2)


def _planes(feature: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """For index (B, 1, K N) and weight (B, 1, K, N)."""
    batch, channels = feature.shape[:2]
    cells = feature.flatten(2).gather(2, index.expand(-1, channels, -1)).to(weight.dtype)
    return cells.view(batch, channels, *weight.shape[2:]).mul(weight).sum(2, keepdim=True)
