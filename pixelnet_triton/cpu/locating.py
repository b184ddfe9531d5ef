"""Where the points fall: corner cells and weights of all layers, in one batch of operators.

Per layer and axis t = scale * x + offset = (a * x + b) / c with a, b and c exact, so that a point
at a cell's centre gets there, low = floor(t), f = t - low, and

    h[p] = sum over corners k of weight[p, k] * cell[index[p, k]],
    weight[p] = (1 - f_y, f_y) x (1 - f_x, f_x)          row p of S: four non-zeros

Layers go through every operation together as (2 axes, M layers, P points), and these are NumPy's:
small problems are bound by what an operation takes to begin, 1 us against the 2-5 us of an
operator of PyTorch, and large ones take no longer either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..call import LayerAffine, Sampling
from ..call.geometry import quotient
from ..call.placing import place_array
from .corners import Array, CornerArrays, Corners
from .products import compute_dtype

__all__ = ["locate"]

Sizes = tuple[tuple[int, int], ...]

# Points placed together: what lies between the steps stays in the cache.
BLOCK = 4096


def locate(
    s: Sampling,
    *,
    exact: bool = False,
    slopes: bool = False,
    stack: bool = False,
    in_image: bool = False,
    halves: bool = False,
) -> Corners:
    """Corners of all layers of `s`; rows are numbered (image, y, x).

    `exact` promises :meth:`.Geometry.is_exact` of each. With `stack` the rows of all layers are
    numbered in one sequence; with `in_image` those of each image, by int64, and in memory corner
    goes by corner: as `gather` takes them. A corner without weight is a cell that another corner
    has weight on, if any has; but not with `slopes`, which see the next cell at a centre too. With
    `halves` that weight is divided there (placing.py): for reading, not for sums of gradients.
    """
    axes = _axes_of(s.geometry.affine, s.sizes, s.geometry.border)
    dtype = compute_dtype(s.features[0].dtype)
    if in_image:
        first: Array = np.zeros((len(s.features), 1), np.int64)
    else:
        first = _first_row_of_image(s, stack)
    nearest = exact or not s.geometry.bilinear
    shape = (len(s.features), s.total, 1 if nearest else 4)
    # PyTorch's memory, so that it is counted with all other.
    index = _empty(shape, torch.int32 if first.itemsize == 4 else torch.int64, in_image)
    weight = slope = None
    if not nearest or not s.geometry.border:
        weight = _empty(shape, dtype, in_image)
    if slopes and not nearest:
        slope = torch.empty((2, *shape), dtype=dtype, device="cpu")
    corners = Corners(index, weight, slope)
    into, points = corners.arrays(), _array(s.points)
    for start in range(0, s.total, BLOCK):
        out, block, rows = into, points, first
        if s.total > BLOCK:  # slicing takes its time, too
            part = slice(start, start + BLOCK)
            out, block = into.of(part), points[part]
            rows = first[:, part] if first.shape[1] > 1 else first
        t = axes.positions(block)
        if nearest:
            _nearest(out, t, rows, axes)
        else:
            _four(out, t, rows, axes, halves)
    return corners


def _empty(shape: tuple[int, int, int], dtype: torch.dtype, by_corner: bool) -> Tensor:
    """(M, P, K), uninitialised; in memory (M, K, P) if `by_corner`."""
    layers, points, corners = shape
    if by_corner:
        return torch.empty((layers, corners, points), dtype=dtype, device="cpu").mT
    return torch.empty(shape, dtype=dtype, device="cpu")


def _four(out: CornerArrays, t: Array, first: Array, axes: _Axes, halves: bool) -> None:
    """The four cells around t, (2, M, P), and their weights."""
    index, products, slopes = out
    assert products is not None
    moving = None
    if slopes is not None:
        # border: a clamped coordinate does not move; at integer t the right-hand slope
        moving = (t > 0) & (t < axes.last) if axes.border else np.ones_like(t, bool)
    # Of the lower and the upper side along either axis, (2, M, 2, P).
    weights = np.empty((*t.shape[:2], 2, t.shape[2]), products.dtype)
    upper = weights[:, :, 1]
    cells = place_array(t, axes.lowest, axes.highest, upper, moving, halves)
    np.subtract(1, upper, out=weights[:, :, 0])
    rates = None
    if moving is not None:
        rates = np.empty_like(weights)
        rates[:, :, 1] = moving * axes.rate
        np.negative(rates[:, :, 1], out=rates[:, :, 0])
    if not axes.border:
        last = axes.last[:, :, None]
        on_map = (cells >= 0) & (cells <= last)
        weights *= on_map
        if rates is not None:
            rates *= on_map
        cells = np.minimum(np.maximum(cells, 0), last)
    column, line = cells[0], cells[1] * axes.width[:, None] + first[:, None]
    np.add(line[:, :, None], column[:, None], out=_by_sides(index), casting="unsafe")
    _multiply(weights, weights, products)
    if slopes is not None and rates is not None:
        _multiply(weights, rates, slopes[0])
        _multiply(rates, weights, slopes[1])


def _multiply(of_y: Array, of_x: Array, out: Array) -> None:
    """out (M, P, 4) = the products of y and x of either side (2, M, 2, P)."""
    np.multiply(of_y[1, :, :, None], of_x[0, :, None], out=_by_sides(out))


def _by_sides(of_corners: Array) -> Array:
    """A view of (M, P, 4) by the sides of y and of x, (M, 2, 2, P)."""
    layers, points, _ = of_corners.shape
    return of_corners.transpose(0, 2, 1).reshape(layers, 2, 2, points)


def _nearest(out: CornerArrays, t: Array, first: Array, axes: _Axes) -> None:
    """The cell nearest to t, (2, M, P); outside a zero-padded map its weight is 0."""
    cells = np.rint(np.minimum(np.maximum(t, axes.lowest), axes.highest))
    if out.weight is not None:
        out.weight[..., 0] = ((cells >= 0) & (cells <= axes.last)).all(0)
        cells = np.minimum(np.maximum(cells, 0), axes.last)
    column, line = axes.numbers(cells, first)
    np.add(line, column, out=out.cells[..., 0])


def _array(points: Tensor) -> Array:
    """Points (P, 2) as an array; half precision, which NumPy has in part, as float32."""
    points = points.detach()
    if points.is_floating_point() and points.itemsize < 4:
        points = points.float()
    return points.numpy()


@dataclass(frozen=True)
class _Axes:
    """Constants of the axes of M layers, all (2, M, 1), in float64; they are kept."""

    scale: Array  # a, b and c of :func:`.quotient`
    offset: Array
    divisor: Array | None  # None if all are 1
    rate: Array  # a / c, cells per unit of coordinates
    last: Array
    lowest: Array
    highest: Array
    width: Array  # W_i, (M, 1)
    border: bool

    def positions(self, points: Array) -> Array:
        """t (2, M, P) of points (P, 2)."""
        with np.errstate(over="ignore"):  # infinity is the border, or nothing
            t = self.scale * points.T[:, None]
        t += self.offset
        if self.divisor is not None:
            t /= self.divisor
        return t

    def numbers(self, cells: Array, rows: Array) -> tuple[Array, Array]:
        """x and rows + y * W of cells (2, M, P), as integers (M, P)."""
        x, y = cells
        return x.astype(rows.dtype), (y * self.width).astype(rows.dtype) + rows


@lru_cache(maxsize=256)
def _axes_of(affine: tuple[LayerAffine, ...], sizes: Sizes, border: bool) -> _Axes:
    def per_layer(x: Sequence[float], y: Sequence[float]) -> Array:
        return np.array((x, y), np.float64)[..., None]

    xa, xb, xc = zip(*[quotient(*layer[:2]) for layer in affine], strict=True)
    ya, yb, yc = zip(*[quotient(*layer[2:]) for layer in affine], strict=True)
    last = per_layer([w - 1 for _, w in sizes], [h - 1 for h, _ in sizes])
    # Far-off points must not overflow the integers; with zero padding all weights vanish from
    # two cells below the map and from one above it on, two where grids are rounded.
    return _Axes(
        scale=per_layer(xa, ya),
        offset=per_layer(xb, yb),
        divisor=None if {*xc, *yc} == {1.0} else per_layer(xc, yc),
        rate=per_layer([layer[0] for layer in affine], [layer[2] for layer in affine]),
        last=last,
        lowest=np.zeros_like(last) if border else np.full_like(last, -2),
        highest=last if border else last + 2,
        width=np.array([[float(width)] for _, width in sizes]),
        border=border,
    )


@lru_cache(maxsize=256)
def _first_rows(sizes: Sizes, batch: int, stack: bool) -> Array:
    """Row of the first cell of each image, (M, B); int64 only where int32 cannot number them."""
    cells = [batch * height * width for height, width in sizes]
    starts = [[sum(cells[:i]) if stack else 0] for i in range(len(cells))]
    dtype = np.int32 if sum(cells) < 2**31 else np.int64
    per_image: Array = np.array([[h * w] for h, w in sizes], dtype)
    images: Array = np.arange(batch, dtype=dtype)
    return np.array(starts, dtype) + images * per_image


def _first_row_of_image(s: Sampling, stack: bool) -> Array:
    """Row of the first cell of each point's image, (M, P), or (M, 1) if there is one image."""
    first = _first_rows(s.sizes, s.batch, stack)
    if s.batch == 1:
        return first
    if s.batch_index is not None:
        return first[:, s.batch_index.numpy()]
    return first.repeat(s.total // s.batch, axis=1)
