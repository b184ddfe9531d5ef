"""What pays on a CPU for few points, as a pure function of the shapes.

Which layers to project is the planner's business; this is about how the gathered ones are read.
"""

from __future__ import annotations

__all__ = ["prefers_grid_sample"]

# Forward and backward, one thread of an AMD EPYC with AVX-512, in nanoseconds. `grid_sample` spends
# 22 a value of the hypercolumns; bags spend 5.5 a value and 250 a point and layer (corners,
# sort), and take longer to set up, for planes several times so.
NATIVE_PER_VALUE = 22.0
BAG_PER_VALUE = 5.5
BAG_PER_POINT = 250.0
BAG_SETUP = 200_000.0
BAG_SETUP_PER_LAYER = 80_000.0
PLANES_FACTOR = 4.0


def prefers_grid_sample(points: int, channels: int, layers: int, channels_last: bool) -> bool:
    """Few points or thin layers: is `grid_sample` faster than bags? `channels` is sum C_i."""
    setup = BAG_SETUP + BAG_SETUP_PER_LAYER * layers
    bags = (setup if channels_last else PLANES_FACTOR * setup) + points * (
        BAG_PER_POINT * layers + BAG_PER_VALUE * channels
    )
    return NATIVE_PER_VALUE * points * channels < bags
