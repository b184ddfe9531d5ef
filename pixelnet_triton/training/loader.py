"""`StepLoader`: shuffled mini-batches that are a function of (seed, epoch, batch, rank) alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset

from ..data import collate as pad_and_stack
from ..tools.settings import whole_number

__all__ = ["FirstEpoch", "Sample", "StepLoader", "Transform", "derived_seed"]

Sample = dict[str, Any]


class Transform(Protocol):
    """A joint transform of image and target; all of its randomness comes from `generator`."""

    def __call__(self, sample: Sample, *, generator: torch.Generator) -> Sample: ...


class _Samples(Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...


def derived_seed(*parts: int) -> int:
    """A 64-bit seed from several integers, without the overlaps that adding them would have.

    Example:
        >>> from pixelnet_triton.training import derived_seed
        >>> derived_seed(1989, 0, 7) == derived_seed(1989, 0, 7) != derived_seed(1989, 7, 0)
        True
    """
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


class StepLoader:
    """M shuffled images a mini-batch, the same on every machine, resumable in mid-epoch.

    Epoch e visits the images in the order of a permutation drawn from (seed, e); the transform
    of an image draws from (seed, e, image). Under ``torch.distributed`` each rank takes every
    world-size'th group of M images of the same permutation. The last, incomplete mini-batch of
    an epoch is dropped.

    Its ``state_dict`` is the position of the next mini-batch, and what the mini-batches are.
    Lightning stores it in checkpoints, so a resumed run goes on with the images that the killed one
    would have seen.

    Args:
        dataset: items as :class:`pixelnet_triton.data.folders.PixelDataset` gives them.
        images_per_batch: M, on each rank.
        seed: of permutations and transforms.
        transform: a joint transform called as ``transform(sample, generator=...)``.
        workers: processes that read and transform; 0 does so in this one.
        collate: makes a mini-batch of a list of samples. By default the data set's own method of
            that name, where it has one (:class:`CachedFeatures`), else
            :func:`pixelnet_triton.data.collate`, which pads images of different sizes, with pixels
            that the samplers do not choose.

    Raises:
        ValueError: `images_per_batch`, `seed` or `workers` out of range, or fewer images than one
            mini-batch of all ranks needs.

    Example:
        >>> import torch
        >>> from pixelnet_triton.training import StepLoader
        >>> sample = {"image": torch.rand(3, 2, 2), "target": torch.ones(2, 2), "kind": "depth"}
        >>> data = [sample] * 7
        >>> loader = StepLoader(data, 2, seed=0)
        >>> len(loader), [batch["image"].shape[0] for batch in loader]
        (3, [2, 2, 2])
    """

    def __init__(
        self,
        dataset: _Samples,
        images_per_batch: int = 5,
        *,
        seed: int = 1989,
        transform: Transform | None = None,
        workers: int = 0,
        collate: Callable[[Sequence[Sample]], dict[str, Any]] | None = None,
    ) -> None:
        self.dataset = dataset
        self.images_per_batch = whole_number("images_per_batch", images_per_batch)
        self.seed = whole_number("seed", seed, least=0)
        self.transform = transform
        self.workers = whole_number("workers", workers, least=0)  # 0 is this process
        self.collate = getattr(dataset, "collate", pad_and_stack) if collate is None else collate
        self._epoch = 0
        self._batch = 0  # of the next mini-batch

    def __len__(self) -> int:
        """Mini-batches of a whole epoch, wherever the loader stands in it."""
        _, world = _rank_and_world()
        batches = len(self.dataset) // (self.images_per_batch * world)
        if batches == 0:
            raise ValueError(
                f"dataset has {len(self.dataset)} images; one mini-batch needs "
                f"{self.images_per_batch} on each of {world} processes. Lower images_per_batch"
            )
        return batches

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rest of the current epoch."""
        # A generator runs when the first batch is asked for: after the position was restored.
        epoch, first, batches = self._epoch, self._batch, len(self)
        loader: DataLoader[Sample] = DataLoader(
            _Keyed(self.dataset, self.transform),
            batch_sampler=self._indices(epoch)[first:],
            collate_fn=self.collate,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            # DataLoader draws from the global generator otherwise, and so would change dropout.
            generator=torch.Generator().manual_seed(derived_seed(self.seed, epoch)),
        )
        for position, batch in enumerate(loader, first):
            # Before the yield: nobody asks for a batch past the last, so nothing runs after it.
            done = position + 1 == batches
            self._epoch, self._batch = (epoch + 1, 0) if done else (epoch, position + 1)
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The position of the next mini-batch, and the mini-batches that it counts."""
        return {"epoch": self._epoch, "batch": self._batch, **self._order()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where `state` was taken.

        Raises:
            ValueError: the mini-batches were others there, and the position is of other images.
        """
        for name, here in self._order().items():
            if state.get(name, here) != here:
                raise ValueError(
                    f"{name} is {here}, but {state[name]} in the checkpoint: the rest of its epoch "
                    "would be of other images. Go on with the same images in mini-batches of the "
                    "same size on as many processes, or begin anew in another folder"
                )
        self._epoch, self._batch = state["epoch"], state["batch"]

    def _order(self) -> dict[str, int]:
        """What the images of a mini-batch depend on, besides its position."""
        return {
            "images_per_batch": self.images_per_batch,
            "world": _rank_and_world()[1],
            "length": len(self.dataset),
            "seed": self.seed,
        }

    def _indices(self, epoch: int) -> list[list[tuple[int, int]]]:
        """This rank's mini-batches of an epoch, as (image, seed of its transform)."""
        rank, world = _rank_and_world()
        generator = torch.Generator("cpu").manual_seed(derived_seed(self.seed, epoch))
        order = torch.randperm(len(self.dataset), generator=generator, device="cpu").tolist()
        step = self.images_per_batch * world
        batches = []
        for first in range(0, len(self) * step, step):
            start = first + rank * self.images_per_batch
            images = order[start : start + self.images_per_batch]
            batches.append([(image, derived_seed(self.seed, epoch, image)) for image in images])
        return batches


class FirstEpoch:
    """The first epoch of a loader, as often as it is gone through: for validations.

    All of them then measure the same images, whole, whether or not Lightning's check before the
    training has taken a few mini-batches.
    """

    def __init__(self, loader: StepLoader) -> None:
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        loader = copy.copy(self._loader)
        loader.load_state_dict({"epoch": 0, "batch": 0})
        return iter(loader)


class _Keyed(Dataset[Sample]):
    """The dataset behind (index, seed) pairs, with the transform applied."""

    def __init__(self, dataset: _Samples, transform: Transform | None) -> None:
        self.dataset = dataset
        self.transform = transform

    def __getitem__(self, item: tuple[int, int]) -> Sample:
        index, seed = item
        sample = self.dataset[index]
        if self.transform is None:
            return sample
        return self.transform(sample, generator=torch.Generator().manual_seed(seed))


def _rank_and_world() -> tuple[int, int]:
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1
