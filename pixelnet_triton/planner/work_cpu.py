"""How much work each strategy is on the CPU, following that back end operator by operator.

P points, C channels, D outputs, cells = B H_i W_i, s bytes an element; a point has 4 corners.

               forward                                      backward
    gather     P C corners gathered, P x C x D              gathered again, P x C x D twice (dW_i
                                                            and G W_i), P C corners scattered
    project    cells x C x D, P D corners of projected      P D corners collected into Q,
               rows read                                    cells x C x D twice (dW_i and dX_i)

A CPU has one way to project and always takes two steps.
"""

from __future__ import annotations

from ..cpu.choice import prefers_grid_sample
from ..cpu.upstream import column_blocks
from .plan import Plan
from .shape import CallShape, LayerShape
from .work import Work

__all__ = ["layer_work", "shared_work", "strategies"]

# As the back end has them: the map above which NCHW is multiplied as
# it is, and the cells per corner above which only touched cells of NCHW are converted.
CONVERT_BYTES = 16 << 20
PICK_CELLS_PER_CORNER = 5
CORNERS = 4


def strategies(layer: LayerShape, ragged: bool) -> tuple[str, ...]:
    """What the back end can do with a layer."""
    return ("gather", "project_gather")


def layer_work(
    call: CallShape, layer: LayerShape, strategy: str, mode: str, all_gathered: bool
) -> Work:
    """Work that this layer causes with this strategy; the mode makes no difference.

    Small calls are left to PyTorch's own sampling if `all_gathered`.
    """
    if strategy == "gather":
        small = all_gathered and _is_small(call)
        work = _gather_forward(call, layer, small)
        return work + _gather_backward(call, layer, small) if call.training else work
    work = _project_forward(call, layer)
    return work + _project_backward(call, layer) if call.training else work


def shared_work(call: CallShape, plan: Plan) -> Work:
    """Work of the call as a whole: the output, and the operators that serve all layers at once."""
    output, blocks = _output_bytes(call), _blocks(call)
    small = not plan.projected and _is_small(call)
    work = Work(launches=20 if call.training else 12)
    if plan.gathered:
        # Adjacent gathered layers share a product. The first one writes the output, or reads and
        # writes it where projected layers came first; every other one reads and writes it.
        # Backward, both products of a run read the upstream gradient.
        runs = _runs(plan)
        passes = 2 * runs if plan.projected else 2 * runs - 1
        work += Work(stream=output * passes, launches=(6 if small else 33) + 3 * (runs - 1))
        if call.training:
            backward = output * (2 * runs - 1)
            work += Work(stream=backward, launches=(36 if small else 95) + 6 * (runs - 1))
    if plan.projected:
        # Blocks of columns are copied to their places, where there is more than one.
        work += Work(stream=output, launches=31 + 6 * blocks)
        if call.training:
            work += Work(stream=output, launches=25 + 25 * blocks)
    return work


def _runs(plan: Plan) -> int:
    """Runs of adjacent gathered layers."""
    gathered = plan.gathered
    return sum(i - 1 not in gathered for i in gathered)


def _is_small(call: CallShape) -> bool:
    """Does the back end leave sampling to PyTorch's own kernels, which are quicker to start?"""
    if call.ragged or call.itemsize < 4:
        return False
    channels = sum(layer.channels for layer in call.layers)
    channels_last = all(layer.channels_last for layer in call.layers)
    values = call.batch * sum(layer.channels * layer.cells for layer in call.layers)
    return prefers_grid_sample(call.points, channels, len(call.layers), values, channels_last)


def _itemsize(call: CallShape) -> int:
    """Half precision is computed in float32."""
    return max(4, call.itemsize)


def _output_bytes(call: CallShape) -> float:
    return float(call.points * call.out_features * _itemsize(call))


def _map_bytes(call: CallShape, layer: LayerShape) -> float:
    return float(call.batch * layer.cells * layer.channels * _itemsize(call))


def _products(call: CallShape, layer: LayerShape, rows: int) -> float:
    """FLOPs of rows x C by C x D."""
    return 2.0 * rows * layer.channels * call.out_features


def _is_rows(call: CallShape, layer: LayerShape) -> bool:
    """Can the map be read as it is, as rows of channels?"""
    return layer.channels_last and call.itemsize >= 4


def _read(call: CallShape, layer: LayerShape, small: bool) -> Work:
    """S_i X_i, (P, C)."""
    values = float(call.points * layer.channels)
    columns = values * _itemsize(call)
    if small:
        return Work(sampled=values, stream=columns, launches=5)
    corners = CORNERS * columns
    work = Work(gather=corners, stream=columns, located=call.points, launches=4)
    if _is_rows(call, layer):
        return work
    cells = call.batch * layer.cells
    if call.ragged or cells < PICK_CELLS_PER_CORNER * CORNERS * call.points:
        return work + Work(stream=2 * _map_bytes(call, layer), launches=3)
    return work + Work(strided=corners, stream=2 * corners, launches=4 * call.batch)


def _gather_forward(call: CallShape, layer: LayerShape, small: bool) -> Work:
    return _read(call, layer, small) + Work(product=_products(call, layer, call.points))


def _gather_backward(call: CallShape, layer: LayerShape, small: bool) -> Work:
    values = float(call.points * layer.channels)
    columns = values * _itemsize(call)
    work = _read(call, layer, small) + Work(
        product=2 * _products(call, layer, call.points),
        stream=columns + _map_bytes(call, layer),
        launches=10,
    )
    if small:
        return work + Work(sampled=values)
    corners = CORNERS * columns
    work += Work(scatter=corners, located=2 * call.points, launches=4)  # sorted by cell, too
    if _is_rows(call, layer):
        return work
    if call.ragged:
        return work + Work(stream=2 * _map_bytes(call, layer))
    return work + Work(strided=corners, launches=14 * call.batch)


def _project_forward(call: CallShape, layer: LayerShape) -> Work:
    cells = call.batch * layer.cells
    blocks = _blocks(call)
    table = float(cells * call.out_features * _itemsize(call))
    return Work(
        product=_products(call, layer, cells),
        rows=CORNERS * _output_bytes(call),
        stream=table + blocks * _map_bytes(call, layer) + _conversion(call, layer),
        launches=8 * blocks,
        located=call.points,
    )


def _project_backward(call: CallShape, layer: LayerShape) -> Work:
    cells = call.batch * layer.cells
    blocks = _blocks(call)
    q = float(cells * call.out_features * _itemsize(call))
    # For each block of outputs Q is written once and read twice, X_i is read, and dX_i is
    # written, or read and added to.
    maps = (2 * blocks) * _map_bytes(call, layer)
    return Work(
        product=2 * _products(call, layer, cells),
        collect=CORNERS * _output_bytes(call),
        stream=q + maps + 2 * _conversion(call, layer),
        launches=20 + 7 * blocks,
        located=2 * call.points,
    )


def _blocks(call: CallShape) -> int:
    """Blocks of outputs that projected layers are worked on in."""
    return len(column_blocks(max(call.points, 1), call.out_features))


def _conversion(call: CallShape, layer: LayerShape) -> float:
    """Bytes read and written to turn the map into rows, where that is done."""
    size = _map_bytes(call, layer)
    large = call.itemsize >= 4 and size > CONVERT_BYTES
    return 0.0 if _is_rows(call, layer) or large else 2 * size
