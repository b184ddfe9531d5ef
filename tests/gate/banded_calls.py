"""Calls of the banded product, and what they give in float64: for test_banded.py, test_bands.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pixelnet_triton.call import Linear, Sampling, layer_geometry
from pixelnet_triton.reference import sparse_hypercolumn as reference_hypercolumn

from ..poison import poisoned_memory
from ..tolerances import assert_close_to_reference

pytest.importorskip("triton")

from pixelnet_triton.kernels import banded as kernels
from pixelnet_triton.kernels.order import order_points
from pixelnet_triton.kernels.select import Tile

__all__ = ["LAYERS", "OUTPUTS", "Call", "call"]

IMAGE = (17, 19)
# A map as fine as the image, one whose channels come in no unit, odd sizes, a 1x1 map.
LAYERS = ((8, 17, 19), (20, 5, 7), (24, 9, 4), (3, 1, 1))
OUTPUTS = 136


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
