"""Points, indices of images and sizes of images that a call refuses, by name."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pixelnet_triton import sparse_hypercolumn

from .bad_calls import Bad, good_call, ragged


def points_with(value: float) -> Tensor:
    points = torch.rand(2, 7, 2)
    points[1, 2, 0] = value
    return points


TABLE = [
    # points
    Bad(
        "points-list",
        {"points": [[[1, 2]]]},
        TypeError,
        r"points is a list; expected a torch.Tensor .* torch.as_tensor",
    ),
    Bad(
        "points-of-3",
        {"points": torch.rand(2, 7, 3)},
        ValueError,
        r"points has shape \(2, 7, 3\); expected \(B, N, 2\)",
    ),
    Bad(
        "points-rank-2",
        {"points": torch.rand(7, 2)},
        ValueError,
        r"points has shape \(7, 2\); expected \(B, N, 2\) .* or \(P, 2\) together with batch_index",
    ),
    Bad(
        "points-grid",
        {"points": torch.rand(2, 7, 7, 2)},
        ValueError,
        r"points has shape \(2, 7, 7, 2\); expected \(B, N, 2\)",
    ),
    Bad(
        "batch-mismatch-points",
        {"points": torch.rand(3, 7, 2)},
        ValueError,
        r"points has shape \(3, 7, 2\) but the features hold 2 images",
    ),
    Bad(
        "points-nan",
        {"points": points_with(float("nan"))},
        ValueError,
        r"points\[9\] .*nan.*must be finite",
    ),
    Bad(
        "points-inf",
        {"points": points_with(float("-inf"))},
        ValueError,
        r"points\[9\] .*-inf.*must be finite",
    ),
    Bad(
        "points-opposite-infs",
        {"points": torch.tensor([[[float("inf"), 0.0]], [[float("-inf"), 0.0]]]).half()},
        ValueError,
        r"points\[0\] .*inf.*must be finite",
    ),
    # batch_index
    Bad(
        "batch-index-list",
        ragged(batch_index=[0, 1, 1, 0, 1]),
        TypeError,
        r"batch_index is a list; expected an integer tensor \(P,\)",
    ),
    Bad(
        "batch-index-float",
        ragged(batch_index=torch.zeros(5)),
        TypeError,
        r"batch_index is torch.float32; expected an integer dtype",
    ),
    Bad(
        "batch-index-bool",
        ragged(batch_index=torch.zeros(5, dtype=torch.bool)),
        TypeError,
        r"batch_index is torch.bool; expected an integer dtype",
    ),
    Bad(
        "batch-index-length",
        ragged(batch_index=torch.zeros(4, dtype=torch.int64)),
        ValueError,
        r"batch_index has shape \(4,\); expected \(5,\)",
    ),
    Bad(
        "batch-index-rank",
        ragged(batch_index=torch.zeros(5, 1, dtype=torch.int64)),
        ValueError,
        r"batch_index has shape \(5, 1\); expected \(5,\)",
    ),
    Bad(
        "batch-index-high",
        ragged(batch_index=torch.tensor([0, 1, 2, 0, 1])),
        ValueError,
        r"batch_index ranges over \[0, 2\] .* 2 images; expected values in \[0, 1\]",
    ),
    Bad(
        "batch-index-negative",
        ragged(batch_index=torch.tensor([0, -1, 1, 0, 1])),
        ValueError,
        r"batch_index ranges over \[-1, 1\] .* expected values in \[0, 1\]",
    ),
    Bad(
        "batch-index-uniform-points",
        {"batch_index": torch.tensor([0, 1])},
        ValueError,
        r"points has shape \(2, 7, 2\); with batch_index expected \(P, 2\)",
    ),
    # image_size
    Bad(
        "image-size-flags",
        {"image_size": (torch.tensor(True), 16)},
        TypeError,
        r"image_size=\(True, 16\); expected two integers",
    ),
    Bad("image-size-int", {"image_size": 12}, TypeError, r"image_size=12; expected \(height"),
    Bad(
        "image-size-3",
        {"image_size": (3, 12, 16)},
        TypeError,
        r"image_size=\(3, 12, 16\); expected \(height, width\)",
    ),
    Bad(
        "image-size-float",
        {"image_size": (12.0, 16.0)},
        TypeError,
        r"image_size=\(12.0, 16.0\); expected two integers",
    ),
    Bad(
        "image-size-zero",
        {"image_size": (0, 16)},
        ValueError,
        r"image_size=\(0, 16\); .* at least 1 pixel",
    ),
    Bad(
        "image-size-negative",
        {"image_size": (12, -16)},
        ValueError,
        r"image_size=\(12, -16\); .* at least 1 pixel",
    ),
]


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.name)
def test_is_refused_by_name(bad: Bad) -> None:
    bad.check()


@pytest.mark.parametrize("count", [7, 3000])
@pytest.mark.parametrize("plan", ["auto", "gather", "project"])
def test_values_are_looked_at_on_every_route(plan: str, count: int) -> None:
    points = torch.rand(2, count, 2)
    points[1, 2, 0] = torch.nan
    with pytest.raises(ValueError, match=rf"points\[{count + 2}\] .* must be finite"):
        sparse_hypercolumn(**good_call() | {"points": points, "plan": plan})
    image = torch.arange(2 * count) % 2
    image[3] = 2
    wrong = ragged(points=torch.rand(2 * count, 2), batch_index=image, plan=plan)
    with pytest.raises(ValueError, match=r"batch_index ranges over \[0, 2\] but .* hold 2 images"):
        sparse_hypercolumn(**good_call() | wrong)


def test_what_is_remembered_of_a_good_call_does_not_help_a_bad_one() -> None:
    """The same numbers in the same order, but divided otherwise among the arguments."""
    maps, points = [torch.randn(1, 3, 8, 8)], torch.zeros(1, 2, 2)
    sparse_hypercolumn(maps, points, (224, 224), strides=(1,))
    with pytest.raises(TypeError, match=r"image_size=\(224,\); expected \(height, width\)"):
        sparse_hypercolumn(maps, points, (224,), strides=(224, 1))  # type: ignore[arg-type]


def test_no_argument_is_refused_for_want_of_images() -> None:
    """An index into no images at all is out of range too."""
    call = good_call() | ragged(features=[f[:0] for f in good_call()["features"]])
    with pytest.raises(ValueError, match=r"points has . rows but the features hold 0 images"):
        sparse_hypercolumn(**call)
