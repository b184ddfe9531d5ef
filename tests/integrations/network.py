"""A small network, its data and its loss, for the tests of trainers, compilers and exporters."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelnet_triton import HypercolumnLinear

__all__ = ["Network", "batch_of", "loss_of", "network"]

CLASSES = 4


class Network(nn.Module):
    """Two convolutions with strides 2 and 4, the fused layer, and a last linear layer."""

    def __init__(self, activation: str = "relu", **options: Any) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, 8, 3, 2, 1)
        self.coarse = nn.Conv2d(8, 12, 3, 2, 1)
        self.first = HypercolumnLinear([8, 12], 16, activation=activation, **options)
        self.last = nn.Linear(16, CLASSES)

    def forward(self, images: Tensor, points: Tensor, batch_index: Tensor | None = None) -> Tensor:
        fine = self.fine(images)
        maps = [fine, self.coarse(fine.relu())]
        size = (images.shape[2], images.shape[3])
        return self.last(self.first(maps, points, size, batch_index))


def network(activation: str = "relu", **options: Any) -> Network:
    """The same parameters every time."""
    torch.manual_seed(0)
    return Network(activation, **options)


def batch_of(
    images: int = 2, points: int = 10, size: int = 32, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """images (B, 3, S, S), points (B, N, 2) in pixels, and classes (B, N): always the same."""
    random = torch.Generator().manual_seed(seed)
    where = size * torch.rand(images, points, 2, generator=random) - 0.5
    labels = torch.randint(CLASSES, (images, points), generator=random)
    return torch.randn(images, 3, size, size, generator=random), where, labels


def loss_of(model: nn.Module, images: Tensor, points: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over all points."""
    return F.cross_entropy(model(images, points).flatten(0, 1).float(), labels.flatten())
