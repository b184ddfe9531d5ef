"""Several ranks: each has its own images and its own random numbers, and they share the work."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from pixelnet_triton.models import VGG16, PixelMLP, PixelNet
from pixelnet_triton.recipes import TaskCard, evaluate
from pixelnet_triton.recipes.ranks import (
    Batches,
    Share,
    expected_ranks,
    first_process,
    meeting_place,
)
from pixelnet_triton.sampling import SampledPixels, UniformSampler
from pixelnet_triton.training import PixelNetModule, Segmentation, StepLoader


@pytest.fixture
def as_rank(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that makes this process a rank of a world."""

    def become(rank: int, world: int) -> None:
        monkeypatch.setattr(dist, "is_initialized", lambda: True)
        monkeypatch.setattr(dist, "get_rank", lambda: rank)
        monkeypatch.setattr(dist, "get_world_size", lambda: world)
        monkeypatch.setattr(dist, "get_backend", lambda: "gloo")

    return become


def samples(count: int) -> list[dict[str, Any]]:
    """Images whose target is their number."""
    return [
        {"image": torch.zeros(3, 4, 4), "target": torch.full((4, 4), i), "kind": "labels"}
        for i in range(count)
    ]


def images_of(loader: StepLoader) -> list[list[int]]:
    return [batch["target"][:, 0, 0].tolist() for batch in loader]


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_divide_every_mini_batch(world: int, as_rank: Any) -> None:
    """Step by step, the ranks' images together are those of one process with world * M."""
    whole = images_of(StepLoader(samples(24), 2 * world, seed=3))
    shares = []
    for rank in range(world):
        as_rank(rank, world)
        shares.append(images_of(StepLoader(samples(24), 2, seed=3)))
    assert all(len(share) == len(whole) for share in shares)
    for step, images in enumerate(whole):
        assert [image for share in shares for image in share[step]] == images
    seen = [image for share in shares for batch in share for image in batch]
    assert sorted(seen) == list(range(24))


def test_transforms_do_not_depend_on_the_rank(as_rank: Any) -> None:
    """An image is augmented alike whoever reads it: by (seed, epoch, image)."""

    def noise(sample: dict, *, generator: torch.Generator) -> dict:
        return {**sample, "image": torch.rand(3, 4, 4, generator=generator)}

    def drawn(world: int) -> dict[int, float]:
        values = {}
        for rank in range(world):
            as_rank(rank, world)
            for batch in StepLoader(samples(12), 2, transform=noise):
                for image, target in zip(batch["image"], batch["target"], strict=True):
                    values[int(target[0, 0])] = float(image[0, 0, 0])
        return values

    assert drawn(1) == drawn(2) == drawn(3)


class Recorded(Segmentation):
    """Remembers the points of each draw, and the state of the global generator then."""

    drawn: list[tuple[Tensor, int]]

    def sample(self, target: Tensor, *, generator: torch.Generator | None) -> SampledPixels:
        pixels = super().sample(target, generator=generator)
        self.drawn.append((pixels.points, torch.initial_seed()))
        return pixels


class At:
    """What `training_step` asks of a trainer."""

    def __init__(self, rank: int, step: int) -> None:
        self.global_rank = rank
        self.global_step = step


def draw(seed: int = 7, rank: int = 0, step: int = 0, batch: int = 0) -> tuple[Tensor, int]:
    """The points of one training step, and the seed of its dropout."""
    task = Recorded(2, UniformSampler(40))
    object.__setattr__(task, "drawn", [])
    backbone = VGG16(("conv1_1",), width=1 / 16)
    model = PixelNet(backbone, PixelMLP(backbone.channels, (), out_features=2), output="softmax")
    module = PixelNetModule(model, task, seed=seed)
    module._trainer = At(rank, step)  # type: ignore[assignment]
    module.log = lambda *_, **__: None  # type: ignore[assignment, method-assign]
    data = {"image": torch.rand(1, 3, 32, 32), "target": torch.zeros(1, 32, 32).long()}
    module.training_step(data, batch)
    return task.drawn[0]


