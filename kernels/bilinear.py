"""The arithmetic of interpolation, once, as small jitted functions that every kernel calls.

On one axis of a layer with cells 0 ... n - 1 a point lies at t = (a x + b) / c. Its value is

    v(t) = w0 * v[i0] + w1 * v[i1],   i0 = floor(t), i1 = i0 + 1, w1 = t - i0, w0 = 1 - w1

(bilinear; nearest has i0 = round(t), w0 = 1). Padding "border" clamps t to [0, n - 1]; padding
"zeros" gives a cell outside the map the weight 0. A map's two axes multiply.

The same weight, seen from cell k, is the hat function w(t, k) = max(0, 1 - |t - k|): the entry of
the interpolation matrix S.

Everything here is float32, whatever the features are: half-precision coordinates are wrong by
whole cells on maps of a few hundred. t is a quotient because the reciprocal of 14, say, is rounded:
pixels on the centres of cells would miss them (`quotient` in call/geometry.py).

A point sees the cells that it gives a weight other than 0. What the others hold may be infinite or
NaN, and 0 times that is NaN: so it is not read, or not multiplied (`weighed`).

`tl.minimum` and `tl.maximum` turn NaN into the other operand on a GPU, and keep it in the
interpreter. Here they see no NaN: whoever loads points replaces what is not finite by 0.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

__all__ = [
    "Located",
    "axis_corners",
    "axis_slope",
    "corner_tile",
    "gather_corners",
    "hat",
    "layer_corners",
    "layer_position",
    "load_points",
    "locate",
    "number",
    "round_half_even",
    "size_of",
    "stride_across",
    "strides_of",
    "weighed",
]

#: Finite in float32, and outside of every map.
FAR = tl.constexpr(3e38)


class Located(NamedTuple):
    """Points (BLOCK_P,) of a program: coordinates, image (int64), and a mark of 0 or NaN."""

    x: Any
    y: Any
    image: Any
    mark: Any


@triton.jit
def number(code):
    """n, for 2 n + 3 (`coded` in launch.py)."""
    return (code - 3) >> 1


@triton.jit
def size_of(layer):
    """(H_i, W_i)."""
    return number(layer.size[0]), number(layer.size[1])


@triton.jit
def strides_of(layer):
    """Strides of image, row and column, in VECTOR elements."""
    image, row, column = layer.strides
    return number(image), number(row), number(column)


@triton.jit
def stride_across(layer):
    """The stride of channels, for 2 n - 1, which may be the largest int32 there is."""
    return ((layer.across - 1) >> 1) + 1  # even before it is halved: the interpreter has no sign


@triton.jit
def load_points(points, p):
    """x, y (BLOCK_P,) of the points p, and whether both are finite."""
    x = _as_float32(tl.load(points.xy + 2 * p))
    y = _as_float32(tl.load(points.xy + 2 * p + 1))
    return x, y, (tl.abs(x) < float("inf")) & (tl.abs(y) < float("inf"))


@triton.jit
def _as_float32(x):
    """What is finite stays finite, float64 beyond the range of float32, too."""
    if x.dtype == tl.float64:
        within = tl.minimum(tl.maximum(x, -FAR), FAR)
        x = tl.where(tl.abs(x) < float("inf"), within, x)
    return x.to(tl.float32)


@triton.jit
def locate(points, p, MODE: tl.constexpr):
    """The points p (BLOCK_P,) as `Located`.

    Rows past the end repeat the last point, so that loads need no mask. The mark is NaN for a
    point that is not finite or whose image does not exist: added to a weight or a result, it shows
    the fault without a host synchronisation, while all indices stay inside the maps. Such points
    lie where their order (order.py) has them.
    """
    p = tl.minimum(p, points.total - 1)
    x, y, finite = load_points(points, p.to(tl.int64))
    if MODE.ragged:
        image = tl.load(points.image + p.to(tl.int64)).to(tl.int64)
    else:
        image = p // points.per_image  # in 32 bits, where a division of 64 is a function call
    valid = finite & (image >= 0) & (image < points.batch)
    image = tl.minimum(tl.maximum(image, 0), points.batch - 1)
    return Located(
        tl.where(finite, x, 0.0),
        tl.where(finite, y, 0.0),
        image.to(tl.int64),
        tl.where(valid, 0.0, float("nan")),
    )


@triton.jit
def _over(value, c, MODE: tl.constexpr):
    """value / c, rounded once; c is 1 where the mode is not divided."""
    return tl.div_rn(value, c) if MODE.divided else value


@triton.jit
def _axis_position(x, axis, cells, MODE: tl.constexpr):
    """t (BLOCK_P,), clamped so that it is finite and fits an int32.

    Beyond one cell outside the map every weight is 0 under zero padding, so clamping to [-2, n + 1]
    there changes nothing.
    """
    t = _over(x * axis[0] + axis[1], axis[2], MODE)
    if MODE.border:
        return tl.minimum(tl.maximum(t, 0.0), (cells - 1) * 1.0)
    else:
        return tl.minimum(tl.maximum(t, -2.0), (cells + 1) * 1.0)


@triton.jit
def layer_position(x, y, layer, MODE: tl.constexpr):
    """(t_x, t_y), each (BLOCK_P,): where points lie on a layer's cells."""
    size = size_of(layer)
    return (
        _axis_position(x, layer.axes[0], size[1], MODE),
        _axis_position(y, layer.axes[1], size[0], MODE),
    )


