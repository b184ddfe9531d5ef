"""The boundary metrics: thinning, and one image at one threshold with five annotators.

pytest bench/test_boundaries.py --benchmark-only

The map is a smoothed one of the size of BSDS500's images, the annotators drew its crests each a
little differently. An image costs 99 times the mean of `test_counts`, a data set that times its
images over the processes of `evaluate_boundaries`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

ndimage = pytest.importorskip("scipy.ndimage")

from pixelnet_triton.metrics import boundary_counts  # noqa: E402
from pixelnet_triton.metrics.thinning import thin  # noqa: E402

SHAPE = (321, 481)
THRESHOLDS = (0.1, 0.3, 0.5, 0.7)


def soft_map() -> NDArray[np.float64]:
    """Where smooth noise is steep: lines of varying strength and width."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).random(SHAPE), 6)
    slope = ndimage.gaussian_gradient_magnitude(noise, 2)
    return slope / slope.max()


def annotators(soft: NDArray[np.float64]) -> list[NDArray[np.bool_]]:
    """Five, at different levels of detail, one of them two pixels off."""
    levels = [thin(soft >= level) for level in (0.35, 0.4, 0.45, 0.5)]
    return [*levels, np.roll(levels[0], 2, axis=1)]


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_thinning(benchmark: Any, threshold: float) -> None:
    boundary = soft_map() >= threshold
    benchmark(thin, boundary)


def test_thinning_by_scikit_image(benchmark: Any) -> None:
    morphology = pytest.importorskip("skimage.morphology")
    boundary = soft_map() >= THRESHOLDS[0]
    np.testing.assert_array_equal(thin(boundary), morphology.thin(boundary))
    benchmark(morphology.thin, boundary)


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_counts(benchmark: Any, threshold: float) -> None:
    soft = soft_map()
    drawn = annotators(soft)
    counts = benchmark(boundary_counts, soft, drawn, [threshold])
    benchmark.extra_info.update(predicted=int(counts.predicted[0]), true=int(counts.true[0]))
