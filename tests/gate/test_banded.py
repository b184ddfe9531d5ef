"""The banded product against float64: every tile, mix of layers, order and kind of points.

On a GPU (PIXELNET_TEST_DEVICE=cuda; Hopper or later) or in Triton's interpreter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pixelnet_triton.call import Linear, Sampling, layer_geometry
from pixelnet_triton.reference import sparse_hypercolumn as reference_hypercolumn

from ..poison import poisoned_memory
from ..tolerances import assert_close_to_reference
from .conftest import needs_kernels

pytestmark = needs_kernels
pytest.importorskip("triton")

from pixelnet_triton.kernels import banded as kernels  # noqa: E402
from pixelnet_triton.kernels import left  # noqa: E402
from pixelnet_triton.kernels.bands import ROWS, STEP, fits  # noqa: E402
from pixelnet_triton.kernels.order import order_points  # noqa: E402
from pixelnet_triton.kernels.select import Tile  # noqa: E402

IMAGE = (17, 19)
# A map as fine as the image, one whose channels come in no unit, odd sizes, a 1x1 map.
LAYERS = ((8, 17, 19), (20, 5, 7), (24, 9, 4), (3, 1, 1))
OUTPUTS = 136
DTYPES = (torch.float16, torch.bfloat16)
# The layers that are projected.
MIXES = ((1, 2), (0, 1, 2, 3), (2,), (3, 0))


@pytest.fixture(autouse=True)
def _a_device_with_tma(device: torch.device) -> None:
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (9, 0):
        pytest.skip("needs TMA")


@dataclass
class Call:
    """A call of `banded`, and the interpolation matrices S_i (P, B H_i W_i) behind it."""

    s: Sampling
    head: Linear
    matrices: list[Tensor]

    def run(self, projected: Sequence[int], tile: Tile | None = None) -> Tensor:
        with poisoned_memory():
            return kernels.banded(self.s, self.head, projected, order_points(self.s), tile)

    def expected(self, wide: torch.dtype) -> Tensor:
        """In `wide`, or step by step in the dtype of the maps."""
        weight, bias, activation = self.head
        layers = zip(self.matrices, self.s.features, strict=True)
        h = torch.cat([s.to(wide) @ _cells(m).to(wide) for s, m in layers], 1)
        y = F.linear(h, weight.to(wide), None if bias is None else bias.to(wide))
        return y if activation is None else getattr(F, activation)(y)

    def check(self, actual: Tensor) -> None:
        dtype = self.head.weight.dtype
        exact, plain = self.expected(torch.float64), self.expected(dtype)
        assert_close_to_reference(actual, exact, plain, dtype=dtype, name="output")


def _cells(feature: Tensor) -> Tensor:
    """(B H_i W_i, C_i)."""
    return feature.permute(0, 2, 3, 1).flatten(0, 2)


def call(
    dtype: torch.dtype,
    device: torch.device,
    *,
    batch: int = 2,
    points: int = 150,
    outputs: int = OUTPUTS,
    ragged: bool = False,
    activation: str | None = "relu",
    bias: bool = True,
    padding: str = "border",
    interpolation: str = "bilinear",
    layout: str = "channels_last",
) -> Call:
    """`points` are those of an image."""
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).to(device, dtype)

    maps = [normal(batch, *layer).to(memory_format=getattr(torch, layout)) for layer in LAYERS]
    xy = (torch.rand((batch * points, 2), generator=random) * 32 - 6).to(device)
    index = None
    if ragged:
        index = torch.randint(batch, (batch * points,), generator=random).to(device)
    weight = normal(outputs, sum(layer[0] for layer in LAYERS))
    head = Linear(weight, normal(outputs) if bias else None, activation)
    options = {"padding_mode": padding, "interpolation": interpolation}
    geometry = layer_geometry([layer[1:] for layer in LAYERS], IMAGE, **options)
    image = torch.arange(batch, device=device).repeat_interleave(points) if index is None else index
    matrices = []
    for _, rows, width in LAYERS:
        unit = torch.eye(rows * width, dtype=torch.float64, device=device)
        one = unit.reshape(1, -1, rows, width)
        s = reference_hypercolumn([one], xy.double()[None], IMAGE, **options)[0]
        own = F.one_hot(image, batch).to(s.dtype)
        matrices.append((own[:, :, None] * s[:, None, :]).flatten(1))
    return Call(Sampling(maps, xy, index, geometry), head, matrices)


@pytest.fixture(params=DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.mark.parametrize("tile", kernels.CHOICES, ids=lambda t: f"{t.columns}-{t.num_warps}")
@pytest.mark.parametrize("projected", MIXES, ids=str)
def test_values(
    dtype: torch.dtype, device: torch.device, projected: tuple[int, ...], tile: Tile
) -> None:
    a = call(dtype, device)
    a.check(a.run(projected, tile))


@pytest.mark.parametrize("padding", ["border", "zeros"])
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("ragged", [False, True], ids=["shares", "ragged"])
def test_conventions(device: torch.device, padding: str, interpolation: str, ragged: bool) -> None:
    a = call(
        torch.float16, device, padding=padding, interpolation=interpolation, ragged=ragged,
        layout="contiguous_format",
    )  # fmt: skip
    a.check(a.run((1, 2)))


@pytest.mark.parametrize("activation", [None, "gelu"])
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
def test_activations(device: torch.device, activation: str | None, bias: bool) -> None:
    for padding in ("border", "zeros"):
        a = call(torch.float16, device, activation=activation, bias=bias, padding=padding)
        a.check(a.run((2, 3)))


@pytest.mark.parametrize(("batch", "points"), [(7, 1), (60, 3), (3, 127), (1, 129), (2, 128)])
def test_tiles_that_meet_several_images(device: torch.device, batch: int, points: int) -> None:
    a = call(torch.float16, device, batch=batch, points=points)
    a.check(a.run((1, 3)))


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
    for projected in ((0, 1), (1,)):
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


# The interpreter multiplies by NumPy, which has something to say about infinity times 0.
careless = pytest.mark.filterwarnings("ignore:invalid value encountered")


def assert_bad(actual: Tensor, exact: Tensor, plain: Tensor, rows: Tensor, good: Tensor) -> None:
    """No number of `rows` is finite, and those of `good` are as if nothing had happened."""
    assert rows.any()
    assert good.any()
    assert not actual[rows].isfinite().any()
    assert_close_to_reference(
        actual[good], exact[good], plain[good], dtype=actual.dtype, name="other points"
    )


@careless
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("layer", [0, 1])
def test_bad_numbers_of_a_map_stay_with_the_points_that_see_them(
    device: torch.device, layer: int, value: float
) -> None:
    a = call(torch.bfloat16, device, activation=None, outputs=40)
    exact, plain = a.expected(torch.float64), a.expected(torch.bfloat16)
    _, rows, width = LAYERS[layer]
    a.s.features[layer][1, 0, rows // 2, width // 2] = value
    weights = a.matrices[layer][:, rows * width + rows // 2 * width + width // 2]
    # A weight that the dtype rounds to 0 may do either.
    actual = a.run((1, 2, 3))
    assert_bad(actual, exact, plain, weights > 1e-3, weights == 0)


@careless
def test_a_projected_cell_beyond_the_range_of_half_precision(device: torch.device) -> None:
    a = call(torch.float16, device, activation=None, outputs=40)
    a.s.features[1][1, :, 2, 3] = 60000
    a.head.weight[:, 8:28] = a.head.weight[:, 8:28].abs()
    exact, plain = a.expected(torch.float64), a.expected(torch.float16)
    weights = a.matrices[1][:, 35 + 2 * 7 + 3]
    assert_bad(a.run((1, 2, 3)), exact, plain, weights > 1e-3, weights == 0)


@pytest.mark.parametrize("column", [0, 10])
def test_a_bad_weight_stays_with_its_output(device: torch.device, column: int) -> None:
    a = call(torch.float16, device, activation=None)
    exact, plain = a.expected(torch.float64).t(), a.expected(torch.float16).t()
    a.head.weight[77, column] = float("nan")
    output = torch.arange(OUTPUTS, device=device) == 77
    assert_bad(a.run((1, 2, 3)).t(), exact, plain, output, ~output)


@pytest.mark.parametrize("projected", [(1, 2), (0, 1, 2, 3)], ids=str)
def test_points_that_are_none(device: torch.device, projected: tuple[int, ...]) -> None:
    """Not finite, or in an image that does not exist: a row of NaN, of which a ReLU makes no 0."""
    a = call(torch.float16, device, ragged=True, points=70, outputs=40)
    exact, plain = a.expected(torch.float64), a.expected(torch.float16)
    bad = torch.zeros(140, dtype=torch.bool, device=device)
    for p, value in ((3, float("nan")), (20, float("inf")), (139, -float("inf"))):
        a.s.points[p, p % 2] = value
        bad[p] = True
    assert a.s.batch_index is not None
    for p, image in ((5, -1), (50, 2), (51, 1 << 30)):
        a.s.batch_index[p] = image
        bad[p] = True
    actual = a.run(projected)
    assert actual[bad].isnan().all()
    assert_bad(actual, exact, plain, bad, ~bad)


SHAPE = {
    "dtype": torch.bfloat16,
    "outputs": 4096,
    "channels": (64, 128, 256, 512),
    "sizes": ((224, 224), (112, 112), (28, 28), (14, 14)),
    "batch": 5,
    "points": 5000,
    "projected": (2, 3),
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"dtype": torch.float16, "outputs": 8}, True),
        ({"dtype": torch.float32}, False),
        ({"outputs": 4100}, False),
        ({"projected": ()}, False),
        ({"projected": (1, 2, 3)}, True),  # 112 x 112 cells for 1,000 points an image
        ({"projected": (1, 2, 3), "points": 500}, False),
        ({"points": 50}, False),  # a tile meets all five images
        ({"points": 50, "projected": (3,)}, True),
        ({"batch": 0}, False),
        ({"points": 0}, False),
    ],
    ids=str,
)
def test_which_calls_it_takes(changes: dict[str, object], expected: bool) -> None:
    assert fits(**{**SHAPE, **changes}) is expected