@triton.jit
def round_half_even(t):
    """Nearest integer as a float, ties to even: what `grid_sample` and `torch.round` do."""
    up = tl.floor(t + 0.5)
    odd = up - 2.0 * tl.floor(up * 0.5)
    return tl.where((up - t == 0.5) & (odd == 1.0), up - 1.0, up)


@triton.jit
def axis_corners(t, cells, MODE: tl.constexpr):
    """Cells i0, i1 (clamped into the map) and weights w0, w1 of positions t on one axis."""
    if MODE.bilinear:
        low = tl.floor(t)
        w1 = t - low
    else:
        low = round_half_even(t)
        w1 = tl.zeros_like(t)
    w0 = 1.0 - w1
    i0 = low.to(tl.int32)
    i1 = i0 + 1
    if not MODE.border:
        w0 = tl.where((i0 >= 0) & (i0 < cells), w0, 0.0)
        w1 = tl.where((i1 >= 0) & (i1 < cells), w1, 0.0)
    i0 = tl.minimum(tl.maximum(i0, 0), cells - 1)
    i1 = tl.minimum(tl.maximum(i1, 0), cells - 1)
    return i0, i1, w0, w1


@triton.jit
def axis_slope(x, axis, cells, MODE: tl.constexpr):
    """dw0/dx and dw1/dx (BLOCK_P,): -a/c and +a/c, 0 where `grid_sample` has no gradient.

    That is where border padding clamps (its border included), and for cells outside the map.
    """
    t = _over(x * axis[0] + axis[1], axis[2], MODE)
    scale = _over(axis[0] + tl.zeros_like(t), axis[2], MODE)
    if MODE.border:
        inside = (t > 0.0) & (t < (cells - 1) * 1.0)
        slope = tl.where(inside, scale, 0.0)
        return -slope, slope
    else:
        low = tl.floor(tl.minimum(tl.maximum(t, -2.0), (cells + 1) * 1.0)).to(tl.int32)
        slope0 = tl.where((low >= 0) & (low < cells), 0.0 - scale, 0.0)
        slope1 = tl.where((low >= -1) & (low < cells - 1), 0.0 + scale, 0.0)
        return slope0, slope1


@triton.jit
def layer_corners(at, layer, VECTOR: tl.constexpr, MODE: tl.constexpr):
    """Element offsets (int64) of the four corner cells, and their weights, all (BLOCK_P,).

    The first weight carries the mark: NaN times whatever is read makes the whole row NaN.

    Offsets are widened before they are multiplied: maps may exceed 2^31 elements. Strides count in
    VECTOR elements, and the product with it is how the compiler sees that loads may be 16 bytes
    wide: of the strides themselves it knows nothing.
    """
    size, strides = size_of(layer), strides_of(layer)
    tx, ty = layer_position(at.x, at.y, layer, MODE)
    x0, x1, wx0, wx1 = axis_corners(tx, size[1], MODE)
    y0, y1, wy0, wy1 = axis_corners(ty, size[0], MODE)
    image = at.image * strides[0]
    top = image + y0.to(tl.int64) * strides[1]
    bottom = image + y1.to(tl.int64) * strides[1]
    left = x0.to(tl.int64) * strides[2]
    right = x1.to(tl.int64) * strides[2]
    return (
        (
            (top + left) * VECTOR,
            (top + right) * VECTOR,
            (bottom + left) * VECTOR,
            (bottom + right) * VECTOR,
        ),
        (wy0 * wx0 + at.mark, wy0 * wx1, wy1 * wx0, wy1 * wx1),
    )


@triton.jit
def gather_corners(layer, corners, c, c_mask, MASKED: tl.constexpr, MODE: tl.constexpr):
    """sum_j w_j * map[offset_j + c * stride_c], (BLOCK_P, BLOCK_C) in float32.

    Corners that weigh 0 are not read: at whole pixels of a map as fine as the image, those are
    three of four. Without MASKED all channels c exist.
    """
    offsets, weights = corners
    channel = c.to(tl.int64)[None, :] * stride_across(layer)
    acc = tl.zeros((offsets[0].shape[0], c.shape[0]), tl.float32)
    for j in tl.static_range(4 if MODE.bilinear else 1):
        address, seen = layer.map + offsets[j][:, None] + channel, weights[j] != 0.0
        acc += corner_tile(address, seen, c_mask, MASKED) * weights[j][:, None]
    return acc


@triton.jit
def corner_tile(address, seen, c_mask, MASKED: tl.constexpr):
    """Values at address (BLOCK_P, BLOCK_C), in float32; 0 for points that do not see their cell.

    With MASKED also for channels that do not exist.
    """
    mask = seen[:, None]
    if MASKED:
        mask &= c_mask[None, :]
    return tl.load(address, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def weighed(weight, value):
    """weight * value, and 0 where the weight is 0, whatever the value."""
    return tl.where(weight != 0.0, weight * value, 0.0)


@triton.jit
def hat(t, k, MODE: tl.constexpr):
    """Weight of cell k for position t: an entry of one axis' interpolation matrix."""
    if MODE.bilinear:
        return tl.maximum(1.0 - tl.abs(t - k), 0.0)
    else:
        return tl.where(round_half_even(t) == k, 1.0, 0.0)
