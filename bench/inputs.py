"""Random inputs of a workload, and copies to rotate through."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .workloads import Workload

__all__ = ["Inputs", "make_inputs", "rotated"]

#: Bytes that rotated inputs exceed on a GPU: twice the largest L2 cache in use (GB200: 126 MB).
ROTATED_BYTES = 256 << 20


@dataclass(frozen=True)
class Inputs:
    """Maps (B, C_i, H_i, W_i), points (B, N, 2) in pixels, weight (D, sum C_i), bias (D,)."""

    maps: list[Tensor]
    points: Tensor
    image_size: tuple[int, int]
    weight: Tensor
    bias: Tensor

    def leaves(self) -> dict[str, Tensor]:
        """What gradients are taken for, by name."""
        maps = {f"map {i}": feature for i, feature in enumerate(self.maps)}
        return {**maps, "weight": self.weight, "bias": self.bias}

    def requires_grad_(self, wanted: bool) -> Inputs:
        """Switch gradients on or off, in place."""
        for leaf in self.leaves().values():
            leaf.requires_grad_(wanted)
        return self

    def with_points(self, points: Tensor) -> Inputs:
        """The same maps and weights, at other points."""
        return Inputs(self.maps, points, self.image_size, self.weight, self.bias)

    def double(self) -> Inputs:
        """Copies in float64, for the reference."""
        maps = [m.detach().double() for m in self.maps]
        weight, bias = self.weight.detach().double(), self.bias.detach().double()
        return Inputs(maps, self.points, self.image_size, weight, bias)

    def clone(self) -> Inputs:
        """Copies at other addresses, layouts kept."""
        maps = [m.detach().clone() for m in self.maps]
        return Inputs(
            maps,
            self.points.clone(),
            self.image_size,
            self.weight.detach().clone(),
            self.bias.detach().clone(),
        )

    def bytes(self) -> int:
        """Of all tensors."""
        return sum(t.nbytes for t in (*self.maps, self.points, self.weight, self.bias))


def make_inputs(workload: Workload, device: torch.device, seed: int = 0) -> Inputs:
    """Normal features and weights, distinct pixels drawn uniformly, as the paper samples them."""
    generator = torch.Generator(device).manual_seed(seed)
    dtype = getattr(torch, workload.dtype)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device).to(dtype)

    height, width = workload.image_size
    pixels = torch.stack(
        [
            torch.randperm(height * width, generator=generator, device=device)[: workload.points]
            for _ in range(workload.images)
        ]
    )
    layout = torch.channels_last if workload.channels_last else torch.contiguous_format
    return Inputs(
        [
            normal(workload.images, *shape).contiguous(memory_format=layout)
            for shape in workload.layers
        ],
        torch.stack([pixels % width, pixels // width], dim=-1),
        workload.image_size,
        normal(workload.out_features, workload.channels) / workload.channels**0.5,
        normal(workload.out_features),
    )


def rotated(inputs: Inputs) -> list[Inputs]:
    """The inputs, and on a GPU as many copies as together exceed its L2 cache.

    Calls that take the copies in turn find none of their inputs there, as in a network, where
    other layers have run in between. A CPU's copies would only be more to allocate: between two
    calls of one peer all other peers run.
    """
    if inputs.weight.device.type == "cpu":
        return [inputs]
    copies = min(8, -(-ROTATED_BYTES // inputs.bytes()))
    return [inputs, *(inputs.clone() for _ in range(copies))]
