"""Samples and the ranks that share them."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import nn

from ..data import Sample, collate
from ..data.folders import position
from ..training.lightning import MisconfigurationException, Trainer

__all__ = [
    "Batches", "First", "Samples", "Share", "expected_ranks", "first_process", "meeting_place",
    "share_statistics", "torchruns_ranks",
]  # fmt: skip


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
        self._indices = range(dist.get_rank() if _has_ranks() else 0, count, _world())

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices)


class Batches:
    """This rank's samples, as batches of one: what a validation goes through.

    With fewer samples than ranks each takes all. A rank without any would leave the validation out,
    while the others wait for its counts; and metrics are ratios.
    """

    def __init__(self, data: Samples) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self._indices())

    def __iter__(self) -> Iterator[dict[str, object]]:
        for index in self._indices():
            yield collate([self.data[index]])

    def _indices(self) -> Sequence[int]:
        count = len(self.data)
        return range(count) if count < _world() else list(Share(count))


def first_process() -> bool:
    """Whether this process is the one that reports: rank 0, or the only one."""
    return not _has_ranks() or dist.get_rank() == 0


def share_statistics(model: nn.Module) -> None:
    """Give every rank the buffers of the first: running statistics are each rank's own."""
    if _has_ranks():
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def meeting_place(model: nn.Module) -> torch.device:
    """Where the ranks exchange tensors: NCCL takes those on the model's GPU, others the CPU's."""
    if _has_ranks() and "nccl" in dist.get_backend():
        return next(model.parameters()).device
    return torch.device("cpu")


def expected_ranks(options: dict[str, Any]) -> tuple[int, bool]:
    """The number of ranks of a training that has not begun, and whether this one is the first.

    Args:
        options: of ``lightning.Trainer``, which counts devices, nodes, and what torchrun and
            clusters say in the environment.

    Raises:
        ValueError: Lightning refuses one of those that choose the machine.
    """
    chosen = ("accelerator", "devices", "num_nodes", "strategy", "precision")
    asked = {name: options[name] for name in chosen if name in options}
    reports = logging.getLogger("lightning.pytorch")
    level = reports.level
    reports.setLevel(logging.ERROR)  # the trainer of the training says it all
    try:
        # A copy: a strategy belongs to the trainer that it was given to.
        trainer = Trainer(logger=False, enable_checkpointing=False, **copy.deepcopy(asked))
    except (MisconfigurationException, RuntimeError, TypeError, ValueError) as error:
        given = ", ".join(f"{name}={value!r}" for name, value in asked.items())
        raise ValueError(f"Lightning cannot train with {given}: {error}") from error
    finally:
        reports.setLevel(level)
    return trainer.world_size, trainer.is_global_zero


def torchruns_ranks() -> dict[str, int]:
    """The devices and nodes that torchrun has started processes for; nothing without torchrun.

    Lightning takes ``devices="auto"`` for the devices of the machine, and refuses to train where
    these are more or fewer than the processes.
    """
    try:
        world, local = (int(os.environ[f"{kind}WORLD_SIZE"]) for kind in ("", "LOCAL_"))
    except (KeyError, ValueError):
        return {}
    return {"devices": local, "num_nodes": world // local}


def _world() -> int:
    return dist.get_world_size() if _has_ranks() else 1


def _has_ranks() -> bool:
    return dist.is_available() and dist.is_initialized()
