"""How samplers draw: random keys, the largest of them, and turns taken by groups.

Each function ranks the pixels of all images at once and is made of operators whose shapes follow
from their arguments' shapes, so that nothing waits for a GPU. Drawing without replacement is a
`topk` of random keys: of 5 x 224 x 224 pixels it takes the 2,000 largest of each image in 1 ms on
a CPU with two cores, where sorting all of them takes 22.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "cell_winners",
    "grid_cells",
    "nth_cyclic",
    "random_keys",
    "rank_by_turns",
    "uniform",
    "z_order",
]


def uniform(
    shape: torch.Size | tuple[int, ...], generator: torch.Generator | None, device: torch.device
) -> Tensor:
    """float32 in [0, 1), whatever torch's default dtype: bfloat16 has 256 values there."""
    return torch.rand(shape, generator=generator, device=device, dtype=torch.float32)


def random_keys(valid: Tensor, generator: torch.Generator | None) -> Tensor:
    """``(B, P)`` float32: uniform in [0, 1) at valid pixels, below 0 at the others.

    Two pixels of an image may share one of the 2^24 values. `topk` still takes each pixel once; a
    tie is decided by place instead of chance only where it falls on the last pixel taken.
    """
    keys = uniform(valid.shape, generator, valid.device)
    return torch.where(valid, keys, keys - 1)


def nth_cyclic(rank: Tensor, count: Tensor, n: int) -> Tensor:
    """The first n pixels of a ranking, begun again where it runs out of valid pixels.

    Args:
        rank: ``(B, k)`` distinct pixels, best first, valid ones before the others.
        count: ``(B,)`` how many pixels of each image are valid.
        n: pixels to return; k = n unless the images have fewer.

    Returns:
        ``(B, n)``; of count < n valid pixels, each n // count times or once more.
    """
    k = rank.shape[1]
    period = torch.where(count > 0, count.clamp(max=k), k)
    slot = torch.arange(n, device=rank.device) % period[:, None]
    return rank.gather(1, slot)


def rank_by_turns(
    group: Tensor,
    valid: Tensor,
    weights: Tensor,
    start: Tensor,
    n: int,
    *,
    smallest_weight: float,
    generator: torch.Generator | None,
) -> Tensor:
    """Rank the pixels as groups take turns, each group's own pixels in random order.

    The r-th pixel of group g (r = 0, 1, ...) has its turn at time

        (r + start_g) / weight_g,

    so by time T each group has given weight_g T pixels, or all it has: a group that runs out
    leaves its turns to the others.

    Args:
        group: ``(B, P)`` int64 in [0, G) at valid pixels, anything elsewhere.
        valid: ``(B, P)`` bool.
        weights: ``(G,)`` float32, not negative, of sum 1; groups of weight 0 come last.
        start: ``(B, G)`` in [0, 1].
        n: how many pixels will be taken.
        smallest_weight: the smallest positive weight, known on the host.
        generator: of the random order.

    Returns:
        ``(B, min(n, P))`` distinct pixels, the first turn first, valid ones before the others.
    """
    batch, pixels = group.shape
    groups = len(weights)
    weights = weights.clamp(min=1e-9)  # finite times: weight 0 still precedes invalid pixels
    group = torch.where(valid, group, 0)
    size = torch.zeros(batch, groups, dtype=torch.int32, device=group.device)
    size.scatter_add_(1, group, valid.to(torch.int32))

    # Ranking all pixels within their groups would take a sort of them all. u * size is about a
    # pixel's rank in its group, hence `early` about its time; and within a group it rises with
    # u, so that the earliest candidates are the first of each group, whatever the error.
    u = uniform(group.shape, generator, group.device)
    early = torch.where(valid, u * (size / weights).gather(1, group), torch.inf)
    early, candidate = early.topk(min(pixels, _candidates(n, smallest_weight)), largest=False)
    group = torch.where(early.isinf(), groups, group.gather(1, candidate))

    # The stable sort keeps the candidates of a group in the order of u: their ranks.
    group, order = group.sort(dim=1, stable=True)
    members = torch.zeros(batch, groups + 1, dtype=torch.int64, device=group.device)
    members.scatter_add_(1, group, torch.ones_like(group))
    begin = members.cumsum(1) - members
    r = torch.arange(group.shape[1], device=group.device) - begin.gather(1, group)
    known = group.clamp(max=groups - 1)
    time = (r + start.gather(1, known)) / weights[known]
    time = torch.where(group < groups, time, torch.inf)
    pick = time.topk(min(n, pixels), largest=False).indices
    return candidate.gather(1, order.gather(1, pick))


def _candidates(n: int, smallest_weight: float) -> int:
    """How many candidates hold the first ``w n`` pixels of a group of weight w, almost surely.

    Among n + s candidates a group has about Poisson(w (n + s)) of its own. With s as below that
    is more than six standard deviations above w n, and at least 10 where w n is next to nothing.
    """
    return n + math.ceil(6 * math.sqrt(n / smallest_weight) + 10 / smallest_weight)


def grid_cells(
    height: int,
    width: int,
    rows: int,
    columns: int,
    batch: int,
    *,
    device: torch.device,
    generator: torch.Generator | None,
) -> Tensor:
    """``(B, H * W)`` int64: the cell of each pixel in a grid at a random place on each image.

    The grid is shifted by a random offset and wraps around at the border (Cranley-Patterson
    rotation). A fixed grid has cells of unequal size unless its numbers divide the image's, and
    would draw the pixels of small cells more often.
    """

    def along(length: int, cells: int) -> Tensor:
        offset = torch.randint(length, (batch, 1), generator=generator, device=device)
        return (torch.arange(length, device=device) + offset) % length * cells // length

    row, column = along(height, rows), along(width, columns)
    return (row[:, :, None] * columns + column[:, None, :]).flatten(1)


def cell_winners(keys: Tensor, cell: Tensor, cells: int, per_cell: int) -> Tensor:
    """``(B, P)`` int64: `per_cell` at the pixel with the largest key >= 0 of its cell, less one at
    the next, ..., and 0 at those that are not among the first `per_cell` of their cells.
    """
    places = torch.zeros_like(cell)
    for place in range(per_cell, 0, -1):
        best = keys.new_full((len(keys), cells), -1.0)
        best.scatter_reduce_(1, cell, keys, "amax")
        wins = (keys == best.gather(1, cell)) & (keys >= 0)
        places = torch.where(wins, place, places)
        keys = torch.where(wins, -1.0, keys)
    return places


def z_order(x: Tensor, y: Tensor) -> Tensor:
    """The Morton code of int64 coordinates below 2^31: their bits interleaved, y's the higher."""
    return _spread(x) | (_spread(y) << 1)


def _spread(bits: Tensor) -> Tensor:
    """Bit i of a number of 31 bits moved to bit 2 i."""
    for shift, mask in (
        (16, 0x0000FFFF0000FFFF),
        (8, 0x00FF00FF00FF00FF),
        (4, 0x0F0F0F0F0F0F0F0F),
        (2, 0x3333333333333333),
        (1, 0x5555555555555555),
    ):
        bits = (bits | (bits << shift)) & mask
    return bits
