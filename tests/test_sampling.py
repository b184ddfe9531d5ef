"""The samplers: which pixels, how often, in which order, and without waiting for a device."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from pixelnet_triton.sampling import (
    BiasedSampler,
    ClassBalancedSampler,
    SampledPixels,
    StratifiedSampler,
    UncertaintySampler,
    UniformSampler,
    margin_uncertainty,
)

Draw = Callable[..., SampledPixels]


def _uncertainty(n: int, **settings: object) -> Draw:
    """An uncertainty sampler whose scores are the labels, so that it is called as the others."""
    sampler = UncertaintySampler(n, **settings)  # type: ignore[arg-type]
    return lambda labels, **options: sampler(labels, score=labels.float(), **options)


SAMPLERS: dict[str, Callable[..., Draw]] = {
    "uniform": UniformSampler,
    "stratified": StratifiedSampler,
    "stratified_by_3": lambda n, **settings: StratifiedSampler(n, 3, **settings),
    "biased": BiasedSampler,
    "all_positive": lambda n, **settings: BiasedSampler(n, 1.0, **settings),
    "balanced": lambda n, **settings: ClassBalancedSampler(n, 5, **settings),
    "balanced_by_id": ClassBalancedSampler,
    "uncertainty": _uncertainty,
}
each_sampler = pytest.mark.parametrize("name", SAMPLERS)


def seeded(device: torch.device, seed: int = 1989) -> torch.Generator:
    """Not the seed of conftest.py, whose random labels would be the samplers' random numbers."""
    return torch.Generator(device).manual_seed(seed)


def indices(pixels: SampledPixels, width: int) -> Tensor:
    """``(B, N)`` row-major pixel numbers."""
    return (pixels.points[..., 1] * width + pixels.points[..., 0]).cpu()


