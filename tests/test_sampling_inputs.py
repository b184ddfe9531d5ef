"""What samplers are given: values that a dtype cannot hold, NaN, arrays, sizes beyond a canvas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pixelnet_triton.sampling import (
    BiasedSampler,
    ClassBalancedSampler,
    UncertaintySampler,
    UniformSampler,
    checks,
    pixels_of_images,
)

LABELS = torch.zeros(2, 8, 9, dtype=torch.int64)
NOTHING = torch.zeros(1, 3, 4, dtype=torch.bool)
NAN = float("nan")


class TestFill:
    @pytest.mark.parametrize(
        ("dtype", "fill"),
        [
            (torch.uint8, 300),
            (torch.uint8, -100),
            (torch.int8, 128),
            (torch.int64, 0.5),
            (torch.int64, NAN),
            (torch.bool, 2),
        ],
        ids=str,
    )
    def test_what_a_dtype_cannot_hold(self, dtype: torch.dtype, fill: float) -> None:
        """300 became 44, and 0.5 became 0."""
        pixels = UniformSampler(5)(valid=NOTHING)
        target = torch.zeros(1, 3, 4, dtype=dtype)
        with pytest.raises(TypeError, match=rf"target is {dtype}, .* hold fill={fill}; pass a"):
            pixels.take(target, fill=fill)

    @pytest.mark.parametrize(
        ("dtype", "fill"),
        [
            (torch.uint8, 255),
            (torch.int8, -100),
            (torch.int64, 7.0),
            (torch.bool, True),
            (torch.float32, 0.5),
            (torch.float32, NAN),
        ],
        ids=str,
    )
    def test_what_it_can(self, dtype: torch.dtype, fill: float) -> None:
        taken = UniformSampler(5)(valid=NOTHING).take(torch.zeros(1, 3, 4, dtype=dtype), fill=fill)
        assert taken.dtype == dtype
        np.testing.assert_array_equal(taken.numpy(), np.full((1, 5), fill))


class TestPositive:
    @pytest.mark.parametrize(
        ("positive", "dtype"),
        [(256, torch.uint8), (-100, torch.uint8), (200, torch.int8), (2, torch.bool)],
    )
    def test_labels_that_cannot_hold_it(self, positive: int, dtype: torch.dtype) -> None:
        """256 was compared with 0, -100 with 156."""
        with pytest.raises(ValueError, match=rf"labels is {dtype}, .* positive={positive}: no pix"):
            BiasedSampler(5, positive=positive)(LABELS.to(dtype))

    @pytest.mark.parametrize("dtype", [torch.uint16, torch.int16, torch.bool], ids=str)
    def test_labels_that_can(self, dtype: torch.dtype) -> None:
        labels = LABELS.clone()
        labels[:, 2:4] = 1
        pixels = BiasedSampler(10, 0.5)(labels.to(dtype))
        assert pixels.take(labels).sum(1).tolist() == [5, 5]


class TestScores:
    """topk ranks NaN above all numbers, as the least sure."""

    def test_nan_is_named(self) -> None:
        score = torch.rand(2, 8, 9)
        score[0, 3] = NAN
        with pytest.raises(ValueError, match=r"score is NaN at 9 points that may be .*valid="):
            UncertaintySampler(5)(LABELS, score=score)
        with pytest.raises(ValueError, match="score is NaN at 30 points that may be drawn"):
            UncertaintySampler(5)(LABELS, score=lambda points: torch.full((2, 15), NAN))

    def test_but_not_where_nothing_is_drawn(self) -> None:
        score = torch.rand(2, 8, 9)
        score[:, 3] = NAN
        labels = LABELS.clone()
        labels[:, 3] = 255
        pixels = UncertaintySampler(50)(labels, score=score)
        assert (pixels.points[..., 1] != 3).all()

    def test_where_values_are_not_looked_at_it_is_the_lowest(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(checks, "values_at_hand", lambda tensor: False)
        score = torch.full((2, 8, 9), -torch.inf)
        score[:, 3] = NAN
        score[:, 5] = torch.inf
        score[:, 6] = -5.0
        pixels = UncertaintySampler(18, oversample=100, important=1)(LABELS, score=score)
        assert set(pixels.points[..., 1].flatten().tolist()) == {5, 6}


class TestSizesOfImages:
    @pytest.mark.parametrize("make", [list, torch.tensor, lambda s: torch.tensor(s).byte()])
    def test_beyond_the_canvas(self, make: Callable[[Any], Any]) -> None:
        """Width before height, or sizes from before a resize, were cut to the canvas."""
        sizes = make([(20, 10), (40, 32)])
        with pytest.raises(ValueError, match=r"has \(40, 32\), .* within canvas=\(32, 40\)"):
            pixels_of_images(sizes, (32, 40))

    def test_negative(self) -> None:
        with pytest.raises(ValueError, match=r"image_sizes has \(-4, 32\), which is not within"):
            pixels_of_images([(-4, 32)], (32, 40))

    def test_within(self) -> None:
        assert pixels_of_images([(32, 40), (0, 3)], (32, 40)).sum((1, 2)).tolist() == [1280, 0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: BiasedSampler(50, "0.5"), ValueError, "positive_fraction='0.5' is no fraction"),
        (lambda: BiasedSampler(50, NAN), ValueError, "positive_fraction=nan is no fraction"),
        (lambda: UncertaintySampler(50, NAN), ValueError, "oversample=nan .* finite number"),
        (lambda: UncertaintySampler(50, float("inf")), ValueError, "oversample=inf"),
        (lambda: UncertaintySampler(50, "3"), ValueError, "oversample='3'"),
        (lambda: UniformSampler(5)(LABELS.numpy()), TypeError, r"labels is a ndarray; .*as_tensor"),
        (lambda: UniformSampler(5)(valid=[True]), TypeError, "valid is a list; expected a tensor"),
        (
            lambda: ClassBalancedSampler(5)(LABELS, valid=np.ones((2, 8, 9), bool)),
            TypeError,
            "valid is a ndarray",
        ),
        (
            lambda: UncertaintySampler(5)(LABELS, score=np.zeros((2, 8, 9))),
            TypeError,
            r"score is a ndarray; expected a tensor.*torch\.as_tensor\(score\)",
        ),
    ],
)
def test_bad_input(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_numbers_of_numpy() -> None:
    sampler = UncertaintySampler(20, np.float32(2.0), np.float64(0.5))  # type: ignore[arg-type]
    assert sampler(LABELS, score=torch.rand(2, 8, 9)).points.shape == (2, 20, 2)
