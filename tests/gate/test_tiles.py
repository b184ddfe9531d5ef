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
    fused_linear,
    gather,
    gradients,
    product,
    scatter,
    transposed,
)
from pixelnet_triton.kernels.linear import Operand  # noqa: E402
from pixelnet_triton.kernels.select import Tile  # noqa: E402

IMAGE = (33, 37)
# Channels that are not a multiple of any block, a 1x1 map, odd sizes, one map of whole blocks.
LAYERS = ((3, 1, 1), (24, 5, 7), (100, 6, 9), (64, 5, 4))
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

    @property
    def sums(self) -> Sampling:
        """The points on accumulators of the maps' gradients."""
        zeros = [torch.zeros_like(m, dtype=torch.float32) for m in self.maps]
        return self.sampling._replace(features=zeros)

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


@parametrize(gather.TILES)
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


@parametrize(gather.TILES)
def test_scatter_atomic(problem: Problem, dtype: torch.dtype, tile: Tile) -> None:
    sums = problem.sums
    with poisoned_memory():
        scatter.scatter_atomic(problem.upstream, problem.columns, sums, tile)
    check_scattered(problem, dtype, sums.features)


@parametrize(scatter.SORTED_TILES)
def test_scatter_sorted(problem: Problem, dtype: torch.dtype, tile: Tile) -> None:
    with poisoned_memory():
        targets = problem.sampling._replace(features=[torch.empty_like(m) for m in problem.maps])
        scatter.scatter_sorted(problem.upstream, problem.columns, targets, tile)
    check_scattered(problem, dtype, targets.features)


GATHER, PRODUCT, ROWS = "gather", "project_product", "project_gather"
MIXES = {
    "gather": (GATHER,) * 4,
    "product": (PRODUCT,) * 4,
    "projected": (ROWS,) * 4,
    "all": (ROWS, GATHER, GATHER, PRODUCT),
}


FIRST_LAYERS = [
    pytest.param(launcher, tile, mix, id=f"{name}-{_words(tile)}-{mix}")
    for name, launcher, table, mixes in (
        ("fused_linear", fused_linear.fused_linear, fused_linear.TILES, ("gather", "all")),
        ("product", product.product, product.TILES, MIXES),
    )
    for tile in table
    for mix in mixes
]


@pytest.mark.parametrize(("launcher", "tile", "mix"), FIRST_LAYERS)
def test_first_layer(
    problem: Problem, dtype: torch.dtype, launcher: Any, tile: Tile, mix: str
) -> None:
    activation = "gelu" if mix == "all" else "relu"
    rows = problem.rows(dtype)
    operands = []
    for i, strategy in enumerate(MIXES[mix]):
        tensor = problem.maps[i]
        if strategy == GATHER and launcher is product.product:
            tensor = rows[i]
        elif strategy != GATHER:
            part = problem.weight[:, problem.sampling.columns[i]]
            cells = tensor.permute(0, 2, 3, 1).float() @ part.t().float()
            tensor = cells.to(dtype).permute(0, 3, 1, 2)
        operands.append(Operand(strategy, tensor))
    head = Linear(problem.weight, problem.bias, activation)
    with poisoned_memory():
        actual = launcher(operands, problem.sampling, head, tile)

    def apply(wide: torch.dtype) -> Tensor:
        h = torch.cat(problem.rows(wide), dim=1)
        y = torch.nn.functional.linear(h, problem.weight.to(wide), problem.bias.to(wide))
        return getattr(torch.nn.functional, activation)(y)

    problem.check(actual, apply(torch.float64), apply(dtype), "output")


@parametrize(gradients.WEIGHT_TILES)
def test_weight_gradient(problem: Problem, dtype: torch.dtype, tile: Tile) -> None:
    with poisoned_memory():
        actual = gradients.weight_gradient(problem.grad, problem.sampling, tile)
    expected = problem.grad.double().t() @ torch.cat(problem.rows(torch.float64), dim=1)
    plain = problem.grad.t() @ torch.cat(problem.rows(dtype), dim=1)
    problem.check(actual, expected, plain, "gradient of the weight")


@parametrize(gradients.FEATURE_TILES)
def test_feature_gradient(problem: Problem, dtype: torch.dtype, tile: Tile) -> None:
    sums = problem.sums
    with poisoned_memory():
        gradients.feature_gradient(problem.grad, problem.weight, problem.columns, sums, tile)
    exact, plain = problem.grad.double() @ problem.weight.double(), problem.grad @ problem.weight
    for i, (target, (channels, *_)) in enumerate(zip(sums.features, LAYERS, strict=True)):
        part = slice(problem.columns[i], problem.columns[i] + channels)
        expected = problem.transposed(exact[:, part], i, torch.float64)
        rounded = problem.transposed(plain[:, part], i, dtype)
        problem.check(target, expected, rounded, f"gradient of layer {i}")


@parametrize(transposed.TILES)
def test_transposed_product(problem: Problem, dtype: torch.dtype, tile: Tile) -> None:
    for i in range(len(LAYERS)):
        with poisoned_memory():
            part = problem.sampling.of([i])
            actual = transposed.transposed_product(problem.grad, part, tile)
        expected = problem.transposed(problem.grad, i, torch.float64).permute(0, 2, 3, 1)
        plain = problem.transposed(problem.grad, i, dtype).permute(0, 2, 3, 1)
        problem.check(actual, expected, plain, f"layer {i}")
