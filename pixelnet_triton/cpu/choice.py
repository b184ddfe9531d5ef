"""What pays on a CPU for few points, as a pure function of the shapes.

Which layers to project is the planner's business; this is about how the gathered ones are read.
"""

from __future__ import annotations

__all__ = ["keeps_hypercolumns", "prefers_grid_sample", "reads_by_grid_sample"]

# Values of hypercolumns that a call may keep for its backward pass: 1 MB in float32; 2 MB of
# layers that are thin (channels on average), where finding the corners is most of the work.
KEPT_VALUES = 1 << 18
KEPT_VALUES_OF_THIN, THIN = 1 << 19, 64
# Values of half-precision maps, and weights unless they are multiplied as they are, which such a
# call converts to float32 and keeps: 8 MB.
KEPT_CONVERTED = 1 << 21

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

# Forward alone, two threads of the same: `grid_sample` against bags, and against planes, which take
# operators for each layer and image, up to four images: more have fewer points each. Both find
# corners.
READ_NATIVE, READ_NATIVE_PLANES = 1.8, 2.5
READ_BAG, READ_PLANES, READ_PLANES_PER_IMAGE, READ_PER_POINT = 0.65, 0.8, 0.35, 25.0
READ_BAG_SETUP, READ_BAG_SETUP_PER_LAYER = 40_000.0, 20_000.0
READ_PLANES_SETUP, READ_PLANES_SETUP_PER_LAYER = 100_000.0, 130_000.0
READ_PLANES_SETUP_PER_IMAGE, READ_IMAGES = 60_000.0, 4


def keeps_hypercolumns(points: int, channels: int, layers: int, converted: int) -> bool:
    """So small that sampling again costs more than keeping P x sum C until the backward pass?

    `converted`: values of maps and weights that are not in the dtype that they are computed in.
    """
    most = KEPT_VALUES_OF_THIN if channels <= THIN * layers else KEPT_VALUES
    return points * channels <= most and converted <= KEPT_CONVERTED


def reads_by_grid_sample(
    points: int, channels: int, layers: int, batch: int, channels_last: bool
) -> bool:
    """Few points: is `grid_sample` the faster way to read the maps? `channels` is sum C_i."""
    values, located = points * channels, READ_PER_POINT * points * layers
    if channels_last:
        setup = READ_BAG_SETUP + READ_BAG_SETUP_PER_LAYER * layers
        return READ_NATIVE * values < setup + READ_BAG * values + located
    more = min(batch, READ_IMAGES) - 1
    per_layer = READ_PLANES_SETUP_PER_LAYER + READ_PLANES_SETUP_PER_IMAGE * more
    per_value = READ_PLANES + READ_PLANES_PER_IMAGE * more
    planes = READ_PLANES_SETUP + per_layer * layers + per_value * values + located
    return READ_NATIVE_PLANES * values < planes


def prefers_grid_sample(
    points: int, channels: int, layers: int, map_values: int, channels_last: bool
) -> bool:
    """Few points or thin layers: is `grid_sample` faster there and back?

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
