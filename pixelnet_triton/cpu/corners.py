"""Where the points fall: corner cells and weights of all layers, in one batch of operators.

Per layer and axis t = scale * x + offset = (a * x + b) / c with a, b and c exact, so that a point
at a cell's centre gets there, low = floor(t), f = t - low, and

    h[p] = sum over corners k of weight[p, k] * cell[index[p, k]],
    weight[p] = (1 - f_y, f_y) x (1 - f_x, f_x)          row p of S: four non-zeros

Layers go through every operator together as (2 axes, M layers, P points): small problems are
bound by the 2-5 us that one operator takes to dispatch, not by arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..call import LayerAffine, Sampling
from ..call.geometry import quotient
from ..call.placing import place
from .products import compute_dtype

__all__ = ["Axes", "Corners", "Sizes", "axes_of", "locate", "nearest_cells"]

Sizes = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Corners:
    """Rows of S for M layers, as lists of K cells a point.

    index (M, P, K) integer; weight (M, P, K), None where every weight is 1; slope (2, M, P, K),
    dweight/dx and dweight/dy, where asked for. Without M for a single layer or a stack.
    """

    index: Tensor
    weight: Tensor | None
    slope: Tensor | None = None

    def layer(self, i: int) -> Corners:
        """Layer i alone: index (P, K)."""
        weight = None if self.weight is None else self.weight[i]
        return Corners(self.index[i], weight, None if self.slope is None else self.slope[:, i])

    def layers(self, chosen: Sequence[int]) -> Corners:
        """Some of the layers: index (M, P, K)."""
        index = self.index[list(chosen)]
        return Corners(index, None if self.weight is None else self.weight[list(chosen)])

    def of_points(self, part: slice) -> Corners:
        """Some points of a single layer."""
        weight = None if self.weight is None else self.weight[part]
        return Corners(
            self.index[part], weight, None if self.slope is None else self.slope[:, part]
        )

    def blank_outside(self, rows: Tensor) -> Tensor:
        """`rows` (P, C), 0 where no corner (P, K) has weight: 0 times infinity would be NaN."""
        if self.weight is None:
            return rows
        outside = self.weight.any(1).logical_not_()
        return rows.masked_fill_(outside.unsqueeze(1), 0) if bool(outside.any()) else rows

    def stacked(self) -> Corners:
        """All layers in one list a point, index (P, M * K): S = [S_1 | ... | S_M]."""
        if self.index.shape[0] == 1:
            return self.layer(0)
        weight = None if self.weight is None else self.weight.transpose(0, 1).flatten(1)
        slope = None if self.slope is None else self.slope.transpose(1, 2).flatten(2)
        return Corners(self.index.transpose(0, 1).flatten(1), weight, slope)


def locate(
    s: Sampling, *, exact: bool = False, slopes: bool = False, stack: bool = False
) -> Corners:
    """Corners of all layers of `s`; rows are numbered (image, y, x).

    `exact` promises :meth:`.Geometry.is_exact` of each. With `stack` the rows of all layers are
    numbered in one sequence.
    """
    affine, sizes, points = s.geometry.affine, s.sizes, s.points
    dtype, border = compute_dtype(s.features[0].dtype), s.geometry.border
    axes = axes_of(affine, sizes, dtype, border)
    t = axes.positions(points).to(dtype)
    rows = _first_row_of_image(s, stack)
    if exact or not s.geometry.bilinear:
        nearest = t.clamp_(axes.lowest, axes.highest).round_()
        return nearest_cells(nearest, axes, rows, sizes)

    low, upper = place(t, axes.lowest, axes.highest, axes.last_low if border else None)
    # 1 - f or f for each corner: (2, M, P, 4)
    factors = torch.addcmul(axes.at_zero, upper.unsqueeze(-1), axes.rise)
    slopes_xy = None
    if slopes:  # border: a clamped coordinate does not move; at integer t the right-hand slope
        moving = (t > 0) & (t < axes.last) if border else torch.ones_like(t, dtype=torch.bool)
        slopes_xy = (moving * axes.rate).unsqueeze(-1) * axes.rise
    if border:
        width, steps = _steps(sizes, rows.dtype)
        x, y = low.to(rows.dtype).unbind(0)
        index = torch.addcmul(rows, y, width).unsqueeze(-1) + steps + x.unsqueeze(-1)
    else:
        cells = low.unsqueeze(-1) + axes.corner
        inside_map = (cells >= 0) & (cells <= axes.last.unsqueeze(-1))
        factors.mul_(inside_map)
        slopes_xy = None if slopes_xy is None else slopes_xy.mul_(inside_map)
        index = _clamped_index(cells, axes, rows.unsqueeze(-1), sizes)
    x, y = factors.unbind(0)
    slope = None if slopes_xy is None else torch.stack((y * slopes_xy[0], slopes_xy[1] * x))
    return Corners(index, y * x, slope)


def nearest_cells(cell: Tensor, axes: Axes, rows: Tensor, sizes: Sizes) -> Corners:
    """The cells (2, M, P): K = 1; outside a zero-padded map the weight is 0."""
    valid = None
    if not axes.border:
        valid = ((cell >= 0) & (cell <= axes.last)).all(0).unsqueeze(-1)
    index = _clamped_index(cell.unsqueeze(-1), axes, rows.unsqueeze(-1), sizes)
    return Corners(index, None if valid is None else valid.to(cell.dtype))


def _clamped_index(cells: Tensor, axes: Axes, rows: Tensor, sizes: Sizes) -> Tensor:
    """rows + y * W + x for cells (2, M, P, K) brought onto the map."""
    cells = torch.minimum(cells.clamp_min(0), axes.last.unsqueeze(-1))
    x, y = cells.to(rows.dtype).unbind(0)
    width, _ = _steps(sizes, rows.dtype)
    return torch.addcmul(rows, y, width.unsqueeze(-1)) + x


@dataclass(frozen=True)
class Axes:
    """Constants of the axes of M layers. They are kept: making one small tensor takes 5 us."""

    scale: Tensor  # (2, M, 1), as are the next seven; a, b and c of :func:`.quotient`
    offset: Tensor
    divisor: Tensor | None  # None if all are 1
    rate: Tensor  # a / c, cells per unit of coordinates
    last: Tensor
    last_low: Tensor
    lowest: Tensor
    highest: Tensor
    corner: Tensor  # (2, 1, 1, 4): 0 or 1, the side of each corner
    at_zero: Tensor  # (2, 1, 1, 4): the weight of a corner along an axis is at_zero + f * rise
    rise: Tensor
    border: bool

    def positions(self, points: Tensor) -> Tensor:
        """t (2, M, P) of points (P, 2), infinite where it overflows.

        In the wider dtype of the constants and of floating points: what is finite in float64
        may be infinite in float32, and infinity times a scale of 0 is no number.
        """
        t = torch.addcmul(self.offset, self.scale, points.t().unsqueeze(1))
        return t if self.divisor is None else t.div_(self.divisor)


@lru_cache(maxsize=256)
def axes_of(
    affine: tuple[LayerAffine, ...], sizes: Sizes, dtype: torch.dtype, border: bool
) -> Axes:
    def per_layer(x: Sequence[float], y: Sequence[float], dtype: torch.dtype = dtype) -> Tensor:
        return torch.tensor((x, y), dtype=dtype, device="cpu").unsqueeze(-1)

    xa, xb, xc = zip(*[quotient(*layer[:2]) for layer in affine], strict=True)
    ya, yb, yc = zip(*[quotient(*layer[2:]) for layer in affine], strict=True)
    last = per_layer([w - 1 for _, w in sizes], [h - 1 for h, _ in sizes])
    # Far-off points must not overflow the integers; with zero padding all weights vanish from
    # two cells below the map and from one above it on, two where grids are rounded.
    corner = torch.tensor(((0, 1, 0, 1), (0, 0, 1, 1)), dtype=dtype, device="cpu")[:, None, None]
    return Axes(
        scale=per_layer(xa, ya),
        offset=per_layer(xb, yb),
        divisor=None if {*xc, *yc} == {1.0} else per_layer(xc, yc),
        rate=per_layer([layer[0] for layer in affine], [layer[2] for layer in affine]),
        last=last,
        last_low=(last - 1).clamp_min(0),
        lowest=torch.zeros_like(last) if border else torch.full_like(last, -2),
        highest=last if border else last + 2,
        corner=corner,
        at_zero=1 - corner,
        rise=2 * corner - 1,
        border=border,
    )


@lru_cache(maxsize=256)
def _steps(sizes: Sizes, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """W_i, (M, 1), and how far the four corners lie behind the first, (M, 1, 4)."""
    steps = []
    for height, width in sizes:
        right, down = min(1, width - 1), width * min(1, height - 1)
        steps.append([[0, right, down, down + right]])
    widths = torch.tensor([[width] for _, width in sizes], dtype=dtype, device="cpu")
    return widths, torch.tensor(steps, dtype=dtype, device="cpu")


@lru_cache(maxsize=256)
def _first_rows(sizes: Sizes, batch: int, stack: bool) -> Tensor:
    """Row of the first cell of each image, (M, B); int64 only where int32 cannot number them."""
    cells = [batch * height * width for height, width in sizes]
    starts = [[sum(cells[:i]) if stack else 0] for i in range(len(cells))]
    dtype = torch.int32 if sum(cells) < 2**31 else torch.int64
    images = torch.arange(batch, dtype=dtype, device="cpu")
    per_image = torch.tensor([[h * w] for h, w in sizes], dtype=dtype, device="cpu")
    return torch.tensor(starts, dtype=dtype, device="cpu") + images * per_image


def _first_row_of_image(s: Sampling, stack: bool) -> Tensor:
    """Row of the first cell of each point's image, (M, P), or (M, 1) if there is one image."""
    first = _first_rows(s.sizes, s.batch, stack)
    if s.batch == 1:
        return first
    if s.batch_index is not None:
        return first[:, s.batch_index.long()]
    return first.unsqueeze(-1).expand(-1, -1, s.total // s.batch).flatten(1)
