"""Where the points fall: corner cells and weights of all layers, in one batch of operators.

Per layer and axis t = scale * x + offset, low = floor(t), f = t - low, and

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
from ..call.placing import place
from .products import compute_dtype

__all__ = ["Corners", "locate"]

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
    grid = _grid(affine, sizes, dtype, border)
    t = torch.addcmul(grid.offset, grid.scale, points.t().unsqueeze(1).to(dtype))  # (2, M, P)
    rows = _first_row_of_image(s, stack)
    if exact or not s.geometry.bilinear:
        nearest = t.clamp_(grid.lowest, grid.highest).round_()
        return _one_corner(nearest, grid, rows, sizes, border)

    low, upper = place(t, grid.lowest, grid.highest, grid.last_low if border else None)
    # 1 - f or f for each corner: (2, M, P, 4)
    factors = torch.addcmul(grid.at_zero, upper.unsqueeze(-1), grid.rise)
    slopes_xy = None
    if slopes:  # border: a clamped coordinate does not move; at integer t the right-hand slope
        moving = (t > 0) & (t < grid.last) if border else torch.ones_like(t, dtype=torch.bool)
        slopes_xy = (moving * grid.scale).unsqueeze(-1) * grid.rise
    if border:
        width, steps = _steps(sizes, rows.dtype)
        x, y = low.to(rows.dtype).unbind(0)
        index = torch.addcmul(rows, y, width).unsqueeze(-1) + steps + x.unsqueeze(-1)
    else:
        cells = low.unsqueeze(-1) + grid.corner
        inside_map = (cells >= 0) & (cells <= grid.last.unsqueeze(-1))
        factors.mul_(inside_map)
        slopes_xy = None if slopes_xy is None else slopes_xy.mul_(inside_map)
        index = _clamped_index(cells, grid, rows.unsqueeze(-1), sizes)
    x, y = factors.unbind(0)
    slope = None if slopes_xy is None else torch.stack((y * slopes_xy[0], slopes_xy[1] * x))
    return Corners(index, y * x, slope)


def _one_corner(cell: Tensor, grid: _Grid, rows: Tensor, sizes: Sizes, border: bool) -> Corners:
    """Nearest cells (2, M, P): K = 1; outside a zero-padded map the weight is 0."""
    valid = None if border else ((cell >= 0) & (cell <= grid.last)).all(0).unsqueeze(-1)
    index = _clamped_index(cell.unsqueeze(-1), grid, rows.unsqueeze(-1), sizes)
    return Corners(index, None if valid is None else valid.to(cell.dtype))


def _clamped_index(cells: Tensor, grid: _Grid, rows: Tensor, sizes: Sizes) -> Tensor:
    """rows + y * W + x for cells (2, M, P, K) brought onto the map."""
    cells = torch.minimum(cells.clamp_min_(0), grid.last.unsqueeze(-1))
    x, y = cells.to(rows.dtype).unbind(0)
    width, _ = _steps(sizes, rows.dtype)
    return torch.addcmul(rows, y, width.unsqueeze(-1)) + x


@dataclass(frozen=True)
class _Grid:
    """Constants of `locate`. They are kept: making one small tensor takes 5 us."""

    scale: Tensor  # (2, M, 1), as are the next five
    offset: Tensor
    last: Tensor
    last_low: Tensor
    lowest: Tensor
    highest: Tensor
    corner: Tensor  # (2, 1, 1, 4): 0 or 1, the side of each corner
    at_zero: Tensor  # (2, 1, 1, 4): the weight of a corner along an axis is at_zero + f * rise
    rise: Tensor


@lru_cache(maxsize=256)
def _grid(affine: tuple[LayerAffine, ...], sizes: Sizes, dtype: torch.dtype, border: bool) -> _Grid:
    def per_layer(x: list[float], y: list[float]) -> Tensor:
        return torch.tensor((x, y), dtype=dtype, device="cpu").unsqueeze(-1)

    last = per_layer([w - 1 for _, w in sizes], [h - 1 for h, _ in sizes])
    # Far-off points must not overflow the integers; with zero padding all weights vanish from
    # two cells below the map and from one above it on.
    corner = torch.tensor(((0, 1, 0, 1), (0, 0, 1, 1)), dtype=dtype, device="cpu")[:, None, None]
    return _Grid(
        scale=per_layer([layer[0] for layer in affine], [layer[2] for layer in affine]),
        offset=per_layer([layer[1] for layer in affine], [layer[3] for layer in affine]),
        last=last,
        last_low=(last - 1).clamp_min(0),
        lowest=torch.zeros_like(last) if border else torch.full_like(last, -2),
        highest=last if border else last + 1,
        corner=corner,
        at_zero=1 - corner,
        rise=2 * corner - 1,
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
