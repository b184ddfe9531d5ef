"""From a plan to launches: which kernels compute a call, a pure function of its shapes and plan.

How a layer is read in the forward pass, the words of `Route.read`:

    gather             rows S_i X_i written by the gather, then multiplied: mode two_step
    fused_linear       gathered inside the kernel that multiplies: mode one_pass
    project_band       X_i W_i^T; S_i written as columns, beside the gathered ones, of a product
                       that walks the rows of the map which a tile of points touches
    project_rows       X_i W_i^T, whose rows are added to the product of the gathered layers

and how its gradient is written, the words of `Route.write`, whichever way it was read:

    scatter            U = G W_i, dX_i = S_i^T U;      dW_i = G^T (S_i X_i), gathered again
    collect            Q_i = S_i^T G, dX_i = Q_i W_i;  dW_i = Q_i^T X_i

S_i^T is applied by the band kernel, to points in order; it has the same bits at every call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product

from ..call.plan import Plan
from ..call.route import Route
from ..call.shape import CallShape
from ..kernels import bands

__all__ = ["fits", "layers_read", "layers_written", "open_routes", "scattered"]

GATHERED = ("gather", "fused_linear")
PROJECTED = ("project_band", "project_rows")
WRITES = ("scatter", "collect")


def open_routes(shape: CallShape, plan: Plan) -> list[Route]:
    """The ways in which a call of that shape may be carried out by a plan."""
    if not shape.out_features:
        words = ("gather",) * len(shape.layers)
        return [_route(words, ("scatter",) * len(words) if shape.training else (), False)]
    ways = product(_reads(shape, plan), _writes(shape, plan))
    return [_route(read, write, True) for read, write in ways]


def _reads(shape: CallShape, plan: Plan) -> list[tuple[str, ...]]:
    """All projected layers go one way; which, is a question of price."""
    gather = "fused_linear" if plan.mode == "one_pass" else "gather"
    ways = ["project_rows"]
    if plan.projected and plan.mode == "two_step" and _band_fits(shape, plan.projected):
        ways.insert(0, "project_band")
    return [tuple([gather if s == "gather" else way for s in plan.layers]) for way in ways]


def _band_fits(shape: CallShape, projected: Sequence[int]) -> bool:
    """Can the band product take these layers projected?"""
    return (
        shape.tensor_loads
        and shape.itemsize == 2
        and bands.fits(
            shape.out_features,
            [layer.channels for layer in shape.layers],
            [(layer.rows, layer.columns) for layer in shape.layers],
            shape.batch,
            None if shape.ragged else shape.points // max(1, shape.batch),
            projected,
        )
    )


def _writes(shape: CallShape, plan: Plan) -> list[tuple[str, ...]]:
    """As the strategies are, and by how many cells a map has for each point."""
    if not shape.training:
        return [()]
    layers = shape.layers
    if shape.moving_points:  # U is needed in any case
        return [("scatter",) * len(layers)]
    ways = [tuple(["scatter" if s == "gather" else "collect" for s in plan.layers])]
    for share in (0.5, 2.0):
        cells = share * shape.points / max(1, shape.batch)
        ways.append(tuple(["collect" if layer.cells <= cells else "scatter" for layer in layers]))
    return list(dict.fromkeys(ways))


def fits(shape: CallShape, route: Route) -> bool:
    """Can the kernels take such a call this way?"""
    read, write, layers = set(route.read), set(route.write), len(shape.layers)
    if not shape.out_features:
        return read == {"gather"} and write <= {"scatter"}
    band = [i for i, word in enumerate(route.read) if word == "project_band"]
    return (
        len(route.read) == layers
        and read <= {*GATHERED, *PROJECTED}
        and not read >= {*GATHERED}
        and not read >= {*PROJECTED}
        and not read >= {"fused_linear", "project_band"}
        and (not band or _band_fits(shape, band))
        and write <= {*WRITES}
        and len(route.write) == (layers if shape.training else 0)
    )


@lru_cache(maxsize=1024)
def _route(read: tuple[str, ...], write: tuple[str, ...], linear: bool) -> Route:
    """The route of these words, with its launches by name."""
    words = {*read}
    steps = ["gather"] * ("gather" in words)
    if "fused_linear" in words:
        steps = ["fused_linear"]
    elif "project_band" in words:
        steps = ["order", "banded"]
    elif linear and "gather" in words:
        steps = ["gather", "linear"]
    steps += ["rows"] * ("project_rows" in words)
    forward = " + ".join(steps)
    if not write:
        return Route(forward, "", read, ())
    launches = ["order", "mask"]
    if linear and "scatter" in write:
        launches += ["gather", "mm"]
    launches += dict.fromkeys(write)
    return Route(forward, " + ".join(launches), read, write)


def scattered(route: Route) -> Route:
    """The same route with U = G W written out for every layer, which gradients of points need."""
    return replace(route, write=("scatter",) * len(route.write))


def layers_read(route: Route, ways: Sequence[str]) -> list[int]:
    """The layers that are read in one of these ways."""
    return [i for i, way in enumerate(route.read) if way in ways]


def layers_written(route: Route, way: str) -> list[int]:
    """The layers whose gradient is written that way."""
    return [i for i, word in enumerate(route.write) if word == way]
