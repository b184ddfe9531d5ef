"""The left operand of the banded product: where its bands lie, and which calls have one.

On a GPU (PIXELNET_TEST_DEVICE=cuda; Hopper or later) or in Triton's interpreter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import pytest
import torch

from pixelnet_triton.call import Linear, Sampling, layer_geometry

from ..poison import poisoned_memory
from .conftest import needs_kernels

pytestmark = [needs_kernels, pytest.mark.usefixtures("a_device_with_tma")]
pytest.importorskip("triton")

from pixelnet_triton.kernels import left  # noqa: E402
from pixelnet_triton.kernels.bands import ROWS, STEP, fits  # noqa: E402
from pixelnet_triton.kernels.order import order_points  # noqa: E402

from .banded_calls import LAYERS, Call, call  # noqa: E402


def operands(a: Call, projected: Sequence[int], s: Sampling | None = None) -> left.Operands:
    s = a.s if s is None else s
    order = order_points(s)
    with poisoned_memory():
        return left.operands(order.of(s), a.head, projected, order.ruler)


def blocks_of(both: left.Operands) -> list[list[int]]:
    """The blocks of A that each tile's steps stand in."""
    fine = both.width // STEP
    return [
        [*range(tile * fine, (tile + 1) * fine), *range(begin + fine, begin + end // STEP)]
        for tile, (begin, end) in enumerate(both.table[:, [0, -2]].tolist())
    ]


def assert_bands_are_apart(both: left.Operands) -> None:
    """Every block belongs to one tile and is within A."""
    blocks = [*chain.from_iterable(blocks_of(both))]
    assert len(blocks) == len({*blocks})
    assert max(blocks) * ROWS < len(both.left)


@pytest.mark.parametrize("ragged", [False, True], ids=["shares", "ragged"])
@pytest.mark.parametrize(("batch", "points"), [(7, 1), (60, 3), (3, 127), (2, 128), (5, 200)])
def test_bands_lie_on_rows_of_their_maps(
    device: torch.device, batch: int, points: int, ragged: bool
) -> None:
    a = call(torch.float16, device, batch=batch, points=points, ragged=ragged)
    both = operands(a, (1, 2, 3))
    assert_bands_are_apart(both)
    assert both.left.view(-1, ROWS, STEP)[[*chain.from_iterable(blocks_of(both))]].isfinite().all()
    ends, shifts = both.table[:, 1::2], both.table[:, 2::2]
    assert (ends % STEP == 0).all()
    begins = torch.cat([torch.full_like(ends[:, :1], both.width), ends[:, :-1]], 1)
    assert (begins < ends).all()
    first = torch.tensor([0, *(batch * r * w for _, r, w in LAYERS[1:])]).cumsum(0).to(device)
    assert (begins + shifts >= both.width + first[:-1]).all()
    assert (begins + shifts < both.width + first[1:]).all()


# Of two maps of 40 and 17 rows: (scale, offset) of these.
RULED = {
    "twice as fine": ((1.0, 0.0), (0.5, -0.25)),
    "a map beyond the finest": ((1.0, 0.0), (0.125, 0.0)),
    "a map that begins later": ((1.0, 0.0), (1.0, -20.0)),
    "rows that no bin tells apart": ((1.0, 0.0), (3.0, -68.0)),
    "all in one row": ((0.0, 3.0), (0.0, 0.5)),
}


@pytest.mark.parametrize("kind", RULED)
@pytest.mark.parametrize("place", ["everywhere", "in one row", "beyond the image", "in no image"])
def test_bands_keep_apart_wherever_maps_and_points_lie(
    device: torch.device, kind: str, place: str
) -> None:
    """As far as the order can tell points apart, which is not by y within a bin."""
    random = torch.Generator().manual_seed(0)
    # A row is a step: nothing is left over where a band fills up its last one.
    maps = [torch.zeros(2, 8, rows, STEP, dtype=torch.float16) for rows in (40, 17)]
    maps = [m.to(device, memory_format=torch.channels_last) for m in maps]
    low, high = {"in one row": (24.9, 25.6), "beyond the image": (-100, 400)}.get(place, (-9, 60))
    xy = torch.rand(2 * 300, 2, generator=random)
    xy = (xy * torch.tensor([STEP, high - low]) + torch.tensor([0, low])).to(device)
    index = None
    if place == "in no image":
        index = (torch.randint(3, (len(xy),), generator=random) - 1).to(device)
    affine = tuple([(1.0, 0.0, *ruled) for ruled in RULED[kind]])
    geometry = layer_geometry([(40, STEP), (17, STEP)], (40, STEP))
    s = Sampling(maps, xy, index, replace(geometry, affine=affine))
    head = Linear(torch.ones(64, 16, dtype=torch.float16, device=device), None, None)
    # By itself where it has the wider gap: what another map leaves over would hide that.
    projected = (1,) if kind == "rows that no bin tells apart" else (0, 1)
    assert_bands_are_apart(operands(Call(s, head, []), projected))


def test_bands_take_little_room(device: torch.device) -> None:
    """Two rows of a map, and what two tiles have in common: less than a map to each tile."""
    a = call(torch.float16, device, points=1000)
    both = operands(a, (1, 2))
    used = sum(map(len, blocks_of(both)))
    assert used * ROWS <= len(both.left) <= 1.5 * used * ROWS


def test_whole_pixels_of_a_fine_map_are_exact(device: torch.device) -> None:
    a = call(torch.float16, device)
    xy = torch.stack([torch.arange(300) % 19, torch.arange(300) % 17], 1).to(device)
    s = a.s._replace(points=xy)
    place = order_points(s).place
    both = operands(a, (1, 2, 3), s)
    rows = both.left.view(-1, ROWS, STEP)[: -(-300 // ROWS)].flatten(0, 1)[:300]
    image, xy = place // 150, xy[place]
    assert torch.equal(rows[:, :8], a.s.features[0][image, :, xy[:, 1], xy[:, 0]])


SHAPE = {
    "outputs": 4096,
    "channels": (64, 128, 256, 512),
    "sizes": ((224, 224), (112, 112), (28, 28), (14, 14)),
    "batch": 5,
    "per_image": 1000,
    "projected": (2, 3),
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"outputs": 8}, True),
        ({"outputs": 4100}, False),
        ({"projected": ()}, False),
        ({"projected": (1, 2, 3)}, False),  # 112 x 112 cells
        ({"per_image": 10}, False),  # a tile meets all five images
        ({"per_image": None}, False),
        ({"per_image": None, "projected": (3,)}, True),
        ({"batch": 0}, False),
        ({"per_image": 0}, False),
    ],
    ids=str,
)
def test_which_calls_it_takes(changes: dict[str, object], expected: bool) -> None:
    assert fits(**{**SHAPE, **changes}) is expected