def labels_of(*valid_counts: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """Labels 0 to 4 with so many valid pixels per image, at random places; 255 elsewhere."""
    pixels = size[0] * size[1]
    place = torch.rand(len(valid_counts), pixels).argsort(dim=1)
    labels = torch.randint(0, 5, place.shape)
    labels[place >= torch.tensor(valid_counts)[:, None]] = 255
    return labels.view(-1, *size).to(device)


@each_sampler
def test_valid_pixels_without_repeats(name: str, device: torch.device) -> None:
    labels = labels_of(40, 41, 100, 299, 300, size=(12, 25), device=device)
    pixels = SAMPLERS[name](40)(labels, generator=seeded(device))
    assert pixels.points.shape == (5, 40, 2)
    assert pixels.points.dtype == torch.int64
    assert pixels.valid.all()
    assert (pixels.take(labels) != 255).all()
    for image in indices(pixels, 25):
        assert image.unique().numel() == 40


@each_sampler
@pytest.mark.parametrize("n", [64, 100, 1000])
def test_repeats_are_spread_evenly(name: str, n: int, device: torch.device) -> None:
    """More points than valid pixels, and than pixels."""
    counts = (1, 2, 30, 62, 63)
    labels = labels_of(*counts, size=(7, 9), device=device)
    pixels = SAMPLERS[name](n)(labels, generator=seeded(device))
    assert pixels.valid.all()
    for count, image, truth in zip(counts, indices(pixels, 9), labels.cpu(), strict=True):
        times = image.bincount(minlength=63)
        assert (times[truth.flatten() == 255] == 0).all()
        times = times[truth.flatten() != 255]
        assert times.min() == n // count
        assert times.max() == math.ceil(n / count)


@each_sampler
def test_image_without_valid_pixels(name: str, device: torch.device) -> None:
    labels = labels_of(30, 0, 63, size=(7, 9), device=device)
    pixels = SAMPLERS[name](20)(labels, generator=seeded(device))
    assert pixels.valid.all(1).tolist() == [True, False, True]
    assert not pixels.valid[1].any()
    x, y = pixels.points.unbind(-1)
    assert ((x >= 0) & (x < 9) & (y >= 0) & (y < 7)).all()
    assert (pixels.take(labels)[1] == 255).all()
    assert (pixels.take(labels, fill=-1)[1] == -1).all()
    depth = pixels.take(torch.ones(3, 7, 9, device=device))
    assert depth[1].tolist() == [0] * 20
    assert (depth[[0, 2]] == 1).all()
    normals = pixels.take(torch.ones(3, 3, 7, 9, device=device), fill=7)
    assert (normals[1] == 7).all()


@each_sampler
def test_a_seed_gives_the_same_points(name: str, device: torch.device) -> None:
    labels = torch.zeros(2, 40, 40, dtype=torch.int64, device=device)
    sampler = SAMPLERS[name](50)
    first = sampler(labels, generator=seeded(device)).points
    assert torch.equal(first, sampler(labels, generator=seeded(device)).points)
    assert not torch.equal(first, sampler(labels, generator=seeded(device, 1)).points)
    images = first.flatten(1).sort(1).values
    assert not torch.equal(images[0], images[1])


@each_sampler
def test_order_of_points(name: str, device: torch.device) -> None:
    labels = labels_of(300, 300, 10, size=(20, 30), device=device)
    drawn = {
        order: indices(SAMPLERS[name](60, order=order)(labels, generator=seeded(device)), 30)
        for order in (None, "rows", "morton")
    }
    assert torch.equal(drawn["rows"], drawn["rows"].sort(1).values)
    assert torch.equal(drawn["rows"], drawn["morton"].sort(1).values)  # the same points
    assert torch.equal(drawn["rows"], drawn[None].sort(1).values)
    assert not torch.equal(drawn["rows"], drawn[None])

    def interleave(index: int) -> int:
        y, x = divmod(index, 30)
        return int("".join(a + b for a, b in zip(f"{y:06b}", f"{x:06b}", strict=True)), 2)

    for image in drawn["morton"].tolist():
        assert image == sorted(image, key=interleave)


def chi_square(counts: Tensor, expected: float) -> float:
    """The probability that counts of equally likely, exclusive events are at least so uneven."""
    statistic = ((counts.double() - expected).square() / expected).sum().item()
    return survival(statistic, counts.numel() - 1)


def inclusion(index: Tensor, pixels: Tensor, n: int) -> float:
    """The same for how often each of `pixels` was drawn, n at a time without replacement.

    Counts have variance R p (1 - p) and sum to R n, which makes the statistic chi-square.
    """
    draws, p = index.shape[0], n / len(pixels)
    counts = index.flatten().bincount(minlength=int(pixels.max()) + 1)[pixels].double()
    statistic = (counts - draws * p).square().sum() / (draws * p * (1 - p))
    return survival((statistic * (1 - 1 / len(pixels))).item(), len(pixels) - 1)


def survival(statistic: float, freedom: int) -> float:
    """The probability of at least so much of a chi-square distribution."""
    halves = [torch.tensor(x / 2, dtype=torch.float64, device="cpu") for x in (freedom, statistic)]
    return float(torch.special.gammaincc(*halves))


def test_uniform_draws_every_pixel_equally_often(device: torch.device) -> None:
    labels = labels_of(150, size=(12, 15), device=device)
    known = (labels.cpu().flatten() != 255).nonzero().flatten()
    drawn = UniformSampler(40)(labels.expand(20000, -1, -1), generator=seeded(device))
    assert 1e-3 < inclusion(indices(drawn, 15), known, 40) < 1 - 1e-3
    # The test sees one pixel that is drawn about 8% too often.
    spoiled = indices(drawn, 15).clone()
    spoiled[:600, 0] = known[0]
    assert inclusion(spoiled, known, 40) < 1e-3


def test_uniform_draws_every_subset_equally_often(device: torch.device) -> None:
    labels = torch.zeros(20000, 2, 3, dtype=torch.int64, device=device)
    drawn = indices(UniformSampler(3)(labels, generator=seeded(device)), 3)
    codes = (1 << drawn).sum(1).bincount(minlength=64)
    subsets = [sum(1 << i for i in three) for three in itertools.combinations(range(6), 3)]
    assert codes[subsets].sum() == 20000
    assert 1e-3 < chi_square(codes[subsets], 1000) < 1 - 1e-3


def test_order_of_the_draw_is_random(device: torch.device) -> None:
    """The first point alone is uniform too: a prefix of a sample is a sample."""
    labels = torch.zeros(20000, 4, 5, dtype=torch.int64, device=device)
    first = indices(UniformSampler(7)(labels, generator=seeded(device)), 5)[:, 0]
    assert 1e-3 < chi_square(first.bincount(minlength=20), 1000) < 1 - 1e-3


@pytest.mark.parametrize("per_cell", [1, 2, 5])
def test_stratified_fills_every_cell(per_cell: int, device: torch.device) -> None:
    """A place of the grid exists at which every cell has its number of points."""
    sampler = StratifiedSampler(24 * per_cell, per_cell)
    assert sampler.grid(32, 48) == (4, 6)
    labels = torch.zeros(3, 32, 48, dtype=torch.int64, device=device)
    for points in sampler(labels, generator=seeded(device)).points.cpu():
        x, y = points.unbind(-1)
        places = [
            ((y + oy) % 32 // 8 * 6 + (x + ox) % 48 // 8).bincount(minlength=24)
            for oy in range(8)
            for ox in range(8)
        ]
        assert any((counts == per_cell).all() for counts in places)


def test_stratified_draws_every_pixel_equally_often(device: torch.device) -> None:
    """Also where the grid does not divide the image: cells have 2 or 3 rows and columns."""
    labels = torch.zeros(20000, 10, 13, dtype=torch.int64, device=device)
    sampler = StratifiedSampler(21)
    assert sampler.grid(10, 13) == (4, 5)
    times = indices(sampler(labels, generator=seeded(device)), 13).flatten().bincount()
    p = 21 / 130
    deviations = (times.double() - 20000 * p) / math.sqrt(20000 * p * (1 - p))
    assert deviations.abs().max() < 4  # of 130; a fixed grid gives 30
    assert deviations.square().mean() < 1.5


def test_stratified_on_half_an_image(device: torch.device) -> None:
    """Cells without valid pixels leave their points to the others; none is drawn twice."""
    labels = torch.zeros(1, 32, 48, dtype=torch.int64, device=device)
    labels[:, :, 24:] = 255
    pixels = StratifiedSampler(96)(labels, generator=seeded(device))
    index = indices(pixels, 48)[0]
    assert index.unique().numel() == 96
    assert (pixels.points[..., 0] < 24).all()
    # 8 x 12 cells of 4 x 4 pixels: at least one point in any 7 x 7 that are valid.
    x, y = pixels.points[0].cpu().unbind(-1)
    assert all(
        ((x - left) // 7 == 0).logical_and((y - top) // 7 == 0).any()
        for left in range(24 - 7)
        for top in range(32 - 7)
    )


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_biased_fraction_is_exact(fraction: float, device: torch.device) -> None:
    """Table 6 of the paper; sizes of a real batch."""
    labels = (torch.rand(5, 224, 224) < 0.1).long().to(device)
    labels[:, :20] = 255
    pixels = BiasedSampler(2000, fraction)(labels, generator=seeded(device))
    taken = pixels.take(labels)
    assert (taken == 1).sum(1).tolist() == [round(2000 * fraction)] * 5
    assert (taken == 0).sum(1).tolist() == [2000 - round(2000 * fraction)] * 5
    assert all(image.unique().numel() == 2000 for image in indices(pixels, 224))


@pytest.mark.parametrize("n", range(1, 12))
@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.3, 0.5, 0.9])
def test_biased_fraction_is_rounded(fraction: float, n: int, device: torch.device) -> None:
    labels = (torch.arange(400) % 2).view(1, 20, 20).to(device)
    taken = BiasedSampler(n, fraction)(labels, generator=seeded(device)).take(labels)
    assert int(taken.sum()) == round(fraction * n)


def test_biased_fills_up_from_the_other_kind(device: torch.device) -> None:
    labels = torch.zeros(4, 10, 20, dtype=torch.int64, device=device)
    labels[0, 0, :5] = 1  # 5 positives
    labels[1] = 1
    labels[1, 0, :5] = 3  # 5 negatives: any other label
    labels[2] = 255
    labels[2, 0, :10] = 1  # 10 positives and 20 negatives: fewer than n
    labels[2, 1] = 0
    pixels = BiasedSampler(100)(labels, generator=seeded(device))  # and no positive in the last
    positives = (pixels.take(labels) == 1).sum(1).tolist()
    assert positives[:2] == [5, 95]
    assert 30 <= positives[2] <= 40  # each pixel three times or four
    assert positives[3] == 0
    assert all(indices(pixels, 20)[i].unique().numel() == 100 for i in (0, 1, 3))


def test_biased_draws_each_kind_uniformly(device: torch.device) -> None:
    labels = torch.zeros(4000, 8, 10, dtype=torch.int64, device=device)
    labels[:, 2, 3:9] = labels[:, 5] = 1  # 16 positives, 64 negatives
    index = indices(BiasedSampler(16, 0.25)(labels, generator=seeded(device)), 10)
    positive = labels[0].flatten().cpu() == 1
    chosen = positive[index]
    assert (chosen.sum(1) == 4).all()
    for kind, n in ((True, 4), (False, 12)):
        members = (positive == kind).nonzero().flatten()
        drawn = index[chosen == kind].view(4000, n)
        assert 1e-3 < inclusion(drawn, members, n) < 1 - 1e-3


@pytest.mark.parametrize("classes", [2, 21, 200])
def test_classes_are_balanced(classes: int, device: torch.device) -> None:
    """Numbers differ by at most one, in every one of 50 images."""
    labels = torch.randint(0, classes, (50, 90, 90), device=device)
    taken = ClassBalancedSampler(500)(labels, generator=seeded(device)).take(labels)
    counts = torch.stack([image.bincount(minlength=classes) for image in taken.cpu()])
    assert counts.min() == 500 // classes
    assert counts.max() == math.ceil(500 / classes)
    assert counts.float().mean(0).std() < 0.2  # the one more is not always the same class's


def test_small_classes_give_all_they_have(device: torch.device) -> None:
    labels = torch.zeros(1, 100, 100, dtype=torch.int64, device=device)
    labels[:, 50:] = 7
    labels[:, 0, :30], labels[:, 1, :3], labels[:, 2] = 20, 11, 255
    taken = ClassBalancedSampler(1000, 21)(labels, generator=seeded(device)).take(labels)
    counts = taken[0].bincount(minlength=21).tolist()
    assert (counts[20], counts[11]) == (30, 3)
    assert sorted([counts[0], counts[7]]) == [483, 484]


def test_balanced_draws_each_class_uniformly(device: torch.device) -> None:
    labels = torch.zeros(4000, 8, 10, dtype=torch.int64, device=device)
    labels[:, 2, 3:9] = labels[:, 5] = 3
    index = indices(ClassBalancedSampler(8, 4)(labels, generator=seeded(device)), 10)
    members = labels[0].flatten().cpu()
    for kind in (0, 3):
        drawn = index[members[index] == kind].view(4000, 4)
        assert 1e-3 < inclusion(drawn, (members == kind).nonzero().flatten(), 4) < 1 - 1e-3


def test_uncertainty_takes_the_highest_scores(device: torch.device) -> None:
    score = torch.rand(3, 12, 15).to(device)
    valid = torch.rand(3, 12, 15).to(device) < 0.8
    sampler = UncertaintySampler(30, oversample=1000, important=1)
    pixels = sampler(valid=valid, score=score, generator=seeded(device))
    expected = torch.where(valid, score, -1).flatten(1).topk(30).values
    assert torch.equal(pixels.take(score).sort(1, descending=True).values, expected)


def test_uncertainty_shares(device: torch.device) -> None:
    """About a third of 3 n candidates score 1: half of n is chosen by score, half by chance."""
    labels = torch.zeros(20, 60, 60, dtype=torch.int64, device=device)
    score = (torch.rand(20, 60, 60) < 1 / 3).float().to(device)
    pixels = UncertaintySampler(400, 3, 0.5)(labels, score=score, generator=seeded(device))
    high = pixels.take(score).sum(1).cpu()
    # 200 by score; 200 uniformly from the other 1,000 candidates, of which about 200 score 1.
    assert (high >= 200).all()
    assert abs(high.mean().item() - 240) < 6
    assert all(image.unique().numel() == 400 for image in indices(pixels, 60))


def test_uncertainty_by_a_function_of_points(device: torch.device) -> None:
    labels = labels_of(200, 500, 0, size=(20, 30), device=device)
    score = torch.rand(3, 20, 30, device=device, requires_grad=True)

    def at(points: Tensor) -> Tensor:
        assert points.shape == (3, 300, 2)
        assert not torch.is_grad_enabled()
        return score[torch.arange(3)[:, None], points[..., 1], points[..., 0]]

    sampler = UncertaintySampler(100)
    by_map = sampler(labels, score=score, generator=seeded(device))
    assert torch.equal(by_map.points, sampler(labels, score=at, generator=seeded(device)).points)


def test_uncertainty_defaults_are_pointrends() -> None:
    """Section 3.1 of arXiv 1912.08193 and its experiments: k = 3, beta = 0.75."""
    sampler = UncertaintySampler(100)
    assert (sampler.oversample, sampler.important) == (3.0, 0.75)


def test_margin_uncertainty() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.5], [0.0, 0.0, -1.0]])
    assert margin_uncertainty(scores).tolist() == [-0.5, 0.0]
    assert margin_uncertainty(torch.tensor([[-2.0], [0.5]])).tolist() == [-2.0, -0.5]


