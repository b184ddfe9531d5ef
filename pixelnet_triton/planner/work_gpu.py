"""How much work each strategy is on a GPU: one function per line of the back end's own table.

P points, C channels, D outputs, cells = B H_i W_i, s bytes an element; a point has 4 corners.

                    forward                             backward
    gather          P C corners read, P x C x D         the same again for dW_i; G W_i, scattered
    project_gather  cells x C x D, P D corners read     P D scattered into Q; Q^T X_i and Q W_i
    project_product cells x C x D, P x Kp x D           cells_p x N x D; Q^T X_i and Q W_i

In one pass the fused kernel gathers again for each tile of outputs; two steps write the gathered
columns once and read them once. Kp = H_i WP, with WP = W_i padded to a power of two >= 16.
"""

from __future__ import annotations

import torch

from ..call.plan import Plan
from ..call.shape import CallShape, LayerShape
from ..call.work import Work
from ..kernels.configs import linear_config, weight_gradient_config

__all__ = ["layer_work", "shared_work", "strategies"]

# Wider maps have more cells than a tile of points can use: the interpolation product would be
# nearly all zeros, and one row of it no longer fits the shared memory of a tile.
WIDEST_PRODUCT = 64

_DTYPES = {8: torch.float64, 4: torch.float32, 2: torch.bfloat16}


def strategies(layer: LayerShape, ragged: bool) -> tuple[str, ...]:
    """What the kernels can do with a layer.

    Interpolation as a product needs the points of a tile in one image, hence in order.
    """
    if ragged or layer.columns > WIDEST_PRODUCT:
        return ("gather", "project_gather")
    return ("gather", "project_gather", "project_product")


def layer_work(
    call: CallShape, layer: LayerShape, strategy: str, mode: str, all_gathered: bool
) -> Work:
    """Work that this layer causes with this strategy, among others that are all gathered or not.

    Two steps multiply gathered columns by a plain product where there is nothing else to add,
    and by the fused kernel beside projected layers.
    """
    forward = _FORWARD[strategy](call, layer, mode)
    if strategy == "gather" and mode == "two_step" and not all_gathered:
        forward = forward._replace(dense_flops=0.0, fused_flops=forward.dense_flops)
    return forward + _BACKWARD[strategy](call, layer, mode) if call.training else forward


def shared_work(call: CallShape, plan: Plan) -> Work:
    """Work whatever the layers: the output, and launches that serve all gathered layers."""
    output = float(call.points * call.out_features * call.itemsize)
    work = Work(streams=output, operators=1)
    if plan.gathered and plan.mode == "two_step":
        work += Work(operators=1)
    if call.training:
        work += Work(streams=2 * output, operators=2)  # the upstream gradient: masked, summed
        if plan.gathered:
            work += Work(streams=2 * output, operators=3)
    return work


def _padded_cells(layer: LayerShape) -> int:
    """Kp: columns of S_i as the kernel counts them."""
    return layer.rows * max(16, 1 << (layer.columns - 1).bit_length())


def _corners(call: CallShape, layer: LayerShape, times: float) -> Work:
    """Four corners a point, read `times` times over."""
    amount = 4.0 * call.points * layer.channels * call.itemsize * times
    return Work(map_reads=amount) if layer.channels_last else Work(strided_reads=amount)


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


def _gather_forward(call: CallShape, layer: LayerShape, mode: str) -> Work:
    columns = float(call.points * layer.channels * call.itemsize)
    if mode == "two_step":
        return (
            _corners(call, layer, 1)
            + Work(dense_flops=_product(call, layer))
            + Work(streams=2 * columns)
        )
    tile = linear_config(_DTYPES[call.itemsize], call.out_features, call.points).block_d
    times = -(-call.out_features // tile)
    return _corners(call, layer, times) + Work(fused_flops=_product(call, layer))


def _gather_backward(call: CallShape, layer: LayerShape, mode: str) -> Work:
    flops = _product(call, layer)
    columns = float(call.points * layer.channels * call.itemsize)
    cells = call.batch * layer.cells * layer.channels
    # float32 sums: cleared, added to at four corners, and rounded into the gradient
    scatter = Work(
        scatters=4.0 * call.points * layer.channels * 4,
        streams=float(cells * (4 + 4 + call.itemsize)),
        operators=2,
    )
    if mode == "two_step":
        # columns written and read for dW_i, G W_i written and read for the scatter
        return (
            _corners(call, layer, 1)
            + Work(dense_flops=2 * flops, streams=4 * columns, operators=1)
            + scatter
        )
    tile = weight_gradient_config(_DTYPES[call.itemsize]).block_m
    times = -(-call.out_features // tile)
    return _corners(call, layer, times) + Work(fused_flops=2 * flops, operators=1) + scatter


def _rows_forward(call: CallShape, layer: LayerShape, mode: str) -> Work:
    read = 4.0 * call.points * call.out_features * call.itemsize
    return _projection(call, layer) + Work(projected_reads=read)


def _rows_backward(call: CallShape, layer: LayerShape, mode: str) -> Work:
    outputs = call.batch * layer.cells * call.out_features
    q = Work(
        collects=4.0 * call.points * call.out_features * 4,
        streams=float(outputs * (4 + 4 + call.itemsize)),
        operators=3,
    )
    return q + _projection(call, layer) + _projection(call, layer)


def _product_forward(call: CallShape, layer: LayerShape, mode: str) -> Work:
    flops = 2.0 * call.points * _padded_cells(layer) * call.out_features
    return _projection(call, layer) + Work(fused_flops=flops)


def _product_backward(call: CallShape, layer: LayerShape, mode: str) -> Work:
    flops = 2.0 * call.points * _padded_cells(layer) * call.out_features
    outputs = float(call.batch * layer.cells * call.out_features * call.itemsize)
    q = Work(fused_flops=flops, streams=outputs, operators=1)
    return q + _projection(call, layer) + _projection(call, layer)


_FORWARD = {
    "gather": _gather_forward,
    "project_gather": _rows_forward,
    "project_product": _product_forward,
}
_BACKWARD = {
    "gather": _gather_backward,
    "project_gather": _rows_backward,
    "project_product": _product_backward,
}
