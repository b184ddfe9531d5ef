"""From a plan to launches: which kernels compute a call, a pure function of its shapes and plan.

How a layer is read in the forward pass, the words of `Route.read`:

    gather             rows S_i X_i written by the gather, then multiplied: mode two_step
    fused_linear       gathered inside the kernel that multiplies: mode one_pass
    project_product    X_i W_i^T, interpolated as a product
    project_gather     X_i W_i^T, whose rows are gathered

and how its gradient is written, the words of `Route.write`:

    scatter              U = G W_i written by a product, S_i^T U by the scatter
    feature_gradient     S_i^T (G W_i) by one kernel
    transposed_product   Q_i = S_i^T G by a product; then Q_i^T X_i and Q_i W_i
    collect              Q_i = S_i^T G by the scatter; then the same products

The scatter goes by atomics, or in a fixed order where torch is asked for deterministic algorithms;
that is no part of the route, because it may change between two calls of one plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from ..call.plan import Plan
from ..call.route import Route
from ..call.shape import CallShape

__all__ = ["derived", "fits", "layers_read", "route", "strategies", "with_columns"]

# Wider maps have more cells than a tile of points can use: the interpolation product would be
# nearly all zeros, and one row of it no longer fits the shared memory of a tile.
WIDEST_PRODUCT = 64

GATHERED = ("gather", "fused_linear")
PROJECTED = ("project_product", "project_gather")
WRITES = ("scatter", "feature_gradient", "transposed_product", "collect")
# What is launched for each way to write a gradient.
_LAUNCHES = {"scatter": ("mm", "scatter"), "collect": ("scatter",)}


def strategies(shape: CallShape, layer: int) -> tuple[str, ...]:
    """What the kernels can do with a layer.

    Interpolation as a product needs the points of a tile in one image, hence in order.
    """
    if shape.ragged or shape.layers[layer].columns > WIDEST_PRODUCT:
        return ("gather", "project_gather")
    return ("gather", "project_gather", "project_product")


def route(shape: CallShape, plan: Plan) -> Route:
    """What follows from the plan."""
    linear = shape.out_features > 0
    return derived(
        plan.layers, plan.mode, shape.ragged, linear, shape.training, shape.moving_points
    )


def fits(shape: CallShape, route: Route) -> bool:
    """Can the kernels take such a call this way?"""
    read, write, layers = set(route.read), set(route.write), len(shape.layers)
    return (
        len(route.read) == layers
        and read <= {*GATHERED, *PROJECTED}
        and not read >= set(GATHERED)
        and (shape.out_features > 0 or read == {"gather"})
        and not (shape.ragged and ("project_product" in read or "transposed_product" in write))
        and write <= set(WRITES)
        and len(route.write) == (layers if shape.training else 0)
    )


@lru_cache(maxsize=1024)
def derived(
    layers: tuple[str, ...], mode: str, ragged: bool, linear: bool, training: bool, moving: bool
) -> Route:
    """The route of a plan.

    With ragged points, interpolation as a product becomes a gather of projected rows. Where points
    want a gradient, U is needed anyway, and the scatter takes it from there.
    """
    read = tuple([_read(strategy, mode, ragged, linear) for strategy in layers])
    gathers, projects = bool({*read} & {*GATHERED}), bool({*read} & {*PROJECTED})
    if not linear:
        forward = "gather"
    elif "fused_linear" in read:
        forward = "fused_linear"
    elif not projects:
        forward = "gather + linear"
    else:
        forward = "gather + product" if gathers else "product"
    if not training:
        return Route(forward, "", read, ())
    write = tuple([_write(way, moving) for way in read])
    launches = []
    if linear and gathers:
        launches += ["gather", "mm"] if "gather" in read else ["weight_gradient"]
    for way in write:
        launches += _LAUNCHES.get(way, (way,)) if linear else ("scatter",)
    if moving:
        launches.append("coordinate_gradient")
    return Route(forward, " + ".join(dict.fromkeys(launches)), read, write)


def _read(strategy: str, mode: str, ragged: bool, linear: bool) -> str:
    if not linear:
        return "gather"
    if strategy == "gather":
        return "fused_linear" if mode == "one_pass" else "gather"
    return "project_gather" if ragged else strategy


def _write(read: str, moving: bool) -> str:
    if read == "fused_linear":
        return "scatter" if moving else "feature_gradient"
    writes = {"gather": "scatter", "project_product": "transposed_product"}
    return writes.get(read, "collect")


def with_columns(route: Route) -> Route:
    """The same route with U = G W written out, from which sums in any order can be taken."""
    write = tuple(["scatter" if way == "feature_gradient" else way for way in route.write])
    return replace(route, write=write)


def layers_read(route: Route, ways: Sequence[str]) -> list[int]:
    """The layers that are read in one of these ways."""
    return [i for i, way in enumerate(route.read) if way in ways]
