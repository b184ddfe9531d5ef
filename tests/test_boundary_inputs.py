"""What boundary metrics are given: maps of several dtypes, NumPy's numbers, iterators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("torchmetrics")
pytest.importorskip("scipy")

from pixelnet_triton.metrics import BoundaryMetrics, boundary_counts, evaluate_boundaries

LINE = torch.zeros(40, 50, dtype=torch.bool)
LINE[20] = True
SERIAL: dict[str, Any] = {"workers": 1, "progress": False, "thresholds": 3}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("value", [0.1, 0.35, 0.6, 0.7, 0.9])
def test_thresholds_are_compared_as_torch_does(value: float, dtype: torch.dtype) -> None:
    """float32 0.7 is below float64 0.7, but is 0.7 to whoever writes `prediction >= 0.7`."""
    prediction = value * LINE.to(dtype)
    thresholds = [value, value + 1e-3]
    expected = [int((prediction >= threshold).sum()) for threshold in thresholds]
    assert expected == [50, 0]
    counts = boundary_counts(prediction, [LINE], thresholds)
    assert counts.predicted.tolist() == expected
    counts = boundary_counts(prediction, [LINE], 99)
    expected = [int((prediction >= float(t)).sum()) for t in counts.thresholds]
    assert counts.predicted.tolist() == expected
    scores = evaluate_boundaries([prediction], [[LINE]], **SERIAL | {"thresholds": [value]})
    assert scores["ods"] == 1


def test_rounding_of_resized_maps_is_no_fault() -> None:
    whole = torch.rand(1, 1, 160, 200)
    whole[..., 60:100, :] = 1
    resized = F.interpolate(whole, (40, 50), mode="bilinear", antialias=True)[0, 0]
    resized[0, 0] = 1 + 4e-7
    resized[0, 1] = -4e-7
    boundary_counts(resized, [LINE], 3)
    for beyond in (1.001, -0.001):
        resized[0, 0] = beyond
        with pytest.raises(ValueError, match=r"prediction ranges over .*; expected \[0, 1\]"):
            boundary_counts(resized, [LINE], 3)


def test_numbers_of_numpy() -> None:
    soft = 0.7 * LINE.float()
    plain = boundary_counts(soft, [LINE], 9, 0.01)
    other = boundary_counts(soft, [LINE], np.int64(9), np.float32(0.01))  # type: ignore[arg-type]
    assert plain.thresholds.tolist() == other.thresholds.tolist()
    assert plain.found.tolist() == other.found.tolist()
    assert len(BoundaryMetrics(np.int32(9), np.float64(0.01)).thresholds) == 9


def test_arguments_of_torchmetrics_are_passed_on() -> None:
    assert BoundaryMetrics(5, sync_on_compute=False).sync_on_compute is False


def _maps(count: int) -> Any:
    return (0.7 * LINE.float() for _ in range(count))


def _truths(count: int) -> Any:
    return ([LINE] for _ in range(count))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: BoundaryMetrics(max_distance=-1), ValueError, "max_distance=-1; expected a posit"),
        (lambda: BoundaryMetrics(max_distance="x"), ValueError, "max_distance='x'; expected"),
        (
            lambda: evaluate_boundaries([], [], max_distance=0, **SERIAL),
            ValueError,
            "max_distance=0; expected a positive",
        ),
        (
            lambda: boundary_counts(LINE, None),
            TypeError,
            "annotations is a NoneType; expected a list of boundaries",
        ),
        (lambda: boundary_counts(LINE, _maps(1)), TypeError, r"is a generator; .*list\(\.\.\.\)"),
        (lambda: boundary_counts(LINE, torch.tensor(1)), TypeError, "annotations is a Tensor"),
        (
            lambda: evaluate_boundaries(_maps(2), [[LINE], None], **SERIAL),
            TypeError,
            "image 1: annotations is a NoneType",
        ),
        (
            lambda: evaluate_boundaries(_maps(2), _truths(1), **SERIAL),
            ValueError,
            "annotations ended after 1 images, but the other did not; expected one list",
        ),
        (
            lambda: evaluate_boundaries(_maps(1), _truths(2), **SERIAL),
            ValueError,
            "predictions ended after 1 images",
        ),
    ],
)
def test_bad_input(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
