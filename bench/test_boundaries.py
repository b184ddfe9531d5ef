"""The boundary metrics on a map of the size of BSDS500's images, with five annotators.

    pytest bench/test_boundaries.py --benchmark-only

The map is a smoothed one, the annotators drew its crests each a little differently. An image costs
99 times the mean of `test_counts`, a data set that times its images over the processes of
`evaluate_boundaries`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

ndimage = pytest.importorskip("scipy.ndimage")

from pixelnet_triton.metrics import boundary_counts  # noqa: E402
from pixelnet_triton.metrics.thinning import thin  # noqa: E402

# Where smooth noise is steep: lines of varying strength and width.
noise = ndimage.gaussian_filter(np.random.default_rng(0).random((321, 481)), 6)
soft = ndimage.gaussian_gradient_magnitude(noise, 2)
soft /= soft.max()


@pytest.mark.parametrize("threshold", [0.1, 0.7])
def test_thinning(benchmark: Any, threshold: float) -> None:
    benchmark(thin, soft >= threshold)


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7])
def test_counts(benchmark: Any, threshold: float) -> None:
    drawn = [thin(soft >= level) for level in (0.35, 0.4, 0.45, 0.5)]
    drawn.append(np.roll(drawn[0], 2, axis=1))
    counts = benchmark(boundary_counts, soft, drawn, [threshold])
    benchmark.extra_info.update(predicted=int(counts.predicted[0]), true=int(counts.true[0]))
