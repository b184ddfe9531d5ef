"""Numbers that are not finite stay with the points, or the cells, that see them: by every route.

A point sees the cells to which it gives a weight other than 0: not the neighbours of one whose
centre it meets, nothing where it lies outside a map with zero padding. The weights are those of the
float64 reference; whatever sees nothing bad has to come out as without the bad numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pixelnet_triton.call import (
    CallShape,
    Executor,
    Gradients,
    LayerShape,
    Linear,
    Plan,
    Route,
    Sampling,
    Wanted,
    layer_geometry,
)
from pixelnet_triton.gpu import BACKEND
from pixelnet_triton.reference import sparse_hypercolumn as reference_hypercolumn

from ..poison import poisoned_memory
from .conftest import needs_kernels

pytestmark = [
    needs_kernels,
    # NumPy's, in the interpreter.
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),
]
pytest.importorskip("triton")

NAN, INF = float("nan"), float("inf")
BATCH, IMAGE, OUTPUTS = 2, (12, 16), 24
LAYERS = ((8, 12, 16), (16, 6, 8))
SHAPE = CallShape(tuple(LayerShape(*layer) for layer in LAYERS), BATCH, 64, OUTPUTS)
# Layer, image, row, column and value: at both rims, and inside, of both maps.
BAD_CELLS = ((0, 0, 5, 6, NAN), (1, 0, 5, 7, INF), (0, 1, 0, 0, -INF), (1, 1, 2, 3, NAN))
# What the points of each image are, to the bad cells.
POINTS = {
    "centre": [(6, 5), (0, 0), (6.5, 4.5), (14.5, 10.5)],
    "neighbour's centre": [(7, 5), (5, 5), (6, 4), (6, 6), (8.5, 4.5), (4.5, 4.5), (1, 0), (0, 1)],
    "between": [(6.25, 5.5), (5.5, 5), (6, 4.75), (7.5, 5), (0.5, 0.25), (14, 11), (7.25, 5)],
    "rim": [(-0.5, 0), (15.5, 11.5), (0, -0.25), (-1, 0), (16, 11), (3, -1)],
    "outside": [(-3, 0), (0, -2), (16.5, 11), (14.5, 40), (1e9, -1e9), (-1e30, 0), (6, -2.5)],
}


@dataclass
class Call:
    """A call, and of each layer the interpolation matrix (P, B H_i W_i) behind it."""

    s: Sampling
    head: Linear
    grad: Tensor
    matrices: list[Tensor]
    exact: Tensor  # the points, of which the matrices are functions

    def seen(self, slope: int | None = None) -> Tensor:
        """(P,) which points see a bad cell; with a slope, by d/dx or d/dy of their weights."""
        rows = torch.zeros(self.s.total, dtype=torch.bool, device=self.s.points.device)
        for layer, image, row, column, _ in BAD_CELLS:
            _, height, width = LAYERS[layer]
            weight = self.matrices[layer][:, (image * height + row) * width + column]
            if slope is not None:
                weight = torch.autograd.grad(weight.sum(), self.exact, retain_graph=True)[0]
                weight = weight[:, slope]
            rows |= weight != 0
        return rows

    def spoilt(self) -> Sampling:
        """With the bad cells."""
        maps = [m.clone() for m in self.s.features]
        for layer, image, row, column, value in BAD_CELLS:
            maps[layer][image, :, row, column] = value
        return self.s._replace(features=maps)


def call(device: torch.device, padding: str, interpolation: str = "bilinear") -> Call:
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).to(device, torch.float16)

    maps = [normal(BATCH, *layer).to(memory_format=torch.channels_last) for layer in LAYERS]
    anywhere = torch.rand((20, 2), generator=random) * 20 - 3
    of_image = torch.cat([torch.tensor([p for k in POINTS.values() for p in k]), anywhere])
    points = of_image.repeat(BATCH, 1).to(device)
    head = Linear(normal(OUTPUTS, sum(c for c, _, _ in LAYERS)), normal(OUTPUTS), None)
    options = {"padding_mode": padding, "interpolation": interpolation}
    geometry = layer_geometry([layer[1:] for layer in LAYERS], IMAGE, **options)
    exact = points.double().requires_grad_()
    own = F.one_hot(torch.arange(BATCH, device=device), BATCH).repeat_interleave(len(of_image), 0)
    matrices = []
    for _, rows, width in LAYERS:
        cells = torch.eye(rows * width, dtype=torch.float64, device=device)
        one = cells.reshape(1, -1, rows, width)
        weights = reference_hypercolumn([one], exact[None], IMAGE, **options)[0]
        matrices.append((own[:, :, None] * weights[:, None, :]).flatten(1))
    s = Sampling(maps, points, None, geometry)
    return Call(s, head, normal(len(points), OUTPUTS), matrices, exact)


def executor(s: Sampling, read: tuple[str, ...], write: tuple[str, ...] = ()) -> Executor:
    plan = Plan(("gather",) * len(LAYERS), "two_step", Route("", "", read, write))
    return BACKEND.executor(SHAPE, s.geometry, plan)


def assert_spoilt(actual: Tensor, clean: Tensor, bad: Tensor) -> None:
    """No number where `bad` is finite, and all others are as without bad numbers."""
    assert bad.any()
    assert not bad.all()
    assert not actual[bad].isfinite().any()
    torch.testing.assert_close(actual[~bad], clean[~bad])


READS = [
    ("gather", "gather"),
    ("fused_linear", "fused_linear"),
    ("fused_linear", "project_rows"),
    ("project_rows", "gather"),
    ("project_rows", "project_rows"),
    ("gather", "project_band"),
    ("project_band", "project_band"),
]

either_padding = pytest.mark.parametrize("padding", ["border", "zeros"])


@pytest.fixture(autouse=True)
def _a_device_with_tma(device: torch.device, request: pytest.FixtureRequest) -> None:
    read = getattr(request.node, "callspec", None)
    words = () if read is None else read.params.get("read", ())
    if "project_band" not in words or device.type != "cuda":
        return
    if torch.cuda.get_device_capability(device) < (9, 0):
        pytest.skip("needs TMA")


@pytest.mark.parametrize("read", READS, ids="+".join)
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@either_padding
def test_of_maps(
    device: torch.device, read: tuple[str, ...], padding: str, interpolation: str
) -> None:
    a = call(device, padding, interpolation)
    with poisoned_memory():
        clean = executor(a.s, read).forward(a.s, a.head)
        actual = executor(a.s, read).forward(a.spoilt(), a.head)
    assert_spoilt(actual, clean, a.seen())


@pytest.mark.parametrize("read", READS, ids="+".join)
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_activations_keep_nan(device: torch.device, read: tuple[str, ...], activation: str) -> None:
    """By which rows of bad points are told."""
    a = call(device, "border")
    a.s.points[5] = NAN
    plain = executor(a.s, read).forward(a.spoilt(), a.head)
    actual = executor(a.s, read).forward(a.spoilt(), a.head._replace(activation=activation))
    assert plain[5].isnan().all()
    nan = plain.isnan() | (plain == -INF) if activation == "gelu" else plain.isnan()
    assert torch.equal(actual.isnan(), nan)


@either_padding
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_of_maps_in_hypercolumns(device: torch.device, padding: str, interpolation: str) -> None:
    """Layer by layer: the columns of the other are as they were."""
    a = call(device, padding, interpolation)
    with poisoned_memory():
        clean = executor(a.s, ("gather",) * 2).forward(a.s, None)
        actual = executor(a.s, ("gather",) * 2).forward(a.spoilt(), None)
    bad = torch.zeros_like(actual, dtype=torch.bool)
    for layer, image, row, column, _ in BAD_CELLS:
        _, height, width = LAYERS[layer]
        sees = a.matrices[layer][:, (image * height + row) * width + column] != 0
        bad[:, a.s.columns[layer]] |= sees[:, None]
    assert_spoilt(actual, clean, bad)


WRITES = [("scatter", "scatter"), ("collect", "collect")]
ALL = Wanted((True,) * len(LAYERS), False, True, True)


def backward(a: Call, s: Sampling, write: tuple[str, ...], grad: Tensor, moving: bool) -> Gradients:
    with poisoned_memory():
        run = executor(s, ("gather",) * 2, write)
        return run.backward(s, a.head, grad, None, ALL._replace(points=moving))


@pytest.mark.parametrize("write", WRITES, ids="+".join)
@either_padding
def test_of_upstream_gradients(device: torch.device, write: tuple[str, ...], padding: str) -> None:
    """Of each map the cells that see their points; of weight and bias the output."""
    a = call(device, padding)
    moving = "collect" not in write
    count, bad, good = a.s.total // BATCH, a.grad.clone(), a.grad.clone()
    chosen = {"between": (0, NAN), "centre": (0, INF), "outside": (4, -INF)}
    spoilt: list[int] = []
    start = 0
    for kind, points in POINTS.items():
        if kind in chosen:
            at, value = chosen[kind]
            output = 7 if kind == "outside" else 3
            p = start + at + (count if kind == "centre" else 0)
            bad[p] = good[p] = 0
            bad[p, output] = value
            spoilt.append(p)
        start += len(points)
    clean = backward(a, a.s, write, good, moving)
    actual = backward(a, a.s, write, bad, moving)
    rows = torch.tensor(spoilt, device=device)
    for layer, (got, expected) in enumerate(zip(actual.features, clean.features, strict=True)):
        _, height, width = LAYERS[layer]
        seen = (a.matrices[layer][rows] != 0).any(0).reshape(BATCH, height, width)
        assert_spoilt(got.permute(0, 2, 3, 1), expected.permute(0, 2, 3, 1), seen)
    outputs = torch.zeros(OUTPUTS, dtype=torch.bool, device=device)
    outputs[[3, 7]] = True
    assert_spoilt(actual.bias, clean.bias, outputs)
    torch.testing.assert_close(actual.weight[~outputs], clean.weight[~outputs])
    assert not actual.weight[3].isfinite().any()
    if moving:
        others = torch.ones(a.s.total, dtype=torch.bool, device=device)
        others[rows] = False
        torch.testing.assert_close(actual.points[others], clean.points[others])


@either_padding
def test_of_maps_in_gradients_of_points(device: torch.device, padding: str) -> None:
    """Points see by the slopes of their weights, on either axis: beside a centre also 0 has one."""
    a = call(device, padding)
    clean = backward(a, a.s, ("scatter",) * 2, a.grad, True)
    actual = backward(a, a.spoilt(), ("scatter",) * 2, a.grad, True)
    bad = torch.stack([a.seen(0), a.seen(1)], 1)
    assert_spoilt(actual.points, clean.points, bad)
    for got, expected in zip(
        [*actual.features, actual.bias], [*clean.features, clean.bias], strict=True
    ):
        torch.testing.assert_close(got, expected)


def test_of_cells_that_no_point_sees_in_the_gradient_of_the_weight(device: torch.device) -> None:
    """Of layers that are scattered; Q_i^T X_i is a sum over all cells."""
    a = call(device, "zeros")
    spoilt = a.spoilt()
    away = [(~seen).nonzero()[:, 0][:20] for seen in a.seen().chunk(BATCH)]
    points = torch.cat([p[rows] for p, rows in zip(a.s.points.chunk(BATCH), away, strict=True)])
    s, grad = a.s.at(points, None), a.grad[: len(points)]
    clean = backward(a, s, ("scatter",) * 2, grad, False)
    actual = backward(a, spoilt.at(points, None), ("scatter",) * 2, grad, False)
    torch.testing.assert_close(actual.weight, clean.weight)
