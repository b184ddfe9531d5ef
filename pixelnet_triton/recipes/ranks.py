"""Samples and the ranks that share them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch.distributed as dist
from torch import nn

from ..data import Sample, collate
from ..data.folders import position

__all__ = ["Batches", "First", "Samples", "Share", "first_process", "share_statistics"]


class Samples(Protocol):
    """A data set: its items are dicts of image, target, kind and name."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...


class First:
    """The first `count` samples of a data set, or all that there are."""

    def __init__(self, data: Samples, count: int) -> None:
        self.dataset = data
        self._count = min(count, len(data))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[position(index, self._count)]


class Share:
    """The numbers of the samples that are this rank's; of all of them without ranks."""

    def __init__(self, count: int) -> None:
        rank, world = (dist.get_rank(), dist.get_world_size()) if _has_ranks() else (0, 1)
        # With fewer samples than ranks each takes all: metrics are ratios, and none is without.
        self._indices = range(rank, count, world) if count >= world else range(count)

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices)


class Batches:
    """This rank's samples, as batches of one: what a validation goes through."""

    def __init__(self, data: Samples) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(Share(len(self.data)))

    def __iter__(self) -> Iterator[dict[str, object]]:
        for index in Share(len(self.data)):
            yield collate([self.data[index]])


def first_process() -> bool:
    """Whether this process is the one that reports: rank 0, or the only one."""
    return not _has_ranks() or dist.get_rank() == 0


def share_statistics(model: nn.Module) -> None:
    """Give every rank the buffers of the first: running statistics are each rank's own."""
    if _has_ranks():
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def _has_ranks() -> bool:
    return dist.is_available() and dist.is_initialized()