@each_sampler
def test_nothing_depends_on_values(name: str) -> None:
    """Fake tensors have no values: reading one, or a shape that depends on one, raises."""
    with FakeTensorMode():
        labels = torch.zeros(2, 30, 40, dtype=torch.int64)
        for order in (None, "rows", "morton"):
            pixels = SAMPLERS[name](500, order=order)(labels, generator=seeded(labels.device))
            assert pixels.take(labels).shape == (2, 500)
            assert pixels.take(torch.zeros(2, 3, 30, 40)).shape == (2, 500, 3)


@each_sampler
def test_no_wait_for_the_device(name: str, device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("needs a CUDA device")
    labels = labels_of(900, 0, size=(30, 40), device=device)
    sampler, generator = SAMPLERS[name](500), seeded(device)
    sampler(labels, generator=generator).take(labels)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls the mode a prototype
            torch.cuda.set_sync_debug_mode("error")
        sampler(labels, generator=generator).take(labels)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_take_is_indexing(device: torch.device) -> None:
    labels = torch.randint(0, 200, (3, 11, 17), dtype=torch.uint8, device=device)
    normals = torch.randn(3, 4, 11, 17, device=device).to(memory_format=torch.channels_last)
    pixels = UniformSampler(25)(labels, generator=seeded(device))
    assert pixels.take(labels).dtype == torch.uint8
    for b, n in itertools.product(range(3), range(25)):
        x, y = pixels.points[b, n].tolist()
        assert pixels.take(labels)[b, n] == labels[b, y, x]
        assert torch.equal(pixels.take(normals)[b, n], normals[b, :, y, x])


def test_masks_and_other_ignored_values(device: torch.device) -> None:
    depth = torch.rand(1, 10, 10, device=device) - 0.5
    taken = UniformSampler(20)(depth, valid=depth > 0, generator=seeded(device)).take(depth)
    assert (taken > 0).all()
    labels = torch.arange(100, device=device).view(1, 10, 10)
    valid = labels % 2 == 0
    drawn = UniformSampler(49, ignore_index=4)(labels, valid=valid, generator=seeded(device))
    expected = [i for i in range(0, 100, 2) if i != 4]
    assert drawn.take(labels)[0].sort().values.tolist() == expected
    everything = UniformSampler(100, ignore_index=None)(labels + 200, generator=seeded(device))
    assert indices(everything, 10).unique().numel() == 100
    # As uint8, -100 is 156.
    small = torch.full((1, 10, 10), 156, dtype=torch.uint8, device=device)
    assert UniformSampler(5, ignore_index=-100)(small, generator=seeded(device)).valid.all()


@each_sampler
def test_empty_batch(name: str, device: torch.device) -> None:
    labels = torch.zeros(0, 5, 6, dtype=torch.int64, device=device)
    pixels = SAMPLERS[name](7)(labels, generator=seeded(device))
    assert pixels.points.shape == (0, 7, 2)
    assert pixels.take(labels).shape == (0, 7)


LABELS = torch.zeros(2, 8, 8, dtype=torch.int64)
BAD: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "no points": (lambda: UniformSampler(0), ValueError, "n=0 draws nothing"),
    "float n": (lambda: UniformSampler(2e3), TypeError, "n=2000.0 is a float"),
    "per_cell": (lambda: StratifiedSampler(9, 0), ValueError, "per_cell=0"),
    "fraction": (lambda: BiasedSampler(9, 50), ValueError, "positive_fraction=50"),
    "important": (lambda: UncertaintySampler(9, important=-1), ValueError, "important=-1"),
    "oversample": (lambda: UncertaintySampler(9, 0.5), ValueError, "oversample=0.5"),
    "order": (lambda: UniformSampler(9, order="z"), ValueError, "order='z' is unknown"),
    "nothing": (lambda: UniformSampler(9)(), TypeError, "neither labels nor valid"),
    "one image": (lambda: UniformSampler(9)(LABELS[0]), ValueError, r"expected \(B, H, W\)"),
    "no pixels": (lambda: UniformSampler(9)(LABELS[:, :0]), ValueError, "at least one pixel"),
    "mask": (lambda: UniformSampler(9)(LABELS, valid=LABELS), TypeError, "expected bool"),
    "mask shape": (
        lambda: UniformSampler(9)(LABELS, valid=LABELS[:1] == 0),
        ValueError,
        "the same pixels",
    ),
    "depth": (lambda: UniformSampler(9)(LABELS.float()), TypeError, "valid=mask"),
    "float classes": (
        lambda: BiasedSampler(9)(LABELS.float(), valid=LABELS == 0),
        TypeError,
        "BiasedSampler draws by class",
    ),
    "no classes": (
        lambda: ClassBalancedSampler(9)(valid=LABELS == 0),
        TypeError,
        "ClassBalancedSampler draws by class",
    ),
    "class": (lambda: ClassBalancedSampler(9, 3)(LABELS + 5), ValueError, "the class 5"),
    "negative": (lambda: ClassBalancedSampler(9, 3)(LABELS - 1), ValueError, "the class -1"),
    "target size": (
        lambda: UniformSampler(9)(LABELS).take(torch.zeros(2, 9, 8)),
        ValueError,
        r"target is \(9, 8\) pixels",
    ),
    "target rank": (
        lambda: UniformSampler(9)(LABELS).take(torch.zeros(2, 8)),
        ValueError,
        r"\(B, K, H, W\)",
    ),
    "bool target": (lambda: UniformSampler(9)(LABELS).take(LABELS == 0), TypeError, "fill="),
    "int8 target": (
        lambda: UniformSampler(9)(LABELS).take(LABELS.to(torch.int8)),
        TypeError,
        "255",
    ),
    "scores": (
        lambda: UncertaintySampler(9)(LABELS, score=torch.zeros(2, 9, 9)),
        ValueError,
        "score",
    ),
    "point scores": (
        lambda: UncertaintySampler(9)(LABELS, score=lambda points: torch.zeros(2, 5)),
        ValueError,
        "score",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    act, error, message = BAD[name]
    with pytest.raises(error, match=message):
        act()
