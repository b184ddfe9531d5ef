"""Dense prediction on a CPU: the first layer at neighbouring pixels, tile by tile.

    z = sum over i of  S_i X_i W_i^T  +  b,      all pixels (x, y) of a tile

The pixels form a grid, so S_i is the product of one matrix per axis, and consecutive tiles need
the same projected cells:

    Q_i = X_i W_i^T             once for the whole image, coarsest maps first, as memory allows
    R_i = A_y Q_i               a small matrix product down the tile's rows
    z   = [A_x ...] [R_i ...]   along them: two cells a pixel and map, of all maps in one bag
    z  += X_1 W_1^T             a map as fine as the image: no interpolation at all
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..call import Geometry, Linear, Sampling
from ..call.geometry import quotient
from ..call.placing import place_seen
from .bags import gather_rows
from .products import TILE, activate_, add_product, compute_dtype

__all__ = ["DenseLayer"]


@dataclass(frozen=True)
class _Span:
    """Cells first ... first + count - 1 under some pixels of an axis, and where these fall.

    low, high (n,): each pixel's two cells, counted from `first`, one and the same at its centre;
    upper (n,) float64: the weight of `high`.
    """

    first: int
    count: int
    low: Tensor
    high: Tensor
    upper: Tensor

    @property
    def cells(self) -> slice:
        return slice(self.first, self.first + self.count)

    def matrix(self, dtype: torch.dtype) -> Tensor:
        """A (n, count): two non-zeros a row."""
        matrix = torch.zeros(len(self.low), self.count, dtype=torch.float64, device="cpu")
        matrix.scatter_(1, self.low[:, None], 1 - self.upper[:, None])
        return matrix.scatter_add_(1, self.high[:, None], self.upper[:, None]).to(dtype)

    def rows_of(self, cells: Tensor, out: Tensor) -> None:
        """A Q (n, columns) of cells Q (count, columns), with numbers that are not finite kept to
        the pixels that see them: a product would multiply them by 0 for all others."""
        torch.mm(self.matrix(cells.dtype), cells, out=out)
        if not math.isfinite(cells.sum().item()):
            upper = self.upper.to(cells.dtype)[:, None]
            torch.add((1 - upper) * cells[self.low], upper * cells[self.high], out=out)


def _span(scale: float, offset: float, cells: int, pixels: slice) -> _Span:
    """Pixels at t = scale * x + offset, clamped to the map's cells."""
    a, b, c = quotient(scale, offset)
    x = torch.arange(pixels.start, pixels.stop, dtype=torch.float64, device="cpu")
    low, high, upper = place_seen(x.mul_(a).add_(b).div_(c), 0, cells - 1)
    first, last = int(low[0]), int(high[-1])
    return _Span(first, last - first + 1, (low - first).long(), (high - first).long(), upper)


def _most_cells(scale: float, cells: int, pixels: int) -> int:
    """How many cells a span of so many pixels may have."""
    return min(cells, math.ceil((pixels - 1) * scale) + 2)


