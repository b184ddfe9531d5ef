"""Images of other sizes, as in training on several scales, take the kernels that are there."""

from __future__ import annotations

import random

import pytest
import torch

from pixelnet_triton.call import (
    CallShape,
    LayerShape,
    Linear,
    Plan,
    Route,
    Sampling,
    Wanted,
    layer_geometry,
)
from pixelnet_triton.gpu import BACKEND

from .stand_in import Driver

CHANNELS, BATCH, POINTS, OUTPUTS = (64, 24), 2, 32, 16
READS = [
    ("gather", "gather"),
    ("fused_linear", "fused_linear"),
    ("fused_linear", "project_rows"),
    ("gather", "project_rows"),
    ("gather", "project_band"),
]


def run(read: tuple[str, ...], height: int, width: int, channels_last: bool) -> None:
    """Both passes on maps of that size, and of half of it."""
    sizes = [(height, width), (height // 2, width // 2)]
    layers = tuple(
        LayerShape(channels, *size, channels_last)
        for channels, size in zip(CHANNELS, sizes, strict=True)
    )
    geometry = layer_geometry(sizes, (4 * height, 4 * width))
    plan = Plan(("gather",) * 2, "two_step", Route("", "", read, ("scatter", "collect")))
    shape = CallShape(layers, BATCH, POINTS, OUTPUTS, 2)
    executor = BACKEND.executor(shape, geometry, plan)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    half = {"dtype": torch.bfloat16}
    maps = [
        torch.empty(BATCH, channels, *size, **half).contiguous(memory_format=layout)
        for channels, size in zip(CHANNELS, sizes, strict=True)
    ]
    s = Sampling(maps, torch.zeros(POINTS, 2), None, geometry)
    head = Linear(torch.empty(OUTPUTS, sum(CHANNELS), **half), torch.empty(OUTPUTS, **half), "relu")
    executor.forward(s, head)
    grad = torch.empty(POINTS, OUTPUTS, **half)
    executor.backward(s, head, grad, grad, Wanted((True, True), False, True, True))


@pytest.mark.parametrize("channels_last", [True, False], ids=["NHWC", "NCHW"])
@pytest.mark.parametrize("read", READS, ids="-".join)
def test_they_are_compiled_for_once(
    read: tuple[str, ...], channels_last: bool, stand_in: Driver
) -> None:
    """And for strides that are no powers of two, by which positions are divided, once more.

    Tiles are powers of two, as near as that to the size of a map, so all of these are alike.
    """
    run(read, 48, 48, channels_last)
    run(read, 37, 41, channels_last)
    known = {ran.compiled for ran in stand_in.ran}
    assert len(known) > 4
    draw = random.Random(0)
    for height, width in [(56, 48), (33, 64), *((draw.randint(33, 63),) * 2 for _ in range(4))]:
        run(read, height, width + draw.randint(-1, 0), channels_last)
        assert {ran.compiled for ran in stand_in.ran} == known, (height, width)
