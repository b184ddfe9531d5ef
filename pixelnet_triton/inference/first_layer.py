"""The first layer of the MLP on the hypercolumns of a tile of neighbouring pixels.

    z = sum over i of  S_i X_i W_i^T  +  b,      all pixels (x, y) of a tile

The pixels form a grid, so S_i is the product of one matrix per axis, and consecutive tiles need
the same projected cells. On a CPU this is used (`ProjectedLayer`):

    Q_i = X_i W_i^T             once for the whole image, coarsest maps first, as memory allows
    R_i = A_y Q_i               a small matrix product down the tile's rows
    z   = [A_x ...] [R_i ...]   along them: two cells a pixel and map, of all maps in one bag
    z  += X_1 W_1^T             a map as fine as the image: no interpolation at all

On a GPU the kernels gather and project by themselves: `SampledLayer` calls the library's operator
on the rows and columns of the maps that the tile touches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..call.geometry import Geometry
from ..cpu.bags import gather_rows
from ..cpu.maps import compute_dtype
from ..dispatch import backend_for
from ..operators import sparse_hypercolumn_operator
from ..planner import forward_only
from .spans import Span, most_cells, span

__all__ = ["FirstLayer", "ProjectedLayer", "SampledLayer", "Tile", "first_layer"]


@dataclass(frozen=True)
class Tile:
    """Pixels y0 <= y < y1, x0 <= x < x1 of the image."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def rows(self) -> int:
        return self.y1 - self.y0

    @property
    def columns(self) -> int:
        return self.x1 - self.x0

    @property
    def pixels(self) -> int:
        return self.rows * self.columns


class FirstLayer(Protocol):
    """act(z) of a tile, and what that takes."""

    kept_bytes: int  # held as long as the object lives

    def scratch_bytes(self, rows: int, columns: int) -> int:
        """At most so much is allocated at once for a tile, its result included."""

    def __call__(self, tile: Tile) -> Tensor:
        """(pixels, D), row by row."""


def first_layer(
    features: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor,
    activation: str | None,
    geometry: Geometry,
    memory: int,
) -> FirstLayer:
    """The one for the features' device: maps (1, C_i, H_i, W_i), weight (D, sum C_i), bias (D,).

    `memory`: bytes that may be kept from tile to tile.
    """
    if backend_for(features[0]).__name__.endswith(".gpu"):
        return SampledLayer(features, weight, bias, activation, geometry)
    return ProjectedLayer(features, weight, bias, activation, geometry, memory)


def _most_cells_of_tile(
    geometry: Geometry, feature: Tensor, layer: int, rows: int, columns: int
) -> tuple[int, int]:
    """(down, across) on a map, for a tile of so many pixels anywhere on the image."""
    scale_x, _, scale_y, _ = geometry.affine[layer]
    down = most_cells(scale_y, feature.shape[2], rows)
    return down, most_cells(scale_x, feature.shape[3], columns)


class SampledLayer:
    """The library's operator on the part of the maps under the tile."""

    kept_bytes = 0

    def __init__(
        self,
        features: Sequence[Tensor],
        weight: Tensor,
        bias: Tensor,
        activation: str | None,
        geometry: Geometry,
    ) -> None:
        self.features = features
        self.weight = weight.to(features[0].dtype)
        self.bias = bias.to(features[0].dtype)
        self.activation = activation
        self.geometry = geometry

    def scratch_bytes(self, rows: int, columns: int) -> int:
        """Result, points, hypercolumns and projected cells: all that any plan may allocate."""
        pixels, (out_features, channels) = rows * columns, self.weight.shape
        cells = sum(
            math.prod(_most_cells_of_tile(self.geometry, feature, i, rows, columns))
            for i, feature in enumerate(self.features)
        )
        values = pixels * (out_features + channels) + cells * out_features
        return values * self.weight.element_size() + pixels * 16

    def __call__(self, tile: Tile) -> Tensor:
        cropped, affine = [], []
        for feature, layer in zip(self.features, self.geometry.affine, strict=True):
            scale_x, offset_x, scale_y, offset_y = layer
            y = span(scale_y, offset_y, feature.shape[2], tile.y0, tile.y1)
            x = span(scale_x, offset_x, feature.shape[3], tile.x0, tile.x1)
            cropped.append(feature[:, :, y.first : y.first + y.count, x.first : x.first + x.count])
            # The tile's first pixel becomes (0, 0), its first cell cell 0.
            shift_x = offset_x + scale_x * tile.x0 - x.first
            affine.append((scale_x, shift_x, scale_y, offset_y + scale_y * tile.y0 - y.first))
        return sparse_hypercolumn_operator(
            cropped,
            _grid_of_points(tile.rows, tile.columns, self.weight.device),
            None,
            self.weight,
            self.bias,
            Geometry(tuple(affine)),
            self.activation,
            forward_only("auto"),
        )


def _grid_of_points(rows: int, columns: int, device: torch.device) -> Tensor:
    """(x, y) of a tile's pixels, row by row: (rows * columns, 2) int64."""
    y = torch.arange(rows, device=device)[:, None].expand(rows, columns)
    x = torch.arange(columns, device=device).expand(rows, columns)
    return torch.stack([x, y], dim=-1).flatten(0, 1)


