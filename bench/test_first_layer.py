"""The first layer at sparse points against `grid_sample` + `cat` + `linear`.

    pytest bench --benchmark-only

Five sets of maps, forward and forward with backward (training), in bfloat16 on a GPU and float32
on the CPU, where there are fewer images (their number stands in the benchmark's figures). Both
sides are compared with the float64 definition before anything is timed.

The device is that of PIXELNET_TEST_DEVICE, the CPU unless set.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pixelnet_triton import sparse_hypercolumn
from pixelnet_triton.reference import sparse_hypercolumn as reference_hypercolumn

DEVICE = torch.device(os.environ.get("PIXELNET_TEST_DEVICE", "cpu"))
DTYPE = torch.float32 if DEVICE.type == "cpu" else torch.bfloat16


@dataclass(frozen=True)
class Workload:
    """Maps (C_i, H_i, W_i) under an image, points per image, and the layer's width."""

    maps: tuple[tuple[int, int, int], ...]
    image_size: tuple[int, int]
    images: int
    images_on_cpu: int
    points: int
    out_features: int

    @property
    def batch(self) -> int:
        return self.images_on_cpu if DEVICE.type == "cpu" else self.images


VGG = ((64, 224, 224), (128, 112, 112), (256, 56, 56), (512, 28, 28), (512, 14, 14))
RESNET = ((256, 128, 128), (512, 64, 64), (1024, 32, 32), (2048, 16, 16))
SQUARE = (224, 224)

WORKLOADS = {
    "W1-vgg-3-layers": Workload((VGG[0], VGG[2], VGG[4]), SQUARE, 1, 1, 2000, 4096),
    "W2-vgg-5-layers": Workload(VGG, SQUARE, 5, 1, 2000, 4096),
    "W3-vgg-conv7": Workload((*VGG, (4096, 7, 7)), SQUARE, 5, 1, 2000, 4096),
    "W4-resnet50": Workload(RESNET, (512, 512), 16, 2, 2048, 256),
    "W5-vgg-narrow": Workload(VGG, SQUARE, 5, 1, 2000, 256),
}


@dataclass(frozen=True)
class Inputs:
    """Maps in channels_last, points (B, N, 2) in pixels, weight (D, sum C_i), bias (D,)."""

    maps: list[Tensor]
    points: Tensor
    image_size: tuple[int, int]
    weight: Tensor
    bias: Tensor

    def tensors(self) -> list[Tensor]:
        return [*self.maps, self.weight, self.bias]


def library(at: Inputs) -> Tensor:
    return sparse_hypercolumn(
        at.maps, at.points, at.image_size, weight=at.weight, bias=at.bias, activation="relu"
    )


def grid_sample(at: Inputs) -> Tensor:
    """What most code does. The coordinates have the maps' dtype, because it insists on that."""
    size = torch.tensor(at.image_size[::-1], device=at.points.device)
    grid = ((2 * at.points + 1) / size - 1).to(at.weight.dtype)[:, None]  # (B, 1, N, 2)
    sampled = [
        F.grid_sample(m, grid, padding_mode="border", align_corners=False)[:, :, 0] for m in at.maps
    ]
    return F.linear(torch.cat(sampled, dim=1).mT, at.weight, at.bias).relu()


METHODS: dict[str, Callable[[Inputs], Tensor]] = {"library": library, "grid_sample": grid_sample}


@pytest.fixture(scope="module", params=list(WORKLOADS.values()), ids=list(WORKLOADS))
def inputs(request: pytest.FixtureRequest) -> Inputs:
    workload: Workload = request.param
    torch.manual_seed(0)
    channels = sum(c for c, _, _ in workload.maps)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, device=DEVICE, dtype=DTYPE)

    made = Inputs(
        [
            normal(workload.batch, *shape).contiguous(memory_format=torch.channels_last)
            for shape in workload.maps
        ],
        torch.randint(
            min(workload.image_size), (workload.batch, workload.points, 2), device=DEVICE
        ),
        workload.image_size,
        normal(workload.out_features, channels) / channels**0.5,
        normal(workload.out_features),
    )
    _check(made)
    return made


@torch.no_grad()
def _check(inputs: Inputs) -> None:
    """Both sides against float64 on some of the points; the bar is that of the dtype."""
    few = Inputs(inputs.maps, inputs.points[:, :64], inputs.image_size, inputs.weight, inputs.bias)
    expected = reference_hypercolumn(
        [m.double() for m in few.maps],
        few.points,
        few.image_size,
        weight=few.weight.double(),
        bias=few.bias.double(),
        activation="relu",
    )
    eps = torch.finfo(DTYPE).eps
    # Coordinates in [-1, 1] are rounded to eps, which is up to eps * W_i / 2 cells. In bfloat16
    # that is a whole cell: grid_sample is timed there all the same, as the one in use.
    bars = {"library": 4 * eps, "grid_sample": eps * max(few.image_size)}
    for name, method in METHODS.items():
        error = ((method(few).double() - expected).abs().max() / expected.abs().max()).item()
        assert error < bars[name], f"{name}: relative error {error:.2g}"


def _synchronize() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize(DEVICE)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("direction", ["forward", "training"])
def test_first_layer(
    request: pytest.FixtureRequest, benchmark: Any, inputs: Inputs, method: str, direction: str
) -> None:
    tensors = inputs.tensors()
    training = direction == "training"

    def call() -> None:
        output = METHODS[method](inputs)
        if training:
            torch.autograd.grad(output, tensors, output.detach())
        _synchronize()

    benchmark.group = f"{request.node.callspec.id.split('-')[0]} {direction}"
    benchmark.extra_info.update(
        device=DEVICE.type,
        dtype=str(DTYPE),
        images=len(inputs.points),
        points=inputs.points.shape[1],
    )
    for tensor in tensors:
        tensor.requires_grad_(training)
    try:
        call()
        if DEVICE.type == "cuda":
            before = torch.cuda.memory_allocated(DEVICE)
            torch.cuda.reset_peak_memory_stats(DEVICE)
            call()
            peak = torch.cuda.max_memory_allocated(DEVICE) - before
            benchmark.extra_info["peak_bytes_above_inputs"] = peak
        rounds = 5 if DEVICE.type == "cpu" else 50
        benchmark.pedantic(call, rounds=rounds, warmup_rounds=1)
    finally:
        for tensor in tensors:
            tensor.requires_grad_(False)
