"""The numerical gate: every kernel, every configuration, every dtype, against float64.

It runs on a GPU (PIXELNET_TEST_DEVICE=cuda) or in Triton's interpreter (TRITON_INTERPRET=1). Not
the configurations that would be chosen, but all that stand in the tables: a miscompiled one is
found here, before any of them is timed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

import pytest
import torch
from torch import Tensor

from pixelnet_triton.call.geometry import Geometry, layer_geometry
from pixelnet_triton.reference import sparse_hypercolumn as reference_hypercolumn

from ..poison import poisoned_memory
from ..tolerances import assert_close_to_reference
from .conftest import needs_kernels

pytestmark = needs_kernels
configs = pytest.importorskip("pixelnet_triton.kernels.configs")

from pixelnet_triton.kernels import fused_gradients, fused_linear, gather, scatter  # noqa: E402

IMAGE = (33, 37)
# Channels that are not a multiple of any block, a 1x1 map, odd sizes, one map of whole blocks.
LAYERS = ((3, 1, 1), (24, 5, 7), (100, 6, 9), (64, 5, 4))
OUTPUTS = 72
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def parametrize(table: Sequence[Any]) -> Any:
    return pytest.mark.parametrize(
        "config", table, ids=lambda config: "-".join(map(str, astuple(config)))
    )


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
        self.geometry: Geometry = layer_geometry(
            [layer[1:] for layer in LAYERS], IMAGE, padding_mode=padding
        )
        self.columns = [sum(layer[0] for layer in LAYERS[:i]) for i in range(len(LAYERS))]
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
    def arguments(self) -> dict[str, Any]:
        return {
            "points": self.points.flatten(0, 1),
            "batch_index": None,
            "affine": self.geometry.affine,
            "bilinear": True,
            "border": self.border,
        }

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


@parametrize(configs.GATHER_CONFIGS)
def test_gather(problem: Problem, dtype: torch.dtype, config: Any) -> None:
    with poisoned_memory():
        actual = gather.gather(problem.maps, **problem.arguments, config=config)
    expected = torch.cat(problem.rows(torch.float64), dim=1)
    problem.check(actual, expected, torch.cat(problem.rows(dtype), dim=1), "hypercolumns")


@parametrize(configs.GATHER_CONFIGS)
def test_coordinate_gradient(problem: Problem, dtype: torch.dtype, config: Any) -> None:
    arguments = {k: v for k, v in problem.arguments.items() if k != "bilinear"}
    with poisoned_memory():
        actual = gather.coordinate_gradient(
            problem.upstream, problem.columns, problem.maps, **arguments, config=config
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


@parametrize(configs.GATHER_CONFIGS)
def test_scatter_atomic(problem: Problem, dtype: torch.dtype, config: Any) -> None:
    sums = [torch.zeros_like(m, dtype=torch.float32) for m in problem.maps]
    with poisoned_memory():
        scatter.scatter_atomic(
            problem.upstream, problem.columns, sums, **problem.arguments, config=config
        )
    check_scattered(problem, dtype, sums)


@parametrize(configs.SEGMENT_CONFIGS)
def test_scatter_sorted(problem: Problem, dtype: torch.dtype, config: Any) -> None:
    with poisoned_memory():
        targets = [torch.empty_like(m) for m in problem.maps]
        scatter.scatter_sorted(
            problem.upstream, problem.columns, targets, **problem.arguments, config=config
        )
    check_scattered(problem, dtype, targets)


KINDS = {
    "gather": ("GATHER",) * 4,
    "dense": ("DENSE",) * 4,
    "product": ("PRODUCT",) * 4,
    "projected": ("PROJECTED",) * 4,
    "all": ("PROJECTED", "GATHER", "DENSE", "PRODUCT"),
}


@pytest.mark.parametrize("kinds", KINDS)
@parametrize(configs.LINEAR_CONFIGS)
def test_fused_linear(problem: Problem, dtype: torch.dtype, config: Any, kinds: str) -> None:
    activation = "gelu" if kinds == "all" else "relu"
    rows = problem.rows(dtype)
    operands = []
    for i, kind in enumerate(KINDS[kinds]):
        feature, column = problem.maps[i], problem.columns[i]
        part = problem.weight[:, column : column + feature.shape[1]]
        tensor = feature
        if kind == "DENSE":
            tensor = rows[i]
        elif kind != "GATHER":
            cells = feature.permute(0, 2, 3, 1).float() @ part.t().float()
            tensor = cells.to(dtype).permute(0, 3, 1, 2)
        code = getattr(fused_linear, kind).value
        operands.append(fused_linear.Operand(code, tensor, column, problem.geometry.affine[i]))
    arguments = {k: v for k, v in problem.arguments.items() if k != "affine"}
    with poisoned_memory():
        actual = fused_linear.fused_linear(
            operands,
            batch=2,
            weight=problem.weight,
            bias=problem.bias,
            activation=activation,
            config=config,
            **arguments,
        )

    def apply(wide: torch.dtype) -> Tensor:
        h = torch.cat(problem.rows(wide), dim=1)
        y = torch.nn.functional.linear(h, problem.weight.to(wide), problem.bias.to(wide))
        return getattr(torch.nn.functional, activation)(y)

    problem.check(actual, apply(torch.float64), apply(dtype), "output")


@parametrize(configs.WEIGHT_GRADIENT_CONFIGS)
def test_weight_gradient(problem: Problem, dtype: torch.dtype, config: Any) -> None:
    with poisoned_memory():
        actual = fused_gradients.weight_gradient(
            problem.grad, problem.maps, **problem.arguments, config=config
        )
    expected = problem.grad.double().t() @ torch.cat(problem.rows(torch.float64), dim=1)
    plain = problem.grad.t() @ torch.cat(problem.rows(dtype), dim=1)
    problem.check(actual, expected, plain, "gradient of the weight")


@parametrize(configs.FEATURE_GRADIENT_CONFIGS)
def test_feature_gradient(problem: Problem, dtype: torch.dtype, config: Any) -> None:
    sums = [torch.zeros_like(m, dtype=torch.float32) for m in problem.maps]
    with poisoned_memory():
        fused_gradients.feature_gradient(
            problem.grad,
            problem.weight,
            problem.columns,
            sums,
            **problem.arguments,
            config=config,
        )
    exact, plain = problem.grad.double() @ problem.weight.double(), problem.grad @ problem.weight
    for i, (target, (channels, *_)) in enumerate(zip(sums, LAYERS, strict=True)):
        part = slice(problem.columns[i], problem.columns[i] + channels)
        expected = problem.transposed(exact[:, part], i, torch.float64)
        rounded = problem.transposed(plain[:, part], i, dtype)
        problem.check(target, expected, rounded, f"gradient of layer {i}")


@parametrize(configs.TRANSPOSED_CONFIGS)
def test_transposed_product(problem: Problem, dtype: torch.dtype, config: Any) -> None:
    for i, (_, rows, width) in enumerate(LAYERS):
        with poisoned_memory():
            actual = fused_gradients.transposed_product(
                problem.grad,
                problem.points.flatten(0, 1),
                2,
                (rows, width),
                problem.geometry.affine[i],
                True,
                problem.border,
                config=config,
            )
        expected = problem.transposed(problem.grad, i, torch.float64).permute(0, 2, 3, 1)
        plain = problem.transposed(problem.grad, i, dtype).permute(0, 2, 3, 1)
        problem.check(actual, expected, plain, f"layer {i}")
