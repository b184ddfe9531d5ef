"""What the examples train: a small segmentation network on drawn images, a few pixels of each.

The images show one to three coloured discs on noise; the classes are the background and the
colours. Nothing is downloaded, and a few steps on a CPU bring the loss down.
"""

from __future__ import annotations

from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from pixelnet_triton import HypercolumnLinear

__all__ = ["Discs", "Network", "Sample", "loss_of", "to_device"]

SIZE = 64
COLOURS = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
CLASSES = 1 + len(COLOURS)


class Sample(TypedDict):
    """One image, or several with a batch dimension in front."""

    image: Tensor  # (3, SIZE, SIZE)
    points: Tensor  # (N, 2) integers: (x, y)
    labels: Tensor  # (N,) the classes there


class Discs(Dataset[Sample]):
    """`length` images with `points` sampled pixels each; number i is always the same."""

    def __init__(self, length: int = 64, points: int = 100) -> None:
        self.length, self.points = length, points

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        random = torch.Generator().manual_seed(index)
        image = 0.3 * torch.rand(3, SIZE, SIZE, generator=random)
        target = torch.zeros(SIZE, SIZE, dtype=torch.int64)
        pixel = torch.arange(SIZE)
        for colour in torch.randperm(3, generator=random)[: 1 + index % 3]:
            x, y = torch.randint(SIZE, (2,), generator=random)
            disc = (pixel - x) ** 2 + (pixel[:, None] - y) ** 2 < (SIZE // 4) ** 2
            image = torch.where(disc, COLOURS[colour][:, None, None], image)
            target[disc] = 1 + colour
        points = torch.randint(SIZE, (self.points, 2), generator=random)
        return {"image": image, "points": points, "labels": target[points[:, 1], points[:, 0]]}


class Network(nn.Module):
    """Three convolutions, and an MLP on their hypercolumns at the sampled points."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            [nn.Conv2d(3, 16, 3, 1, 1), nn.Conv2d(16, 24, 3, 2, 1), nn.Conv2d(24, 32, 3, 2, 1)]
        )
        self.first = HypercolumnLinear([16, 24, 32], 64, activation="relu", strides=[1, 2, 4])
        self.last = nn.Linear(64, CLASSES)

    def forward(self, images: Tensor, points: Tensor) -> Tensor:
        """Scores ``(B, N, classes)``."""
        x, maps = images, []
        for stage in self.stages:
            x = F.relu(stage(x))
            maps.append(x)
        return self.last(self.first(maps, points, (images.shape[2], images.shape[3])))


def loss_of(model: nn.Module, batch: Sample) -> Tensor:
    """Mean cross-entropy over the batch's points."""
    scores = model(batch["image"], batch["points"])
    return F.cross_entropy(scores.flatten(0, 1), batch["labels"].flatten())


def to_device(batch: Sample, device: torch.device) -> Sample:
    """The same batch on `device`."""
    return {
        "image": batch["image"].to(device),
        "points": batch["points"].to(device),
        "labels": batch["labels"].to(device),
    }
