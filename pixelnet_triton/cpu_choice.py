"""What pays on a CPU, as pure functions of the shapes: rules of thumb, and where they come from.

Gathering a layer first costs a product of P x C_i x D; projecting it first one of cells x C_i x D
and a bag of 4 rows of D a point. A point and output so saves C_i (1 - cells / P) multiply-adds
and pays for 4 reads, which take about as long as a dozen of them.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["cpu_plan", "prefers_grid_sample"]

# Right in 25 of 26 random layers, with at most 15% lost in the other (2 cores, AVX-512).
MULTIPLY_ADDS_PER_BAG = 12
# Table and lists take some 0.1 ms to set up: what a core multiplies and adds in that time.
LEAST_MULTIPLY_ADDS_SAVED = 2_500_000

# Forward and backward, one thread of an AMD EPYC with AVX-512, in nanoseconds. `grid_sample` spends
# 22 a value of the hypercolumns; bags spend 5.5 a value and 250 a point and layer (corners,
# sort), and take longer to set up, for planes several times so.
NATIVE_PER_VALUE = 22.0
BAG_PER_VALUE = 5.5
BAG_PER_POINT = 250.0
BAG_SETUP = 200_000.0
BAG_SETUP_PER_LAYER = 80_000.0
PLANES_FACTOR = 4.0


def cpu_plan(
    channels: Sequence[int],
    map_sizes: Sequence[tuple[int, int]],
    batch: int,
    points: int,
    out_features: int,
) -> tuple[str, ...]:
    """Strategy of each layer of C_i `channels` on (H_i, W_i) cells, for `points` in all images.

    >>> cpu_plan([64, 512], [(224, 224), (14, 14)], batch=1, points=2000, out_features=4096)
    ('gather', 'project_gather')
    """
    saved = [
        width * (1 - batch * rows * columns / max(points, 1)) - MULTIPLY_ADDS_PER_BAG
        for width, (rows, columns) in zip(channels, map_sizes, strict=True)
    ]
    gain = points * out_features * sum(each for each in saved if each > 0)
    if gain < LEAST_MULTIPLY_ADDS_SAVED:
        return ("gather",) * len(saved)
    return tuple("project_gather" if each > 0 else "gather" for each in saved)


def prefers_grid_sample(points: int, channels: int, layers: int, channels_last: bool) -> bool:
    """Few points or thin layers: is `grid_sample` faster than bags? `channels` is sum C_i."""
    setup = BAG_SETUP + BAG_SETUP_PER_LAYER * layers
    bags = (setup if channels_last else PLANES_FACTOR * setup) + points * (
        BAG_PER_POINT * layers + BAG_PER_VALUE * channels
    )
    return NATIVE_PER_VALUE * points * channels < bags
