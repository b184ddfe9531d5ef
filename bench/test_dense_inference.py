"""The head at every pixel: tiles of projected maps against the two usual ways.

- ``library``: `head_at_every_pixel`, with a budget of memory.
- ``sparse_chunks``: all pixels through the sparse layer, CHUNK at a time, as the authors do.
- ``dense``: all maps upsampled, the first layer as a 1x1 convolution, the others on CHUNK pixels.

Each is compared with the dense definition in float64 before it is timed.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.accuracy import arithmetic
from bench.inputs import make_inputs
from bench.machine import DEVICE
from bench.timing import clock
from bench.workloads import VGG, Workload, pyramid
from pixelnet_triton.inference import head_at_every_pixel
from pixelnet_triton.models import PixelMLP
from pixelnet_triton.reference import dense_linear

CHUNK = 16384
Maps = list[Tensor]


def library(head: PixelMLP, maps: Maps, size: tuple[int, int]) -> Tensor:
    return head_at_every_pixel(head, maps, size, memory_budget=256 << 20)


def sparse_chunks(head: PixelMLP, maps: Maps, size: tuple[int, int]) -> Tensor:
    y, x = torch.meshgrid(*(torch.arange(n, device=DEVICE) for n in size), indexing="ij")
    points = torch.stack([x, y], dim=-1).flatten(0, 1)
    scores = [head(maps, chunk[None], size)[0] for chunk in points.split(CHUNK)]
    return torch.cat(scores).t().unflatten(1, size)


def dense(head: PixelMLP, maps: Maps, size: tuple[int, int]) -> Tensor:
    first = head.first
    hidden = dense_linear(maps, size, first.weight, first.bias, first.activation)
    scores = [head.rest(rows) for rows in hidden[0].flatten(1).t().split(CHUNK)]
    return torch.cat(scores).t().unflatten(1, size)


@pytest.mark.benchmark(timer=clock(DEVICE))
@pytest.mark.parametrize("method", [library, sparse_chunks, dense], ids=lambda m: m.__name__)
@pytest.mark.parametrize(("side", "hidden"), [(224, (256, 256)), (112, (1024,))])
@torch.no_grad()
def test_every_pixel(benchmark: Any, side: int, hidden: tuple[int, ...], method: Any) -> None:
    size = (side, side)
    maps = make_inputs(Workload("maps", pyramid(VGG[:5], side), size, 1, 0, 1), DEVICE).maps
    head = PixelMLP([m.shape[1] for m in maps], hidden, out_features=21, init="kaiming")
    head = head.eval().to(DEVICE)
    benchmark.group = f"head at every pixel: {side} x {side}, {hidden}"
    exact = dense(deepcopy(head).double(), [m.double() for m in maps], size)
    with arithmetic(tf32=False):
        error = (method(head, maps, size) - exact).abs().max() / exact.abs().max()
    assert error < 16 * torch.finfo(torch.float32).eps, f"relative error {error:.2g}"
    benchmark.pedantic(method, args=(head, maps, size), rounds=5, warmup_rounds=1)
