"""The benchmark's own numbers are the defaults, wherever boundaries are counted.

BSDS500's benchmark (`edgesEvalImg`, `boundaryBench`): 99 thresholds, pairs at most 0.0075 of the
image's diagonal apart, maps thinned at every threshold.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

pytest.importorskip("torchmetrics")
pytest.importorskip("scipy")

from pixelnet_triton.metrics import BoundaryMetrics, boundary_counts, evaluate_boundaries

Curve = tuple[np.ndarray, np.ndarray, np.ndarray]  # thresholds, recall, precision
SIZE = (330, 440)  # 0.0075 of the diagonal are 4.125 pixels, of the longer side 3.3


def of_counts(prediction: np.ndarray, truth: np.ndarray) -> Curve:
    counts = boundary_counts(prediction, [truth])
    recall, precision = counts.found / counts.true, counts.right / np.maximum(counts.predicted, 1)
    return counts.thresholds, recall, precision


def of_metric(prediction: np.ndarray, truth: np.ndarray) -> Curve:
    metric = BoundaryMetrics()
    metric.update(torch.from_numpy(prediction), [torch.from_numpy(truth)])
    scores = metric.compute()
    return scores["thresholds"].numpy(), scores["recall"].numpy(), scores["precision"].numpy()


def of_evaluation(prediction: np.ndarray, truth: np.ndarray) -> Curve:
    scores = evaluate_boundaries([prediction], [[truth]], workers=1, progress=False)
    return scores["thresholds"].numpy(), scores["recall"].numpy(), scores["precision"].numpy()


WAYS = {"counts": of_counts, "metric": of_metric, "evaluation": of_evaluation}
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def line(row: int, thickness: int = 1) -> np.ndarray:
    drawn = np.zeros(SIZE, bool)
    drawn[row : row + thickness] = True
    return drawn


@each_way
def test_99_thresholds(way: Callable[..., Curve]) -> None:
    thresholds, _, _ = way(line(100).astype(float), line(100))
    np.testing.assert_allclose(thresholds, np.arange(1, 100) / 100, rtol=1e-6)


@each_way
@pytest.mark.parametrize(("shift", "recall"), [(0, 1.0), (4, 1.0), (5, 0.0), (8, 0.0)])
def test_pairs_within_0_0075_of_the_diagonal(
    way: Callable[..., Curve], shift: int, recall: float
) -> None:
    _, reached, precise = way(line(100 + shift).astype(float), line(100))
    assert set(reached.tolist()) == set(precise.tolist()) == {recall}


@each_way
def test_maps_are_thinned(way: Callable[..., Curve]) -> None:
    """One row of three is left, so nearly all predicted pixels are right."""
    _, _, precision = way(line(99, 3).astype(float), line(100))
    assert (precision > 0.9).all()
