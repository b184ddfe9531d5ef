"""What transforms are given: targets of every dtype, images that are not floating, bad settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pixelnet_triton.data import (
    ColourScale,
    Normalize,
    Pad,
    RandomCrop,
    RandomHorizontalFlip,
    RandomScale,
    Resize,
    collate,
)

HEIGHT, WIDTH = 6, 8
HALF = ((0.5,) * 3, (0.5,) * 3)
TRANSFORMS: dict[str, Callable[..., dict[str, Any]]] = {
    "mirrored": RandomHorizontalFlip(1.0),
    "not mirrored": RandomHorizontalFlip(0.0),
    "scaled": RandomScale((0.5,)),
    "not scaled": RandomScale((1.0,)),
    "resized": Resize((3, 5)),
    "padded": Pad((9, 11)),
    "not padded": Pad((HEIGHT, WIDTH)),
    "cut": RandomCrop((9, 5)),
    "coloured": ColourScale(),
    "normalised": Normalize(*HALF),
    "collated": lambda sample, generator: collate([sample]),
}
DTYPES = [torch.bool, torch.int8, torch.uint8, torch.int16, torch.uint16, torch.uint64]


def sample_of(target: Tensor, kind: str, image: Tensor | None = None) -> dict[str, Any]:
    if image is None:
        image = torch.linspace(0, 1, 3 * target.numel()).view(3, *target.shape)
    return {"image": image, "target": target, "kind": kind, "name": "a"}


@pytest.mark.parametrize("kind", ["labels", "edges"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_targets_of_every_dtype_give_what_int64_gives(
    name: str, dtype: torch.dtype, kind: str
) -> None:
    """bool cannot hold 255, and padded with True, everything beyond the image was positive."""
    target = (torch.arange(HEIGHT * WIDTH) % 5 == 0).view(HEIGHT, WIDTH)
    results = [
        TRANSFORMS[name](sample_of(t, kind), generator=torch.Generator().manual_seed(0))
        for t in (target.to(dtype), target.long())
    ]
    assert results[0]["target"].dtype == torch.int64
    assert torch.equal(results[0]["target"], results[1]["target"])
    assert torch.equal(results[0]["image"], results[1]["image"])


def test_collated_bool_edges_of_several_sizes() -> None:
    edges = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    batch = collate([sample_of(edges, "edges"), sample_of(edges[:4, :5], "edges")])
    target = batch["target"]
    assert isinstance(target, Tensor)
    assert (target == 1).sum((1, 2)).tolist() == [48, 20]
    assert (target == 255).sum((1, 2)).tolist() == [0, 28]


@pytest.mark.parametrize("transform", [ColourScale(), Normalize(*HALF)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool], ids=str)
def test_images_have_to_be_floating(transform: Any, dtype: torch.dtype) -> None:
    """0.9 as uint8 is 0."""
    image = torch.ones(3, HEIGHT, WIDTH).to(dtype)
    with pytest.raises(TypeError, match=rf"image is {dtype}; expected float.*\.float\(\) / 255"):
        transform(sample_of(torch.zeros(HEIGHT, WIDTH).long(), "labels", image))


@pytest.mark.parametrize(("channels", "numbers"), [(1, 3), (3, 1), (4, 3)])
def test_normalize_wants_a_number_for_each_channel(channels: int, numbers: int) -> None:
    sample = sample_of(torch.zeros(HEIGHT, WIDTH), "depth", torch.rand(channels, HEIGHT, WIDTH))
    with pytest.raises(ValueError, match=f"image has {channels} channels but .* {numbers} numbers"):
        Normalize((0.5,) * numbers, (0.5,) * numbers)(sample)


class TestEdges:
    @pytest.mark.parametrize("name", TRANSFORMS)
    def test_soft_ones_are_refused(self, name: str) -> None:
        """Resized, 0.7 would be no edge."""
        soft = sample_of(torch.full((HEIGHT, WIDTH), 0.7), "edges")
        with pytest.raises(TypeError, match=r"'edges' is torch\.float32; .*Threshold soft edges"):
            TRANSFORMS[name](soft, generator=None)

    @pytest.mark.parametrize("value", [2, -1, 254])
    def test_other_values_are_not_resized_away(self, value: int) -> None:
        edges = torch.zeros(HEIGHT, WIDTH, dtype=torch.int64)
        edges[2] = value
        for transform in (Resize((3, 4)), RandomScale((0.5,))):
            with pytest.raises(ValueError, match=rf"'edges' has the value {value}; expected 1 = "):
                transform(sample_of(edges, "edges"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Resize(224), r"size=224; expected \(height, width\).*\(224, 224\)"),
        (lambda: RandomCrop(224), r"size=224; expected \(height, width\)"),
        (lambda: Pad((4.0, 4)), r"size=\(4\.0, 4\); expected"),
        (lambda: RandomScale(0.5), r"scales=0\.5; expected at least one factor"),
        (lambda: RandomScale(np.array([0.5, -1])), "all positive and finite"),
        (lambda: RandomScale("1"), "scales='1'"),
        (lambda: Normalize(0.5, 0.5), r"mean=0\.5, std=0\.5; expected equally many finite"),
        (lambda: Normalize((float("nan"),), (1.0,)), r"mean=\(nan,\)"),
    ],
)
def test_bad_settings(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_arrays_of_factors() -> None:
    sample = sample_of(torch.ones(HEIGHT, WIDTH), "depth")
    assert RandomScale(np.array([0.5]))(sample)["target"].shape == (3, 4)  # type: ignore[arg-type]
