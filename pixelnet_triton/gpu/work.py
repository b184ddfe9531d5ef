"""How much work a route is on a GPU: one function per word of routes.py, as the table says.

P points, C channels, D outputs, cells = B H_i W_i; a point has 4 corners (1 for "nearest").

    read                forward
    gather              P C corners read, written, read again, P x C x D
    fused_linear        P C corners read for each tile of outputs, P x C x D
    project_gather      cells x C x D, P D corners read
    project_product     cells x C x D, P x Kp x D
    written             backward, in addition to dW_i, which takes as much as the forward pass
    scatter             U = G W_i, P C added to corners
    feature_gradient    the same, without writing U
    collect             P D added to corners; Q^T X_i and Q W_i
    transposed_product  cells x N x D; Q^T X_i and Q W_i

Kp = H_i WP, with WP = W_i padded to a power of two >= 16.
"""

from __future__ import annotations

import torch

from ..call.plan import Plan
from ..call.shape import CallShape, LayerShape
from ..call.work import PlanWork, Work
from ..kernels.select import Key, choose
from . import routes

__all__ = ["DTYPES", "work"]

DTYPES = {8: torch.float64, 4: torch.float32, 2: torch.bfloat16}


def work(shape: CallShape, plan: Plan) -> PlanWork:
    """What `plan.route` takes."""
    assert plan.route is not None
    route = plan.route
    all_gathered = not routes.layers_read(route, routes.PROJECTED)
    layers = []
    for layer, read in zip(shape.layers, route.read, strict=True):
        total = _READ[read](shape, layer)
        if read == "gather" and not all_gathered:
            # Beside projected layers the library's own product takes the place of a plain one.
            total = total._replace(dense_flops=0.0, fused_flops=total.dense_flops)
        layers.append(total)
    for i, write in enumerate(route.write if shape.training else ()):
        layers[i] += _WEIGHT[route.read[i]](shape, shape.layers[i])
        layers[i] += _WRITE[write](shape, shape.layers[i])
    return PlanWork(tuple(layers), _shared(shape, set(route.read)))


def _shared(shape: CallShape, read: set[str]) -> Work:
    """Work whatever the layers: the output, and launches that serve all gathered layers."""
    output = float(shape.points * shape.out_features * shape.itemsize)
    total = Work(streams=output, operators=1)
    if "gather" in read:
        total += Work(operators=1)
    if shape.training:
        total += Work(streams=2 * output, operators=2)  # the upstream gradient: masked, summed
        if read & {*routes.GATHERED}:
            total += Work(streams=2 * output, operators=3)
    return total


def _padded_cells(layer: LayerShape) -> int:
    """Kp: columns of S_i as the kernel counts them."""
    return layer.rows * max(16, 1 << (layer.columns - 1).bit_length())


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
    """cells x C by C x D: its FLOPs, and its operands and result, which need not fit a cache."""
    cells = call.batch * layer.cells
    elements = cells * (layer.channels + call.out_features) + layer.channels * call.out_features
    return Work(
        dense_flops=2.0 * cells * layer.channels * call.out_features,
        streams=float(elements * call.itemsize),
        operators=1,
    )


def _gather(call: CallShape, layer: LayerShape) -> Work:
    columns = 2 * _columns(call, layer)
    return _reads(call, layer, 1) + Work(dense_flops=_product(call, layer), streams=columns)


def _fused_linear(call: CallShape, layer: LayerShape) -> Work:
    tile = choose("fused_linear", Key(DTYPES[call.itemsize], call.points, call.out_features))
    times = -(-call.out_features // tile.columns)
    return _reads(call, layer, times) + Work(fused_flops=_product(call, layer))


def _project_gather(call: CallShape, layer: LayerShape) -> Work:
    read = float(_corners(call) * call.points * call.out_features * call.itemsize)
    return _projection(call, layer) + Work(projected_reads=read)


def _project_product(call: CallShape, layer: LayerShape) -> Work:
    flops = 2.0 * call.points * _padded_cells(layer) * call.out_features
    return _projection(call, layer) + Work(fused_flops=flops)


def _gathered_weight(call: CallShape, layer: LayerShape) -> Work:
    return _gather(call, layer) + Work(operators=1)


def _fused_weight(call: CallShape, layer: LayerShape) -> Work:
    tile = choose("weight_gradient", Key(DTYPES[call.itemsize], call.points, call.out_features))
    times = -(-call.out_features // tile.rows)
    return _reads(call, layer, times) + Work(fused_flops=_product(call, layer), operators=1)


def _with_q(call: CallShape, layer: LayerShape) -> Work:
    """The weight of a projected layer comes from the Q that its map's gradient is made of."""
    return Work()


def _scatter(call: CallShape, layer: LayerShape) -> Work:
    columns = 2 * _columns(call, layer)
    return Work(dense_flops=_product(call, layer), streams=columns) + _added(call, layer)


def _feature_gradient(call: CallShape, layer: LayerShape) -> Work:
    return Work(fused_flops=_product(call, layer)) + _added(call, layer)


def _added(call: CallShape, layer: LayerShape) -> Work:
    """float32 sums: cleared, added to at the corners, and rounded into the gradient."""
    cells = call.batch * layer.cells * layer.channels
    return Work(
        scatters=float(_corners(call) * call.points * layer.channels * 4),
        streams=float(cells * (4 + 4 + call.itemsize)),
        operators=2,
    )


def _collect(call: CallShape, layer: LayerShape) -> Work:
    outputs = call.batch * layer.cells * call.out_features
    q = Work(
        collects=float(_corners(call) * call.points * call.out_features * 4),
        streams=float(outputs * (4 + 4 + call.itemsize)),
        operators=3,
    )
    return q + _projection(call, layer) + _projection(call, layer)


def _transposed_product(call: CallShape, layer: LayerShape) -> Work:
    flops = 2.0 * call.points * _padded_cells(layer) * call.out_features
    outputs = float(call.batch * layer.cells * call.out_features * call.itemsize)
    q = Work(fused_flops=flops, streams=outputs, operators=1)
    return q + _projection(call, layer) + _projection(call, layer)


_READ = {
    "gather": _gather,
    "fused_linear": _fused_linear,
    "project_gather": _project_gather,
    "project_product": _project_product,
}
_WEIGHT = {
    "gather": _gathered_weight,
    "fused_linear": _fused_weight,
    "project_gather": _with_q,
    "project_product": _with_q,
}
_WRITE = {
    "scatter": _scatter,
    "feature_gradient": _feature_gradient,
    "collect": _collect,
    "transposed_product": _transposed_product,
}