class DenseLayer:
    """Every map of one image projected before it is interpolated.

    Args:
        features: maps (1, C_i, H_i, W_i). head: the first layer, with a bias.
        geometry: where pixels fall on each map. image_size: (H, W), of all pixels.
        memory: bytes that may be kept from tile to tile.
    """

    def __init__(
        self,
        features: Sequence[Tensor],
        head: Linear,
        geometry: Geometry,
        image_size: tuple[int, int],
        memory: int,
    ) -> None:
        assert head.bias is not None
        self.dtype = compute_dtype(features[0].dtype)
        self.features = features
        self.weight, self.bias = head.weight.to(self.dtype), head.bias.to(self.dtype)
        self.activation = head.activation
        self.geometry = geometry
        nowhere = features[0].new_empty((0, 2))
        self.columns = Sampling(features, nowhere, None, geometry).columns
        # Does pixel (x, y) lie on the centre of cell (x, y), and is there one for each of them?
        height, width = image_size
        direct = [
            affine == (1.0, 0.0, 1.0, 0.0) and f.shape[2] >= height and f.shape[3] >= width
            for f, affine in zip(features, geometry.affine, strict=True)
        ]
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
        projected = cells.new_empty((cells.shape[0], right.shape[1]))
        add_product(projected, cells, right, self.bias if layer == self.interpolated[0] else None)
        return projected.unflatten(0, part.shape[1:])

    def scratch_bytes(self, rows: int, columns: int) -> int:
        pixels, out_features = rows * columns, self.weight.shape[0]
        values = pixels * out_features
        largest_crop = 0
        filled = TILE if out_features < TILE else 0  # columns of a product that is filled up
        for i in self.interpolated:
            feature = self.features[i]
            scale_x, _, scale_y, _ = self.geometry.affine[i]
            down = _most_cells(scale_y, feature.shape[2], rows)
            across = _most_cells(scale_x, feature.shape[3], columns)
            values += rows * across * out_features
            # The projected cells and, where a copy is made of them, the cells themselves.
            made = feature.shape[1] + filled
            copied = out_features if i in self.tables else out_features + made
            largest_crop = max(largest_crop, down * across * copied)
        for i in self.direct:
            largest_crop = max(largest_crop, pixels * (self.features[i].shape[1] + filled))
        # Indices (int64 while they are computed) and weights, two cells a pixel and map.
        lists = pixels * (2 * len(self.interpolated) * 24 + 8)
        result = pixels * out_features * 2 if self.dtype != self.features[0].dtype else 0
        return (values + largest_crop) * self.weight.element_size() + lists + result

    def __call__(self, rows: slice, columns: slice) -> Tensor:
        """act(z) of the pixels in some rows and columns, (pixels, D), row by row."""
        with torch.autocast("cpu", enabled=False):
            z = self._linear(rows, columns)
        activate_(z, self.activation)
        return z.to(self.features[0].dtype)

    def _linear(self, rows: slice, columns: slice) -> Tensor:
        """z, (pixels, D), in the compute dtype."""
        z = self._interpolated(rows, columns) if self.interpolated else None
        for i in self.direct:
            part = self.features[i][0, :, rows, columns]
            cells, right = _cells(part, self.dtype), self.weight[:, self.columns[i]].t()
            if z is None:
                z, onto = cells.new_empty((cells.shape[0], right.shape[1])), self.bias
            else:
                onto = z
            add_product(z, cells, right, onto)
        assert z is not None
        return z

    def _interpolated(self, rows: slice, columns: slice) -> Tensor:
        """Sum over the interpolated maps, (pixels, D), by one bag over [R_1 ; R_2 ; ...]."""
        height, width = rows.stop - rows.start, columns.stop - columns.start
        spans = [self._spans(i, rows, columns) for i in self.interpolated]
        sizes = [height * x.count for _, x in spans]
        table = self.weight.new_empty((sum(sizes), self.weight.shape[0]))
        index = torch.empty(height, width, 2 * len(spans), dtype=torch.int32, device="cpu")
        weight = torch.empty(index.shape, dtype=self.dtype, device="cpu")
        start = 0
        for n, (layer, (y, x), size) in enumerate(
            zip(self.interpolated, spans, sizes, strict=True)
        ):
            if layer in self.tables:
                q = self.tables[layer][y.cells, x.cells]
            else:
                q = self._project(layer, self.features[layer][0, :, y.cells, x.cells])
            r = table[start : start + size].view(height, -1)  # (rows, count_x * D)
            y.rows_of(q.reshape(y.count, -1), r)
            first = start + x.count * torch.arange(height, device="cpu")[:, None]
            index[..., 2 * n], index[..., 2 * n + 1] = first + x.low, first + x.high
            weight[..., 2 * n], weight[..., 2 * n + 1] = 1 - x.upper, x.upper
            start += size
        return gather_rows(table, index.flatten(0, 1), weight.flatten(0, 1))

    def _spans(self, layer: int, rows: slice, columns: slice) -> tuple[_Span, _Span]:
        scale_x, offset_x, scale_y, offset_y = self.geometry.affine[layer]
        height, width = self.features[layer].shape[2:]
        y = _span(scale_y, offset_y, height, rows)
        return y, _span(scale_x, offset_x, width, columns)


def _cells(part: Tensor, dtype: torch.dtype) -> Tensor:
    """(C, h, w) -> (h * w, C), a view where the layout allows it."""
    if part.stride(0) == 1:
        return part.permute(1, 2, 0).flatten(0, 1).to(dtype)
    return part.flatten(1).t().to(dtype)
