"""The numerical gate: every kernel, every tile, every dtype, against float64.

It runs on a GPU (PIXELNET_TEST_DEVICE=cuda) or in Triton's interpreter (TRITON_INTERPRET=1). Not
the tiles that would be chosen, but all that stand in the tables: a miscompiled one is
found here, before any of them is timed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

import pytest
import torch
from torch import Tensor

from pixelnet_triton.call import Linear, Sampling, layer_geometry
from pixelnet_triton.reference import sparse_hypercolumn as reference_hypercolumn

from ..poison import poisoned_memory
from ..tolerances import assert_close_to_reference
from .conftest import needs_kernels

pytestmark = needs_kernels
pytest.importorskip("triton")

from pixelnet_triton.kernels import (  # noqa: E402
    band,
    fused_linear,
    gather,
)
from pixelnet_triton.kernels.mask import masked_like  # noqa: E402
from pixelnet_triton.kernels.order import order_points  # noqa: E402
from pixelnet_triton.kernels.rows import TILES as ROW_TILES  # noqa: E402
from pixelnet_triton.kernels.rows import add_rows  # noqa: E402
from pixelnet_triton.kernels.select import Tile  # noqa: E402

IMAGE = (33, 37)
# Channels that are not a multiple of any block, a 1x1 map, odd sizes, one map of whole blocks. What
# is written beyond the last layer's channels falls on the first layer's of the next row.
LAYERS = ((3, 1, 1), (24, 5, 7), (64, 5, 4), (100, 6, 9))
OUTPUTS = 72
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def _words(tile: Tile) -> str:
    return "-".join(map(str, astuple(tile)))


def parametrize(table: Sequence[Tile]) -> Any:
    return pytest.mark.parametrize("tile", table, ids=_words)


class Problem:
    """Maps, points and the interpolation matrices S_i (B, N, H_i W_i) between them.

    The matrices are made in float64, and in float32 for the plain expression: its coordinates are
    rounded as everyone's are.
    """

    def __init__(
        self, dtype: torch.dtype, device: torch.device, layout: str, points: int, padding: str
    ) -> None:
        random = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=random).to(device, dtype)

        memory_format = getattr(torch, layout)
        self.maps = [normal(2, *layer).contiguous(memory_format=memory_format) for layer in LAYERS]
        inside = torch.rand((2, points, 2), generator=random) * 60 - 10
        inside[:, ::5] = inside[:, :1]  # duplicates, whose gradients accumulate
        self.points = inside.to(device)
        self.weight = normal(OUTPUTS, sum(layer[0] for layer in LAYERS))
        self.bias = normal(OUTPUTS)
        self.grad = normal(2 * points, OUTPUTS)
        self.upstream = normal(2 * points, self.weight.shape[1])
        self.border = padding == "border"
        geometry = layer_geometry([layer[1:] for layer in LAYERS], IMAGE, padding_mode=padding)
        self.sampling = Sampling(self.maps, self.points.flatten(0, 1), None, geometry)
        self.columns = [columns.start for columns in self.sampling.columns]
        self.matrices = {
            wide: [self._matrix(rows, width, padding, wide) for _, rows, width in LAYERS]
            for wide in (torch.float64, torch.float32)
        }

    def _matrix(self, rows: int, width: int, padding: str, wide: torch.dtype) -> Tensor:
        cells = rows * width
        unit = torch.eye(cells, dtype=wide, device=self.points.device)
        maps = unit.reshape(1, cells, rows, width).expand(2, -1, -1, -1)
        return reference_hypercolumn([maps], self.points.to(wide), IMAGE, padding_mode=padding)

    def rows(self, dtype: torch.dtype) -> list[Tensor]:
        """S_i X_i, each (P, C_i), summed in float32 or better and rounded to `dtype`."""
        wide = _wide(dtype)
        return [
            (s @ m.to(wide).flatten(2).transpose(1, 2)).flatten(0, 1).to(dtype)
            for s, m in zip(self.matrices[wide], self.maps, strict=True)
        ]

    def transposed(self, grad: Tensor, layer: int, dtype: torch.dtype) -> Tensor:
        """S_i^T grad as (B, columns of grad, H_i, W_i)."""
        wide = _wide(dtype)
        summed = grad.to(wide).unflatten(0, (2, -1)).transpose(1, 2) @ self.matrices[wide][layer]
        return summed.unflatten(2, LAYERS[layer][1:]).to(dtype)

    def check(self, actual: Tensor, expected: Tensor, plain: Tensor, name: str) -> None:
        assert_close_to_reference(actual, expected, plain, dtype=self.maps[0].dtype, name=name)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


@pytest.fixture(params=DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(params=["channels_last", "contiguous_format"])
def problem(request: pytest.FixtureRequest, dtype: torch.dtype, device: torch.device) -> Problem:
    # 70 points an image: more than one tile of any configuration but the largest, none full.
    padding = "border" if request.param == "channels_last" else "zeros"
    return Problem(dtype, device, request.param, 70, padding)


@parametrize(gather.TILES)
def test_gather(problem: Problem, dtype: torch.dtype, tile: Tile) -> None:
    with poisoned_memory():
        actual = gather.gather(problem.sampling, tile)
    expected = torch.cat(problem.rows(torch.float64), dim=1)
    problem.check(actual, expected, torch.cat(problem.rows(dtype), dim=1), "hypercolumns")


@parametrize(gather.GRADIENT_TILES)
def test_coordinate_gradient(problem: Problem, dtype: torch.dtype, tile: Tile) -> None:
    with poisoned_memory():
        actual = gather.coordinate_gradient(
            problem.upstream, problem.columns, problem.sampling, tile
        )

    def differentiate(wide: torch.dtype) -> Tensor:
        points = problem.points.to(wide).requires_grad_()
        padding = "border" if problem.border else "zeros"
        maps = [m.to(wide) for m in problem.maps]
        value = reference_hypercolumn(maps, points, IMAGE, padding_mode=padding)
        (grad,) = torch.autograd.grad(value, points, problem.upstream.to(wide).view_as(value))
        return grad.flatten(0, 1)

    # Coordinates are float32 in every dtype, and so is the plain expression's sum.
    expected, plain = differentiate(torch.float64), differentiate(torch.float32)
    assert_close_to_reference(
        actual, expected, plain, dtype=torch.float32, name="gradient of the points"
    )


def check_scattered(problem: Problem, dtype: torch.dtype, targets: Sequence[Tensor]) -> None:
    for i, (target, (channels, *_)) in enumerate(zip(targets, LAYERS, strict=True)):
        part = problem.upstream[:, problem.columns[i] :][:, :channels]
        expected = problem.transposed(part, i, torch.float64)
        problem.check(target, expected, problem.transposed(part, i, dtype), f"layer {i}")


@parametrize(band.TILES)
def test_scatter(problem: Problem, dtype: torch.dtype, tile: Tile) -> None:
    order = order_points(problem.sampling)
    rows = problem.upstream[order.place]
    with poisoned_memory():
        targets = problem.sampling._replace(features=[torch.empty_like(m) for m in problem.maps])
        band.band(rows, problem.columns, targets, order, tile)
    check_scattered(problem, dtype, targets.features)


@parametrize(band.SHARED_TILES)
def test_collect(problem: Problem, dtype: torch.dtype, tile: Tile) -> None:
    order = order_points(problem.sampling)
    rows = problem.grad[order.place]
    with poisoned_memory():
        qs = [rows.new_empty(2, OUTPUTS, *layer[1:]) for layer in LAYERS]
        targets = problem.sampling._replace(features=qs)
        band.band(rows, None, targets, order, tile)
    for i, q in enumerate(qs):
        expected = problem.transposed(problem.grad, i, torch.float64)
        problem.check(q, expected, problem.transposed(problem.grad, i, dtype), f"layer {i}")


@pytest.mark.parametrize("bias", [True, False])
def test_masked(problem: Problem, dtype: torch.dtype, bias: bool) -> None:
    order = order_points(problem.sampling)
    output = problem.grad.roll(1, 0).relu()
    output[3, 5] = float("nan")
    with poisoned_memory():
        run = masked_like(problem.grad, is_masked=True, bias=bias)
        grad, summed = run(problem.grad, output, order.place)
    expected = torch.ops.aten.threshold_backward(problem.grad, output, 0)
    assert torch.equal(grad, expected[order.place])
    assert (summed is not None) == bias
    if summed is not None:
        problem.check(summed, expected.double().sum(0), expected.sum(0), "gradient of the bias")


@pytest.mark.parametrize("outputs", [8, 1024])  # in shares of 32 and of 64 points
def test_every_share_of_many_points(device: torch.device, outputs: int) -> None:
    points = 30 * torch.rand(1100, 2, device=device)
    grad = torch.randint(-8, 9, (1100, outputs), device=device).float()  # whose sums are exact
    geometry = layer_geometry([(7, 7)], IMAGE)
    s = Sampling([torch.zeros(1, 8, 7, 7, device=device)], points, None, geometry)
    order = order_points(s)
    with poisoned_memory():
        run = masked_like(grad, is_masked=False, bias=True)
        ordered, summed = run(grad, None, order.place)
    assert torch.equal(ordered, grad[order.place])
    assert summed is not None
    assert torch.equal(summed, grad.sum(0))


def check_first_layer(
    problem: Problem, dtype: torch.dtype, activation: str | None, actual: Tensor
) -> None:
    def apply(wide: torch.dtype) -> Tensor:
        h = torch.cat(problem.rows(wide), dim=1)
        y = torch.nn.functional.linear(h, problem.weight.to(wide), problem.bias.to(wide))
        return y if activation is None else getattr(torch.nn.functional, activation)(y)

    problem.check(actual, apply(torch.float64), apply(dtype), "output")


@parametrize(fused_linear.TILES)
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_one_pass(problem: Problem, dtype: torch.dtype, tile: Tile, activation: str) -> None:
    head = Linear(problem.weight, problem.bias, activation)
    with poisoned_memory():
        actual = fused_linear.fused_linear(problem.sampling, head, tile)
    check_first_layer(problem, dtype, activation, actual)


@parametrize(ROW_TILES)
@pytest.mark.parametrize(
    ("gathered", "activation"),
    [((), "relu"), ((0, 1), "gelu"), ((0, 3), None)],
    ids=["all projected", "gelu", "linear"],
)
def test_rows(
    problem: Problem,
    dtype: torch.dtype,
    tile: Tile,
    gathered: tuple[int, ...],
    activation: str | None,
) -> None:
    columns, rows = problem.sampling.columns, problem.rows(dtype)
    product = None
    if gathered:
        parts = [rows[i].float() @ problem.weight[:, columns[i]].t().float() for i in gathered]
        product = torch.stack(parts).sum(0).to(dtype)
    projected = [i for i in range(len(LAYERS)) if i not in gathered]
    maps = []
    for i in projected:
        cells = problem.maps[i].permute(0, 2, 3, 1).float()
        z = cells @ problem.weight[:, columns[i]].t().float()
        maps.append(z.to(dtype).permute(0, 3, 1, 2))
    s = problem.sampling.of(projected, maps, role="rows")
    with poisoned_memory():
        actual = add_rows(s, product, problem.bias, activation, tile)
    assert product is None or actual is product
    check_first_layer(problem, dtype, activation, actual)
