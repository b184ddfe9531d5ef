"""Random inputs of a workload, and copies to rotate through."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .workloads import Workload

#: Bytes that rotated inputs are to exceed on a GPU, twice the largest L2 cache in use (GB200: 126
#: MB); of small inputs there are eight copies, however little these are.
ROTATED_BYTES = 256 << 20


@dataclass(frozen=True)
class Inputs:
    """Maps (B, C_i, H_i, W_i), points in pixels, weight (D, sum C_i), bias (D,).

    Points are (B, N, 2), or (P, 2) with batch_index (P,).
    """

    maps: list[Tensor]
    points: Tensor
    image_size: tuple[int, int]
    weight: Tensor
    bias: Tensor
    batch_index: Tensor | None = None

    def sampling(self) -> dict[str, Any]:
        """What hypercolumns are sampled from, as arguments of the library."""
        names = ("points", "image_size", "batch_index")
        return {"features": self.maps, **{name: getattr(self, name) for name in names}}

    def linear(self) -> dict[str, Any]:
        """The layer that follows, as arguments of the library."""
        return {"weight": self.weight, "bias": self.bias}

    def leaves(self) -> dict[str, Tensor]:
        """What gradients are taken for, by name."""
        maps = {f"map {i}": feature for i, feature in enumerate(self.maps)}
        return maps | self.linear()

    def requires_grad_(self, wanted: bool) -> Inputs:
        """Switch gradients on or off, in place."""
        for leaf in self.leaves().values():
            leaf.requires_grad_(wanted)
        return self

    def double(self) -> Inputs:
        """Copies in float64, for the reference."""
        maps = [m.detach().double() for m in self.maps]
        linear = {name: tensor.detach().double() for name, tensor in self.linear().items()}
        return replace(self, maps=maps, **linear)


def make_inputs(workload: Workload, device: torch.device, seed: int = 0) -> Inputs:
    """Normal features and weights; points as the paper samples them, distinct pixels drawn
    uniformly, or anywhere in the image."""
    generator = torch.Generator(device).manual_seed(seed)
    dtype = getattr(torch, workload.dtype)
    images, count = workload.images, workload.points
    height, width = workload.image_size

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device).to(dtype)

    if workload.pixels:
        order = torch.rand(images, height * width, generator=generator, device=device).argsort()
        pixels = order[:, :count]
        points = torch.stack([pixels % width, pixels // width], dim=-1)
    else:
        unit = torch.rand(images, count, 2, generator=generator, device=device)
        points = unit * torch.tensor([width, height], device=device) - 0.5
    index = None
    if workload.ragged:
        points = points.flatten(0, 1)
        index = torch.randint(images, (len(points),), generator=generator, device=device)
    layout = torch.channels_last if workload.channels_last else torch.contiguous_format
    return Inputs(
        [normal(images, *shape).contiguous(memory_format=layout) for shape in workload.layers],
        points,
        workload.image_size,
        normal(workload.out_features, workload.channels) / workload.channels**0.5,
        normal(workload.out_features),
        index,
    )


def rotated(inputs: Inputs) -> list[Inputs]:
    """The inputs, and on a GPU copies that together exceed its L2 cache, eight at most.

    Calls that take the copies in turn find none of their inputs there, as in a network, where
    other layers have run in between. Caches are emptied between cold calls, besides (timing.py).
    """
    if inputs.weight.device.type == "cpu":
        return [inputs]
    size = inputs.points.nbytes + sum(leaf.nbytes for leaf in inputs.leaves().values())
    copies = min(8, math.ceil(ROTATED_BYTES / size))
    return [inputs, *(deepcopy(inputs) for _ in range(copies))]