class ProjectedLayer:
    """Every map projected before it is interpolated; see the top of this file."""

    def __init__(
        self,
        features: Sequence[Tensor],
        weight: Tensor,
        bias: Tensor,
        activation: str | None,
        geometry: Geometry,
        memory: int,
    ) -> None:
        self.dtype = compute_dtype(features[0].dtype)
        self.features = features
        self.weight, self.bias = weight.to(self.dtype), bias.to(self.dtype)
        self.activation = activation
        self.geometry = geometry
        ends = torch.tensor([f.shape[1] for f in features]).cumsum(0).tolist()
        self.columns = [slice(end - f.shape[1], end) for end, f in zip(ends, features, strict=True)]
        # Does pixel (x, y) lie on the centre of cell (x, y)?
        direct = [affine == (1.0, 0.0, 1.0, 0.0) for affine in geometry.affine]
        self.direct = [i for i, is_direct in enumerate(direct) if is_direct]
        self.interpolated = [i for i, is_direct in enumerate(direct) if not is_direct]
        self.tables: dict[int, Tensor] = {}
        self.kept_bytes = 0
        with torch.autocast("cpu", enabled=False):  # the caller has obeyed it
            self._project_once(memory)

    def _project_once(self, memory: int) -> None:
        """Q_i (H_i, W_i, D) of the coarsest maps that fit into `memory` bytes."""
        item, out_features = self.weight.element_size(), self.weight.shape[0]
        for i in sorted(self.interpolated, key=lambda i: self.features[i].shape[2:].numel()):
            size = self.features[i].shape[2:].numel() * out_features * item
            if self.kept_bytes + size > memory:
                return
            self.tables[i] = self._project(i, self.features[i][0])
            self.kept_bytes += size

    def _project(self, layer: int, part: Tensor) -> Tensor:
        """(C_i, h, w) -> (h, w, D). The weights of a map sum to 1: the bias rides on one."""
        right = self.weight[:, self.columns[layer]].t()
        cells = _cells(part, self.dtype)
        if layer == self.interpolated[0]:
            projected = torch.addmm(self.bias, cells, right)
        else:
            projected = cells @ right
        return projected.unflatten(0, part.shape[1:])

    def scratch_bytes(self, rows: int, columns: int) -> int:
        pixels, out_features = rows * columns, self.weight.shape[0]
        values = pixels * out_features
        largest_crop = 0
        for i in self.interpolated:
            feature = self.features[i]
            down, across = _most_cells_of_tile(self.geometry, feature, i, rows, columns)
            values += rows * across * out_features
            # The projected cells and, where a copy is made of them, the cells themselves.
            copied = out_features if i in self.tables else out_features + feature.shape[1]
            largest_crop = max(largest_crop, down * across * copied)
        for i in self.direct:
            largest_crop = max(largest_crop, pixels * self.features[i].shape[1])
        # Indices (int64 while they are computed) and weights, two cells a pixel and map.
        lists = pixels * (2 * len(self.interpolated) * 24 + 8)
        result = pixels * out_features * 2 if self.dtype != self.features[0].dtype else 0
        return (values + largest_crop) * self.weight.element_size() + lists + result

    def __call__(self, tile: Tile) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            z = self._linear(tile)
        if self.activation == "relu":
            z.relu_()
        return z.to(self.features[0].dtype)

    def _linear(self, tile: Tile) -> Tensor:
        """z, (pixels, D), in the compute dtype."""
        z = self._interpolated(tile) if self.interpolated else None
        for i in self.direct:
            part = self.features[i][0, :, tile.y0 : tile.y1, tile.x0 : tile.x1]
            cells, right = _cells(part, self.dtype), self.weight[:, self.columns[i]].t()
            z = torch.addmm(self.bias, cells, right) if z is None else z.addmm_(cells, right)
        assert z is not None
        return z

    def _interpolated(self, tile: Tile) -> Tensor:
        """Sum over the interpolated maps, (pixels, D), by one bag over [R_1 ; R_2 ; ...]."""
        spans = [self._spans(i, tile) for i in self.interpolated]
        sizes = [tile.rows * x.count for _, x in spans]
        table = self.weight.new_empty((sum(sizes), self.weight.shape[0]))
        index = torch.empty(tile.rows, tile.columns, 2 * len(spans), dtype=torch.int32)
        weight = torch.empty(index.shape, dtype=self.dtype)
        start = 0
        for n, (layer, (y, x), size) in enumerate(
            zip(self.interpolated, spans, sizes, strict=True)
        ):
            below, across = slice(y.first, y.first + y.count), slice(x.first, x.first + x.count)
            if layer in self.tables:
                q = self.tables[layer][below, across]
            else:
                q = self._project(layer, self.features[layer][0, :, below, across])
            r = table[start : start + size].view(tile.rows, -1)  # (rows, count_x * D)
            torch.mm(y.matrix(self.dtype), q.reshape(y.count, -1), out=r)
            first = start + x.count * torch.arange(tile.rows)[:, None]
            index[..., 2 * n], index[..., 2 * n + 1] = first + x.low, first + x.high
            weight[..., 2 * n], weight[..., 2 * n + 1] = 1 - x.share, x.share
            start += size
        return gather_rows(table, index.flatten(0, 1), weight.flatten(0, 1))

    def _spans(self, layer: int, tile: Tile) -> tuple[Span, Span]:
        scale_x, offset_x, scale_y, offset_y = self.geometry.affine[layer]
        height, width = self.features[layer].shape[2:]
        return (
            span(scale_y, offset_y, height, tile.y0, tile.y1),
            span(scale_x, offset_x, width, tile.x0, tile.x1),
        )


def _cells(part: Tensor, dtype: torch.dtype) -> Tensor:
    """(C, h, w) -> (h * w, C), a view where the layout allows it."""
    if part.stride(0) == 1:
        return part.permute(1, 2, 0).flatten(0, 1).to(dtype)
    return part.flatten(1).t().to(dtype)
