"""How much work a route is on a GPU: one function per word of routes.py, as the table says.

P points, C channels, D outputs, cells = B H_i W_i; a point has 4 corners (1 for "nearest").

    read               forward
    gather             P C corners read, written, P x C x D
    fused_linear       P C corners read for each tile of outputs, P x C x D
    project_band       cells x C x D, P x band x D
    project_rows       cells x C x D, P D corners read
    written            backward
    scatter            h gathered, G^T h and U = G W; U read for its rows, the gradient written
    collect            G read for its rows, Q written; Q^T X_i and Q W_i

A band is the rows of the map that 128 points in order touch, and one more, in steps of 64 cells.
Operands of plain products are read under their FLOPs.
"""

from __future__ import annotations

from collections.abc import Set
from functools import cache, lru_cache, partial

import torch

from ..call.plan import Plan
from ..call.shape import CallShape, LayerShape
from ..call.work import PlanWork, Work
from ..kernels.bands import MOST_COUNTED, ROWS, STEP
from ..kernels.select import Key, choose

__all__ = ["DTYPES", "work"]

DTYPES = {8: torch.float64, 4: torch.float32, 2: torch.bfloat16}
# Launches that ordering the points and building the band product's operands are worth, and sorting
# them, where a kernel cannot count them.
BAND, ORDER, SORT = 4, 2, 20
# Programs that run at once on the GPU whose rates are shipped: a product of fewer leaves the rest
# of it idle, and the last wave is rarely full.
AT_ONCE = 132
MANY = 1 << 30


def work(shape: CallShape, plan: Plan) -> PlanWork:
    """What `plan.route` takes."""
    assert plan.route is not None
    route, count = plan.route, _count(shape)
    read, write = frozenset(route.read), frozenset(route.write)
    writes = route.write or ("",) * len(route.read)
    ways = zip(route.read, writes, strict=True)
    layers = [count.layer(i, way, back) for i, (way, back) in enumerate(ways)]
    return PlanWork(tuple(layers), count.shared(read, write))


class _Count:
    """Counts the work of a call: once what its routes have alike, which is most."""

    def __init__(self, shape: CallShape) -> None:
        self.layer = cache(partial(_layer, shape))
        self.shared = cache(partial(_shared, shape))


_count = lru_cache(maxsize=64)(_Count)


def _layer(shape: CallShape, i: int, read: str, write: str) -> Work:
    layer = shape.layers[i]
    total = _READ[read](shape, layer)
    return total + _WRITE[write](shape, layer) if write else total


def _shared(shape: CallShape, read: Set[str], write: Set[str]) -> Work:
    """Work whatever the layers: the output, and launches that serve several layers."""
    output = float(shape.points * shape.out_features * shape.itemsize)
    total = Work(streams=output, operators=1 + ("gather" in read))
    if "project_band" in read:
        total += Work(operators=BAND)
    if "project_rows" in read and len(read) > 1:  # the product is read, and written over
        total += Work(streams=2 * output, operators=1)
    if "project_band" in read or shape.training:  # which takes over the order of the forward pass
        total += Work(operators=_order(shape))
    if shape.training:
        # grad and y read, G written and, for the products, read twice.
        total += Work(streams=5 * output, operators=2)
        total += Work(operators=4 * ("scatter" in write) + ("collect" in write))
    return total


def _order(shape: CallShape) -> int:
    """The points in order, in launches."""
    counted = not shape.ragged and shape.points <= MOST_COUNTED * shape.batch
    return ORDER if counted else SORT


def _band_cells(call: CallShape, layer: LayerShape) -> int:
    """Cells of the rows that a tile of points in order touches, of several images if it has to."""
    share = ROWS * call.batch / max(1, call.points)
    rows = min(layer.rows * call.batch, int(layer.rows * share) + 2)
    return -(-max(1, rows) * layer.columns // STEP) * STEP


def _corners(call: CallShape) -> int:
    return 1 if call.nearest else 4


def _reads(call: CallShape, layer: LayerShape, times: float) -> Work:
    """The corners of all points, read `times` times over."""
    amount = _corners(call) * times * _columns(call, layer)
    return Work(map_reads=amount) if layer.channels_last else Work(strided_reads=amount)


def _columns(call: CallShape, layer: LayerShape) -> float:
    """Bytes of gathered columns, P x C."""
    return float(call.points * layer.channels * call.itemsize)


def _product(call: CallShape, layer: LayerShape) -> float:
    """FLOPs of P x C by C x D."""
    return 2.0 * call.points * layer.channels * call.out_features


def _projection(call: CallShape, layer: LayerShape) -> Work:
    """cells x C by C x D: its FLOPs, under which operands are read, and its result."""
    cells = call.batch * layer.cells
    return Work(
        dense_flops=2.0 * cells * layer.channels * call.out_features,
        streams=float(cells * call.out_features * call.itemsize),
        operators=1,
    )


def _gather(call: CallShape, layer: LayerShape) -> Work:
    written = _columns(call, layer)
    return _reads(call, layer, 1) + Work(dense_flops=_product(call, layer), streams=written)


def _fused_linear(call: CallShape, layer: LayerShape) -> Work:
    dtype = DTYPES[call.itemsize]
    tile = choose(
        "fused_linear", Key(dtype, call.points, call.out_features, capability=call.capability)
    )
    times = -(-call.out_features // tile.columns)
    programs = times * -(-call.points // tile.rows)
    # A step waits for its corners, whatever its tile: of few points or outputs it does less.
    widest = choose("fused_linear", Key(dtype, MANY, MANY, capability=call.capability))
    outputs = -(-programs // AT_ONCE) * AT_ONCE * widest.rows * widest.columns
    return _reads(call, layer, times) + Work(fused_flops=2.0 * outputs * layer.channels)


def _project_rows(call: CallShape, layer: LayerShape) -> Work:
    read = _corners(call) * call.points * call.out_features * call.itemsize
    return _projection(call, layer) + Work(projected_reads=float(read))


def _project_band(call: CallShape, layer: LayerShape) -> Work:
    cells = _band_cells(call, layer)
    columns = float(call.points * cells * call.itemsize)
    flops = 2.0 * call.points * cells * call.out_features
    return _projection(call, layer) + Work(dense_flops=flops, streams=columns)


def _touched(call: CallShape, layer: LayerShape, row_bytes: float) -> Work:
    """Each point's row of so many bytes is read for the rows of cells that it touches."""
    strips = -(-layer.columns // 64)
    return Work(scatters=2.0 * strips * call.points * row_bytes)


def _scatter(call: CallShape, layer: LayerShape) -> Work:
    columns = _columns(call, layer)
    gradient = float(call.batch * layer.cells * layer.channels * call.itemsize)
    total = _touched(call, layer, layer.channels * call.itemsize)
    total += Work(streams=gradient + columns)
    if not call.out_features:
        return total
    return (
        total
        + _reads(call, layer, 1)
        + Work(dense_flops=2 * _product(call, layer), streams=2 * columns)
    )


def _collect(call: CallShape, layer: LayerShape) -> Work:
    row = float(call.out_features * call.itemsize)
    q = Work(collects=2.0 * call.points * row, streams=call.batch * layer.cells * row)
    return q + _projection(call, layer) + _projection(call, layer)


_READ = {
    "gather": _gather,
    "fused_linear": _fused_linear,
    "project_band": _project_band,
    "project_rows": _project_rows,
}
_WRITE = {"scatter": _scatter, "collect": _collect}