def test_a_step_is_a_function_of_seed_rank_step_and_batch() -> None:
    torch.manual_seed(1)
    first, dropout = draw()
    torch.manual_seed(2)
    again, dropout_again = draw()
    assert torch.equal(first, again)
    assert dropout == dropout_again
    for change in ({"seed": 8}, {"rank": 1}, {"step": 1}, {"batch": 1}):
        points, other = draw(**change)
        assert not torch.equal(first, points), change
        assert dropout != other, f"dropout is the same for {change}"
    # Rank and step do not stand for each other: rank 1 of step 0 is not rank 0 of step 1.
    assert not torch.equal(draw(rank=1)[0], draw(step=1)[0])


@pytest.mark.parametrize("world", [2, 3, 7])
def test_ranks_share_the_evaluation(world: int, as_rank: Any) -> None:
    data = samples(7)
    shares = []
    for rank in range(world):
        as_rank(rank, world)
        shares.append([int(batch["target"][0, 0, 0]) for batch in Batches(data)])
        assert len(Batches(data)) == len(Share(7)) == len(shares[-1])
    assert sorted(image for share in shares for image in share) == list(range(7))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_with_fewer_images_than_ranks_each_is_counted_once(as_rank: Any) -> None:
    """But a validation is of all images on each rank: Lightning would wait for one without any."""
    shares = []
    for rank in range(4):
        as_rank(rank, 4)
        shares.append(list(Share(2)))
        assert len(Batches(samples(2))) == len(list(Batches(samples(2)))) == 2
    assert shares == [[0], [1], [], []]


def test_ranks_meet_where_their_backend_takes_tensors(
    as_rank: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NCCL knows no tensors of the CPU. (A meta device stands for the GPU.)"""
    model = torch.nn.Linear(2, 2, device="meta")
    assert meeting_place(model).type == "cpu"
    as_rank(0, 2)
    assert meeting_place(model).type == "cpu"
    monkeypatch.setattr(dist, "get_backend", lambda: "cpu:gloo,cuda:nccl")
    assert meeting_place(model).type == "meta"


@pytest.mark.parametrize(
    ("variables", "options", "expected"),
    [
        ({}, {}, (1, True)),
        ({}, {"devices": "2"}, (2, True)),
        ({}, {"devices": 2, "num_nodes": 3}, (6, True)),
        ({"LOCAL_RANK": "1"}, {"devices": 2}, (2, False)),  # started by Lightning's rank 0
        (
            {"WORLD_SIZE": "4", "RANK": "2", "LOCAL_RANK": "0", "GROUP_RANK": "1"}
            | {"LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "1"},  # of torchrun
            {"devices": 2, "num_nodes": 2, "strategy": "ddp"},
            (4, False),
        ),
    ],
)
def test_the_ranks_of_a_training_are_known_before_it(
    variables: dict[str, str],
    options: dict[str, Any],
    expected: tuple[int, bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rank_zero_only, "rank", 0)  # which Lightning sets for the whole process
    assert expected_ranks({"accelerator": "cpu", **options}) == expected


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")
def test_evaluation_sees_each_image_of_its_share(
    as_rank: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two ranks predicts two of five images, and is not the one that reports."""
    backbone = VGG16(("conv1_1",), width=1 / 16)
    model = PixelNet(backbone, PixelMLP(backbone.channels, (), out_features=5), output="softmax")
    card = TaskCard("segmentation", "toy", classes=tuple("abcde"))
    kept: list[str] = []
    as_rank(1, 2)
    assert not first_process()
    # The metric would gather from the other rank, which is not there.
    monkeypatch.setattr("torchmetrics.metric.jit_distributed_available", lambda: False)
    evaluate(model, card, samples(5), keep=lambda name, _: kept.append(name), progress=False)
    assert kept == ["1", "3"]
    as_rank(6, 7)  # one of more ranks than images counts nothing, and takes part in the exchange
    assert evaluate(model, card, samples(5), progress=False).confusion == [[0] * 5] * 5
    as_rank(0, 2)
    assert first_process()


def test_a_position_is_of_as_many_ranks(as_rank: Any) -> None:
    loader = StepLoader(samples(12), 2)
    next(iter(loader))
    state = loader.state_dict()
    as_rank(0, 2)
    with pytest.raises(ValueError, match="world is 2, but 1 in the checkpoint: the rest of its"):
        StepLoader(samples(12), 2).load_state_dict(state)
