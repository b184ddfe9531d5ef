"""What pays on a CPU for few points, as a pure function of the shapes.

Which layers to project is the planner's business; this is about how the gathered ones are read.
"""

from __future__ import annotations

__all__ = ["keeps_hypercolumns", "prefers_grid_sample"]

# Values of hypercolumns that a call may keep for its backward pass: 1 MB in float32.
KEPT_VALUES = 1 << 18

# Forward and backward, one thread of an Intel Xeon with AVX-512 and AMX (2026-11-25), nanoseconds.
# `grid_sample` spends 12 a value of the hypercolumns, and 1.5 a value of channels_last maps, whose
# gradients it writes as planes; bags spend 5.5 a value and 250 a point and layer (corners, sort),
# and take longer to set up, for planes once for each layer.
NATIVE_PER_VALUE = 12.0
NATIVE_PER_MAP_VALUE = 1.5
BAG_PER_VALUE = 5.5
BAG_PER_POINT = 250.0
BAG_SETUP, BAG_SETUP_PER_LAYER = 350_000.0, 40_000.0
PLANES_SETUP_PER_LAYER = 450_000.0


def prefers_grid_sample(
    points: int, channels: int, layers: int, map_values: int, channels_last: bool
) -> bool:
    """Few points or thin layers: is `grid_sample` faster than bags?

    `channels` is sum C_i, `map_values` sum B C_i H_i W_i.
    """
    native = NATIVE_PER_VALUE * points * channels
    bags = points * (BAG_PER_POINT * layers + BAG_PER_VALUE * channels)
    if channels_last:
        native += NATIVE_PER_MAP_VALUE * map_values
        bags += BAG_SETUP + BAG_SETUP_PER_LAYER * layers
    else:
        bags += PLANES_SETUP_PER_LAYER * layers
    return native < bags


def keeps_hypercolumns(points: int, channels: int) -> bool:
    """So small that sampling again costs more than keeping P x sum C until the backward pass?"""
    return points * channels <= KEPT_VALUES
