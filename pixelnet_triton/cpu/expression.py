"""Few points on small maps: one expression, which autograd differentiates.

    y = act([S_1 X_1 | ...] W^T + b),   S_i X_i by `grid_sample`

Such calls are bound by the 2-5 us that an operator takes to dispatch; everything here is as few as
possible. Positions are told exactly (call/grids.py), where float32 cannot in float64. `grid_sample`
writes channels first, (B, C_i, 1, N), so the hypercolumns are transposed here: views, where there
is one image. On a map as fine as the image integer points are taken by index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import gelu, linear, pad

from ..call import CallShape, Geometry, Gradients, Linear, Sampling, Wanted
from ..call.grids import Grid, grid_of
from .products import compute_dtype, product_dtype
from .routes import in_double

__all__ = ["Expression"]

BILINEAR = 0
PADDING = {"zeros": 0, "border": 1}
# A grid beyond all cells of any map, of which `grid_sample` still finds the position.
FAR = 1e9
FINE = (1.0, 0.0, 1.0, 0.0)  # the affine map of a layer as fine as the image


@dataclass(frozen=True)
class Expression:
    """See :class:`pixelnet_triton.call.Executor`.

    It keeps the hypercolumns for the backward pass, and the maps as they are sampled.

    Args:
        grids: of each map.
        a, b, c: u = (a * point + b) / c: (M, 1, 2) by layer, or (2,) if they are alike, as they are
            where each map covers the image. c None: all 1. In float64, unless float32 is exact.
        last: u of the last cell where any map is enlarged and its border counts, else None.
    """

    geometry: Geometry
    grids: tuple[Grid, ...]
    channels: int
    a: Tensor
    b: Tensor
    c: Tensor | None
    last: Tensor | None
    one: Tensor  # kept: a number takes longer to become a tensor than to be subtracted

    @staticmethod
    def of(geometry: Geometry, shape: CallShape) -> Expression:
        """That of calls of that shape."""
        sizes = [(layer.rows, layer.columns) for layer in shape.layers]
        grids = [
            grid_of(affine, *size) for affine, size in zip(geometry.affine, sizes, strict=True)
        ]
        bounded = geometry.border and [(grid.rows, grid.columns) for grid in grids] != sizes
        last = _last(grids, sizes) if bounded else [[0.0, 0.0]] * len(sizes)
        dtype = torch.float64 if in_double(shape) else torch.float32
        exact = all(grid.exact for grid in grids)
        numbers = torch.tensor(
            [[(*grid.x, x), (*grid.y, y)] for grid, (x, y) in zip(grids, last, strict=True)],
            dtype=dtype if exact else torch.float64,
            device="cpu",
        ).unsqueeze(1)
        if bool((numbers == numbers[:1]).all()):  # to the bit, as each layer would be alone
            numbers = numbers[0, 0]
        a, b, c, bounds = [number.contiguous() for number in numbers.unbind(-1)]
        return Expression(
            geometry,
            tuple(grids),
            shape.channels,
            a,
            b,
            None if bool((c == 1).all()) else c,
            bounds.to(dtype) if bounded else None,
            torch.ones((), dtype=dtype, device="cpu"),
        )

    def forward(self, s: Sampling, head: Linear | None) -> Tensor:
        """(..., D), or (..., sum C_i) without a head, for points (..., 2)."""
        features, points, dtype = s.features, s.points, s.features[0].dtype
        planes = self._planes(features, points).to(compute_dtype(dtype))
        if features[0].shape[0] == 1:
            rows = planes.view(self.channels, -1).t()  # (P, sum C)
        else:
            rows = planes.squeeze(2).transpose(1, 2)  # (B, N, sum C)
            if points.dim() == 2:
                rows = rows.flatten(0, 1)
        if head is None:
            value = rows.to(dtype, memory_format=torch.contiguous_format)
            return value.unsqueeze(0) if value.dim() < points.dim() else value
        weight, bias, activation = head
        half = dtype.itemsize < 4
        value = _in_half(rows, head, dtype) if half else linear(rows, weight, bias)
        if activation is not None:
            value = value.relu_() if activation == "relu" else gelu(value)
        return value.unsqueeze(0) if value.dim() < points.dim() else value

    def backward(
        self, s: Sampling, head: Linear | None, grad: Tensor, output: Tensor | None, wanted: Wanted
    ) -> Gradients:
        raise RuntimeError("autograd differentiates an expression by itself")

    def _planes(self, features: Sequence[Tensor], points: Tensor) -> Tensor:
        """[S_1 X_1 | ...] as (B, sum C_i, 1, N), in the dtype that is sampled in."""
        grids = self._positions(features, points)
        whole = not points.is_floating_point()
        planes = [
            self._at_cells(feature, points).to(self.one.dtype)
            if whole and self.geometry.affine[i] == FINE
            else self._sampled(i, feature, grids[i])
            for i, feature in enumerate(features)
        ]
        return planes[0] if len(planes) == 1 else torch.cat(planes, 1)

    def _sampled(self, layer: int, feature: Tensor, grid: Tensor) -> Tensor:
        aligned, rows, columns = self.grids[layer][:3]
        right, below = columns - feature.shape[3], rows - feature.shape[2]
        sampled = pad(feature, (0, right, 0, below)) if right or below else feature
        padding = PADDING[self.geometry.padding_mode]
        return torch.grid_sampler_2d(sampled.to(self.one.dtype), grid, BILINEAR, padding, aligned)

    def _positions(self, features: Sequence[Tensor], points: Tensor) -> Sequence[Tensor]:
        """The grid of each layer, (B, 1, N, 2)."""
        alike = self.a.dim() == 1
        u = torch.addcmul(self.b, self.a, points if alike else points.reshape(1, -1, 2))
        if self.c is not None:
            u.div_(self.c)
        if not self.geometry.border:
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
            image = torch.arange(batch).unsqueeze(1)
            planes = feature.permute(0, 2, 3, 1)[image, y, x].mT
        if not self.geometry.border:  # what lies outside may be infinite
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


def _in_half(rows: Tensor, head: Linear, dtype: torch.dtype) -> Tensor:
    """(..., D) in `dtype`, the product made in the dtype that this CPU multiplies."""
    operand = product_dtype(dtype)
    bias = None if head.bias is None else head.bias.to(operand)
    return linear(rows.to(operand), head.weight.to(operand), bias).to(dtype)
