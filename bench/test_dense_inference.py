"""The head at every pixel: tiles of projected maps against the two usual ways.

    pytest bench/test_dense_inference.py --benchmark-only

- ``library``: `head_at_every_pixel`, with the default budget of memory.
- ``sparse_chunks``: all pixels through the sparse layer, 16,384 at a time, as the authors do.
- ``dense``: all maps upsampled, the first layer as a 1x1 convolution, the other layers on 16,384
  pixels at a time.

All are compared with the float64 definition, on some of the pixels, before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from pixelnet_triton.inference import head_at_every_pixel
from pixelnet_triton.models import PixelMLP
from pixelnet_triton.reference import dense_linear, sparse_hypercolumn

CHUNK = 16384
VGG = ((64, 1), (128, 2), (256, 4), (512, 8), (512, 16))  # channels, stride


@dataclass(frozen=True)
class Inputs:
    """Maps (1, C_i, H_i, W_i) in channels_last, and the head on them."""

    maps: list[Tensor]
    size: tuple[int, int]
    head: PixelMLP


def library(at: Inputs) -> Tensor:
    return head_at_every_pixel(at.head, at.maps, at.size, memory_budget=256 << 20)


def sparse_chunks(at: Inputs) -> Tensor:
    chunks = _points(at.size).split(CHUNK)
    scores = [at.head(at.maps, points[None], at.size)[0] for points in chunks]
    return torch.cat(scores).t().unflatten(1, at.size)


def dense(at: Inputs) -> Tensor:
    first = at.head.first
    hidden = dense_linear(at.maps, at.size, first.weight, first.bias, first.activation)
    scores = [at.head.rest(rows) for rows in hidden[0].flatten(1).t().split(CHUNK)]
    return torch.cat(scores).t().unflatten(1, at.size)


METHODS: dict[str, Callable[[Inputs], Tensor]] = {
    "library": library,
    "sparse_chunks": sparse_chunks,
    "dense": dense,
}
WORKLOADS = {"224-256-256": (224, (256, 256)), "112-4096": (112, (4096,))}


@pytest.fixture(scope="module", params=list(WORKLOADS.values()), ids=list(WORKLOADS))
def inputs(request: pytest.FixtureRequest) -> Inputs:
    side, hidden = request.param
    torch.manual_seed(0)
    maps = [
        torch.randn(1, channels, side // stride, side // stride).contiguous(
            memory_format=torch.channels_last
        )
        for channels, stride in VGG
    ]
    head = PixelMLP([c for c, _ in VGG], hidden, out_features=21, init="kaiming").eval()
    made = Inputs(maps, (side, side), head)
    _check(made)
    return made


def _points(size: tuple[int, int]) -> Tensor:
    """(H * W, 2), row by row."""
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)


@torch.no_grad()
def _check(inputs: Inputs) -> None:
    """Every method at every 97th pixel; float32 sums of some thousand terms, three layers deep."""
    points = _points(inputs.size)[::97]
    first = inputs.head.first
    hidden = sparse_hypercolumn(
        [m.double() for m in inputs.maps],
        points[None],
        inputs.size,
        weight=first.weight.double(),
        bias=first.bias.double(),
        activation=first.activation,
    )[0]
    for layer in inputs.head.rest:
        if isinstance(layer, torch.nn.Linear):
            weight, bias = layer.weight.double(), layer.bias.double()
            hidden = torch.nn.functional.linear(hidden, weight, bias)
        elif isinstance(layer, torch.nn.ReLU):
            hidden = hidden.relu()
    for name, method in METHODS.items():
        scores = method(inputs)[:, points[:, 1], points[:, 0]].t().double()
        error = ((scores - hidden).abs().max() / hidden.abs().max()).item()
        assert error < 16 * torch.finfo(torch.float32).eps, f"{name}: relative error {error:.2g}"


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_every_pixel(
    request: pytest.FixtureRequest, benchmark: Any, inputs: Inputs, method: str
) -> None:
    benchmark.group = request.node.callspec.id.rsplit("-", 1)[0]
    benchmark.extra_info.update(pixels=inputs.size[0] * inputs.size[1], device="cpu")
    rounds = 8 if method == "library" else 3  # the shortest: other processes show in it most
    benchmark.pedantic(METHODS[method], args=(inputs,), rounds=rounds, warmup_rounds=1)
