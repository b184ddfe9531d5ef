"""Joint transforms: image and target move together, kinds are respected, randomness is torch's."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pixelnet_triton.data import (
    ColourScale,
    Compose,
    Normalize,
    Pad,
    RandomCrop,
    RandomHorizontalFlip,
    RandomScale,
    Resize,
    collate,
)

HEIGHT, WIDTH = 12, 20
FILL = {"labels": 255.0, "edges": 255.0, "normals": 0.0, "depth": 0.0}


def sample_of(kind: str, height: int = HEIGHT, width: int = WIDTH) -> dict[str, Any]:
    """Every pixel's first channel is its number, which the target repeats: they must not part."""
    number = torch.arange(height * width, dtype=torch.float32).view(height, width) / 240
    if kind == "labels":
        target: Tensor = (number * 240).long() % 200
    elif kind == "edges":
        target = torch.zeros(height, width, dtype=torch.int64)
        target[:, width // 2] = 1
        target[1] = 255
    elif kind == "normals":
        target = F.normalize(torch.stack([number, 1 - number, torch.ones_like(number)]), dim=0)
    else:
        target = number + 1
    return {"image": number.expand(3, -1, -1).clone(), "target": target, "kind": kind, "name": "a"}


def augmentation() -> Compose:
    return Compose(
        [RandomScale((0.5, 1.0, 1.5)), ColourScale(), RandomCrop((8, 8)), RandomHorizontalFlip()]
    )


@pytest.mark.parametrize("kind", list(FILL))
def test_mirrors_image_and_target(kind: str) -> None:
    sample = sample_of(kind)
    mirrored = RandomHorizontalFlip(1.0)(sample)
    assert torch.equal(mirrored["image"], sample["image"].flip(-1))
    expected = sample["target"].flip(-1)
    if kind == "normals":
        expected = expected * torch.tensor([-1.0, 1.0, 1.0]).view(3, 1, 1)
    assert torch.equal(mirrored["target"], expected)
    assert torch.equal(RandomHorizontalFlip(0.0)(sample)["target"], sample["target"])


@pytest.mark.parametrize("kind", list(FILL))
def test_transforms_leave_the_sample_as_it_was(kind: str) -> None:
    sample, untouched = sample_of(kind), sample_of(kind)
    for seed in range(8):
        augmentation()(sample, generator=torch.Generator().manual_seed(seed))
    RandomHorizontalFlip(1.0)(sample)
    Normalize((0.5,) * 3, (0.1,) * 3)(sample)
    assert torch.equal(sample["image"], untouched["image"])
    assert torch.equal(sample["target"], untouched["target"])


def test_resizing_takes_labels_from_the_pixel_under_the_centre() -> None:
    sample = sample_of("labels", 6, 9)
    resized = Resize((2, 3))(sample)
    assert torch.equal(resized["target"], sample["target"][1::3, 1::3])  # centres of 3 x 3 pixels
    twice = Resize((12, 18))(sample)["target"]
    assert torch.equal(twice, sample["target"].repeat_interleave(2, 0).repeat_interleave(2, 1))


def test_resizing_agrees_with_torch_for_odd_factors() -> None:
    sample = sample_of("labels", 13, 17)
    for size in ((7, 29), (5, 17), (31, 3)):
        resized = Resize(size)(sample)
        expected = F.interpolate(sample["target"][None, None].double(), size, mode="nearest-exact")
        assert torch.equal(resized["target"], expected[0, 0].long())
        assert resized["image"].shape == (3, *size)


def test_shrinking_an_image_averages_what_it_covers() -> None:
    """Stripes of one pixel in four become grey; two pixels in the middle of four see none."""
    stripes = (torch.arange(32) % 4 == 0).float().expand(3, 32, -1)
    for image in (stripes, stripes.mT):
        sample = {"image": image, "target": torch.zeros(32, 32).long(), "kind": "labels"}
        assert (Resize((8, 8))(sample)["image"] - 0.25).abs().max() < 0.1


def test_shrinking_keeps_thin_edges_whole() -> None:
    sample = sample_of("edges")
    half = RandomScale((0.5,))(sample)["target"]
    assert half.shape == (HEIGHT // 2, WIDTH // 2)
    assert (half[:, WIDTH // 4] == 1).sum() == HEIGHT // 2
    assert (half == 1).sum() == HEIGHT // 2
    assert (half[0] == 255).sum() == WIDTH // 2 - 1  # ignored, but for the edge
    assert (half[1:] == 255).sum() == 0


def test_random_scale_draws_every_factor() -> None:
    torch.manual_seed(0)
    scale = RandomScale((0.5, 1.0, 2.0))
    heights = {scale(sample_of("depth"))["image"].shape[1] for _ in range(40)}
    assert heights == {HEIGHT // 2, HEIGHT, 2 * HEIGHT}


@pytest.mark.parametrize("kind", list(FILL))
def test_padding_marks_the_target_unknown(kind: str) -> None:
    sample = sample_of(kind)
    padded = Pad((HEIGHT + 3, WIDTH + 5))(sample)
    image, target = padded["image"], padded["target"]
    assert image.shape[-2:] == target.shape[-2:] == (HEIGHT + 3, WIDTH + 5)
    assert torch.equal(target[..., :HEIGHT, :WIDTH], sample["target"])
    assert (target[..., HEIGHT:, :] == FILL[kind]).all()
    assert (target[..., :, WIDTH:] == FILL[kind]).all()
    assert image[:, HEIGHT:].abs().sum() == 0
    assert target.dtype == sample["target"].dtype


def test_crops_are_windows_of_the_sample_at_every_place() -> None:
    sample = sample_of("labels")
    corners = set()
    for seed in range(300):
        crop = RandomCrop((10, 18))(sample, generator=torch.Generator().manual_seed(seed))
        first = round(float(crop["image"][0, 0, 0]) * 240)
        top, left = divmod(first, WIDTH)
        corners.add((top, left))
        window = (slice(top, top + 10), slice(left, left + 18))
        assert torch.equal(crop["target"], sample["target"][window])
        assert torch.equal(crop["image"], sample["image"][(..., *window)])
    assert corners == {(top, left) for top in range(3) for left in range(3)}


def test_crop_larger_than_the_image_pads_it() -> None:
    crop = RandomCrop((HEIGHT + 4, 6))(sample_of("labels"))
    assert crop["image"].shape == (3, HEIGHT + 4, 6)
    assert (crop["target"] == 255).sum() == 4 * 6


def test_colour_scale_is_one_factor_a_channel() -> None:
    torch.manual_seed(1)
    sample = {**sample_of("labels"), "image": torch.ones(3, HEIGHT, WIDTH)}
    factors = torch.stack([ColourScale()(sample)["image"] for _ in range(200)])
    assert torch.equal(factors, factors[..., :1, :1].expand_as(factors))
    drawn = factors[..., 0, 0]
    assert 0.8 <= drawn.min() < 0.82
    assert 1.28 < drawn.max() <= 1.3
    assert (drawn[:, 0] != drawn[:, 1]).all()


def test_normalize() -> None:
    sample = sample_of("labels")
    image = Normalize((0.1, 0.2, 0.3), (1.0, 0.5, 0.25))(sample)["image"]
    assert torch.allclose(image[2], (sample["image"][2] - 0.3) * 4)


def test_a_generator_decides_everything() -> None:
    def run(seed: int) -> tuple[Tensor, Tensor]:
        out = augmentation()(sample_of("labels"), generator=torch.Generator().manual_seed(seed))
        return out["image"], out["target"]

    state = torch.get_rng_state()
    outcomes = [run(seed) for seed in range(6)]
    assert torch.equal(torch.get_rng_state(), state)
    for seed, (image, target) in enumerate(outcomes):
        again = run(seed)
        assert torch.equal(again[0], image)
        assert torch.equal(again[1], target)
    assert len({tuple(target.flatten().tolist()) for _, target in outcomes}) > 1


class Crops(Dataset[dict[str, Any]]):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, Any]:
        return augmentation()(sample_of("labels"))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_are_seeded_by_the_loader(start: str) -> None:
    def epoch(seed: int) -> Tensor:
        loader = DataLoader(
            Crops(),
            batch_size=1,
            num_workers=2,
            multiprocessing_context=start,
            collate_fn=collate,
            generator=torch.Generator().manual_seed(seed),
        )
        return torch.cat([batch["image"] for batch in loader])

    first = epoch(1)
    assert torch.equal(epoch(1), first)
    assert len({tuple(image.flatten().tolist()) for image in first}) == 6


def test_transforms_can_be_pickled() -> None:
    every = Compose(
        [augmentation(), Resize((4, 4)), Pad((5, 5)), Normalize((0.5,) * 3, (1.0,) * 3)]
    )
    sample = sample_of("normals")
    again = pickle.loads(pickle.dumps(every))
    one, other = (f(sample, generator=torch.Generator().manual_seed(3)) for f in (every, again))
    assert torch.equal(one["target"], other["target"])


@pytest.mark.parametrize("kind", list(FILL))
def test_collate_pads_to_the_largest(kind: str) -> None:
    batch = collate([sample_of(kind, 4, 9), sample_of(kind, 7, 5)])
    assert batch["image"].shape == (2, 3, 7, 9)
    assert batch["target"].shape[-2:] == (7, 9)
    assert batch["kind"] == kind
    assert batch["name"] == ["a", "a"]
    assert (batch["target"][0][..., 4:, :] == FILL[kind]).all()
    assert (batch["target"][1][..., :, 5:] == FILL[kind]).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomHorizontalFlip(1.5), r"probability=1\.5; expected a number in \[0, 1\]"),
        (lambda: RandomScale(()), r"scales=\(\); expected at least one factor"),
        (lambda: RandomScale((0.5, -1.0)), "all positive"),
        (lambda: Resize((0, 4)), r"size=\(0, 4\); expected \(height, width\)"),
        (lambda: ColourScale(1.3, 0.8), "expected 0 < low <= high"),
        (lambda: Normalize((0.5,), (0.0,)), "std positive"),
        (lambda: Pad((4, 4))(sample_of("labels")), "Pad only adds"),
        (lambda: collate([]), "at least one sample"),
        (lambda: collate([sample_of("labels"), sample_of("depth")]), "all alike"),
        (lambda: RandomCrop((4, 4))({**sample_of("depth"), "kind": "flow"}), "'flow' is unknown"),
        (
            lambda: RandomCrop((4, 4))({**sample_of("normals"), "kind": "depth"}),
            r"target \(3, 12, 20\) of kind 'depth'",
        ),
    ],
)
def test_bad_input(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("key", ["image", "target", "kind"])
def test_sample_without_a_part(key: str) -> None:
    sample = sample_of("labels")
    del sample[key]
    with pytest.raises(KeyError, match=f"sample has no '{key}'"):
        RandomHorizontalFlip()(sample)
