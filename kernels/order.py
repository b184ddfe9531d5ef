"""One order of the points for every layer: by image, then by y.

t_y = scale_i y + offset_i grows with y on every layer, clamped or not. So in this one order the
points that touch rows r ... s of a map are neighbours, whichever layer it is: a kernel that owns
rows of a map walks one run of points, and needs neither atomics nor lists of corners.

y is sorted by bins, one to a row of the finest map; within a bin points keep their order. The
place of a point is

    place(p) = points of earlier images + points of lower bins + earlier points of the same bin,

counted, not compared. A run begins and ends with a bin, so it may hold a few points too many, which
weigh nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..call.sampling import Sampling
from .bands import MOST_COUNTED
from .bilinear import FAR, load_points, number
from .direct import Launch
from .launch import Points, accounted, coded, options, points_of, power_of_2
from .ruler import Ruler, ruler_of
from .select import Tile

__all__ = ["Order", "order_like", "order_points"]

# Points of a program. Each counts all points of its image, so larger images are sorted.
TILE = Tile(128, 1, num_warps=4)


class Order(NamedTuple):
    """P points by (image, bin).

    Args:
        place: ``(P,)`` int64, which point stands at a place.
        xy: ``(P, 2)`` float32, coordinates in this order.
        image: ``(P,)`` the images in this order; None for equal shares, which stay together.
        starts: ``(B, ruler.spaces)`` int64, the place at which each bin of each image begins.
        ruler: from y to bins.
    """

    place: Tensor
    xy: Tensor
    image: Tensor | None
    starts: Tensor
    ruler: Ruler

    def of(self, s: Sampling) -> Sampling:
        """The same points in this order."""
        return s.at(self.xy, self.image)


@accounted
def _account(a: dict[str, Any]) -> tuple[float, float, torch.dtype]:
    """Every block of an image's points counts them all."""
    points = a["points"]
    copies = 1 if "keys" in a else -(-points.per_image // TILE.rows)
    return 0.0, float(copies * points.xy.nbytes + 16 * points.total), torch.float32


@triton.jit
def _bin_of(points, p, ruler):
    """x, y (BLOCK,) of the points p, and their bins."""
    x, y, finite = load_points(points, p)
    t = tl.where(finite, y, 0.0) * ruler.scale + ruler.offset
    return x, y, tl.minimum(tl.maximum(t, 0.0), number(ruler.bins) - 1.0).to(tl.int32)


@triton.jit(launch_metadata=_account)
def _order_kernel(
    place,  # (P,)
    xy,  # (P, 2)
    starts,  # (B, SPACES)
    points,
    ruler,
    blocks,  # of an image's points
    SPACES: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """place, xy and starts for BLOCK_P points of an image, by two histograms of all its points."""
    image = tl.program_id(0) // blocks
    block = tl.program_id(0) % blocks
    total = points.per_image
    before = image.to(tl.int64) * total
    n = tl.arange(0, BLOCK_N)
    _x, _y, bin = _bin_of(points, before + tl.minimum(n, total - 1), ruler)
    every = tl.histogram(tl.where(n < total, bin, SPACES - 1), SPACES)
    earlier = tl.histogram(tl.where(n < block * BLOCK_P, bin, SPACES - 1), SPACES)
    lower = tl.cumsum(every, 0) - every
    m = block * BLOCK_P + tl.arange(0, BLOCK_P)
    x, y, mine = _bin_of(points, before + tl.minimum(m, total - 1), ruler)
    same = (mine[:, None] == mine[None, :]) & (m[None, :] < m[:, None])
    to = tl.gather(lower + earlier, mine, 0) + tl.sum(same.to(tl.int32), axis=1)
    to = before + to
    inside = m < total
    tl.store(place + to, before + m, mask=inside)
    tl.store(xy + 2 * to, x, mask=inside)
    tl.store(xy + 2 * to + 1, y, mask=inside)
    if block == 0:
        spaces = tl.arange(0, SPACES)
        tl.store(starts + image * SPACES + spaces, before + lower)


@triton.jit(launch_metadata=_account)
def _key_kernel(
    keys,  # (P,) int32
    points,
    ruler,
    SPACES: tl.constexpr,
    BLOCK_P: tl.constexpr,
    RAGGED: tl.constexpr,
):
    """keys[p] = image(p) SPACES + bin(p): what a sort orders the points by."""
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    at = tl.minimum(p, points.total - 1).to(tl.int64)
    _x, _y, bin = _bin_of(points, at, ruler)
    if RAGGED:
        image = tl.load(points.image + at).to(tl.int64)
        image = tl.minimum(tl.maximum(image, 0), points.batch - 1)
    else:
        image = at // points.per_image
    tl.store(keys + p, image.to(tl.int32) * SPACES + bin, mask=p < points.total)


def order_points(s: Sampling) -> Order:
    """The order of the points of `s`, and where each bin of each image begins.

    One launch for equal shares of at most MOST_COUNTED points; else a key for each, and a sort.
    """
    return s.once("order", lambda: order_like(s))(points_of(s))


def order_like(s: Sampling) -> Callable[[Points], Order]:
    """The order of points that are laid out as those of `s`."""
    ruler, per_image = ruler_of(s.sizes, s.geometry.affine), s.total // s.batch
    counted = s.batch_index is None and per_image <= MOST_COUNTED
    constants = {"SPACES": ruler.spaces, "BLOCK_P": TILE.rows, **options(TILE)}
    constants["ruler"] = ruler._replace(bins=coded(ruler.bins))
    return (_counted if counted else _sorted)(s, ruler, constants)


def _counted(s: Sampling, ruler: Ruler, constants: dict[str, Any]) -> Callable[[Points], Order]:
    total, batch, per_image = s.total, s.batch, s.total // s.batch
    spaces = ruler.spaces
    blocks = -(-per_image // TILE.rows)
    launch = Launch(
        _order_kernel,
        (batch * blocks,),
        "place xy starts points",
        blocks=blocks,
        BLOCK_N=max(TILE.rows, power_of_2(per_image)),
        **constants,
    )

    def run(points: Points) -> Order:
        place = points.xy.new_empty(total, dtype=torch.int64)
        xy = place.new_empty(total, 2, dtype=torch.float32)
        starts = place.new_empty(batch, spaces)
        launch(place, xy, starts, points)
        return Order(place, xy, None, starts, ruler)

    return run


def _sorted(s: Sampling, ruler: Ruler, constants: dict[str, Any]) -> Callable[[Points], Order]:
    total, batch, device = s.total, s.batch, s.points.device
    is_ragged = s.batch_index is not None
    constants["RAGGED"] = is_ragged
    launch = Launch(_key_kernel, (-(-total // TILE.rows),), "keys points", **constants)

    def run(points: Points) -> Order:
        keys = torch.empty(total, dtype=torch.int32, device=device)
        launch(keys, points)
        keys, place = torch.sort(keys, stable=True)
        bins = torch.arange(batch * ruler.spaces, dtype=torch.int32, device=device)
        starts = torch.searchsorted(keys, bins).view(batch, ruler.spaces)
        xy = _as_float32(points.xy).index_select(0, place)
        image = points.image.index_select(0, place) if is_ragged else None
        return Order(place, xy, image, starts, ruler)

    return run


def _as_float32(xy: Tensor) -> Tensor:
    """As `load_points` has it: what is finite stays finite."""
    if xy.dtype == torch.float64:
        xy = torch.where(xy.isfinite(), xy.clamp(-FAR.value, FAR.value), xy)
    return xy.to(torch.float32)
