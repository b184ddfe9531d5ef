"""How much work each strategy is on the CPU, following that back end operator by operator.

P points, C channels, D outputs, cells = B H_i W_i, s bytes an element; a point has 4 corners.

               forward                                      backward
    gather     P C corners gathered, P x C x D              gathered again, P x C x D twice (dW_i
                                                            and G W_i), P C corners scattered
    project    cells x C x D, P D corners of projected      P D corners collected into Q,
               rows read                                    cells x C x D twice (dW_i and dX_i)

A CPU has one way to project and always takes two steps. How it gathers depends on the size of the
call (`Way`); the smallest are the business of `grid_sample`.
"""

from __future__ import annotations

from enum import Enum

from ..call.plan import Plan
from ..call.shape import CallShape, LayerShape
from ..call.work import Work
from ..cpu.choice import keeps_hypercolumns, prefers_grid_sample, reads_by_grid_sample
from ..cpu.maps import SPARSE_CELLS_PER_CORNER
from ..cpu.sampling import PART_POINTS, PART_POINTS_OF_ONE_IMAGE
from ..cpu.upstream import column_blocks

__all__ = ["Way", "layer_work", "shared_work", "strategies", "way_of"]

CORNERS = 4
# Of twice the values, what the sampling kernels take there and back, the share of the way there.
SAMPLED_FORWARD = 0.65


class Way(Enum):
    """How layers are gathered: if all of them are, a small call goes by PyTorch's own kernels.

    KEPT: as an expression that keeps its hypercolumns, if there is a backward pass; SAMPLED: the
    same kernels, called again for the backward pass; LISTS: bags, or plane by plane.
    """

    KEPT = 1
    SAMPLED = 2
    LISTS = 3


def strategies(layer: LayerShape, ragged: bool) -> tuple[str, ...]:
    """What the back end can do with a layer."""
    return ("gather", "project_gather")


def layer_work(
    call: CallShape, layer: LayerShape, strategy: str, mode: str, all_gathered: bool
) -> Work:
    """Work that this layer causes with this strategy; the mode makes no difference."""
    if strategy == "gather":
        way = way_of(call, all_gathered)
        work = _gather_forward(call, layer, way)
        return work + _gather_backward(call, layer, way) if call.training else work
    work = _project_forward(call, layer)
    return work + _project_backward(call, layer) if call.training else work


def shared_work(call: CallShape, plan: Plan) -> Work:
    """Work of the call as a whole: the output, and the operators that serve all layers at once."""
    output, blocks, together = _output_bytes(call), _blocks(call), _parts(call) == 1
    runs = _runs(plan)
    if not plan.projected and way_of(call, True) is Way.KEPT:
        backward = Work(streams=output, operators=25) if call.training else Work()
        return Work(streams=output, operators=3 + 12 * call.ragged) + backward
    work = Work(operators=20 if call.training else 12)
    if plan.gathered:
        # Adjacent gathered layers share a product. The first one writes the output, or reads and
        # writes it where projected layers came first; every other one reads and writes it.
        # Backward, both products of a run read the upstream gradient.
        small = not plan.projected and way_of(call, True) is Way.SAMPLED
        passes = 2 * runs - 1
        if plan.projected:  # added to a block that is in the cache, or to all of the output
            passes = 0 if together else 2 * runs
        work += Work(streams=output * passes, operators=(6 if small else 33) + 3 * (runs - 1))
        if call.training:
            backward_passes = 2 * runs - 1 - bool(plan.projected and together)
            work += Work(
                streams=output * backward_passes,
                operators=(36 if small else 95) + 6 * (runs - 1),
            )
    if plan.projected:
        # Blocks of columns are copied to their places, where there is more than one.
        # What is interpolated in float32 and multiplied in half precision is converted on the way.
        mixed = 3 * output if _mixed(call) else 0.0
        added = mixed if plan.gathered else 0.0
        work += Work(streams=output + added, operators=31 + 6 * blocks)
        if call.training:
            work += Work(streams=output + mixed, operators=25 + 25 * blocks)
    return work


def _runs(plan: Plan) -> int:
    """Runs of adjacent gathered layers."""
    gathered = plan.gathered
    return sum(i - 1 not in gathered for i in gathered)


def way_of(call: CallShape, all_gathered: bool) -> Way:
    """As the back end decides."""
    if not all_gathered:
        return Way.LISTS
    channels = sum(layer.channels for layer in call.layers)
    values = call.batch * sum(layer.channels * layer.cells for layer in call.layers)
    half = call.itemsize < 4
    weights = channels * call.out_features if _converted(call) else 0
    converted = values + weights if half else 0
    if keeps_hypercolumns(call.points, channels, len(call.layers), converted):
        return Way.KEPT
    if half:
        return Way.LISTS
    channels_last = all(layer.channels_last for layer in call.layers)
    sizes = call.points, channels, len(call.layers)
    if call.training:
        sampled = prefers_grid_sample(*sizes, values, channels_last)
    else:
        sampled = reads_by_grid_sample(*sizes, call.batch, channels_last)
    if not sampled or call.ragged:
        return Way.LISTS
    return Way.SAMPLED if call.training else Way.KEPT


def _parts(call: CallShape) -> int:
    """Parts of the points that gathered layers are worked on in."""
    per_image = call.points if call.ragged else call.points / max(call.batch, 1)
    if call.ragged or call.batch == 1 or per_image >= PART_POINTS:
        images = 1 if call.ragged else call.batch
        return int(images * -(-per_image // PART_POINTS_OF_ONE_IMAGE))
    return int(-(-call.batch // (PART_POINTS // max(per_image, 1))))


def _itemsize(call: CallShape) -> int:
    """Half precision is computed in float32."""
    return max(4, call.itemsize)


def _operand_size(call: CallShape) -> int:
    """Bytes of an operand of products."""
    return call.itemsize if call.half_products else _itemsize(call)


def _output_bytes(call: CallShape) -> float:
    return float(call.points * call.out_features * _operand_size(call))


def _map_bytes(call: CallShape, layer: LayerShape) -> float:
    return float(call.batch * layer.cells * layer.channels * _itemsize(call))


def _products(call: CallShape, layer: LayerShape, rows: int) -> float:
    """FLOPs of rows x C by C x D."""
    return 2.0 * rows * layer.channels * call.out_features


def _sparse(call: CallShape, layer: LayerShape) -> bool:
    """Are so few of the cells touched that no map is turned or converted as a whole?"""
    cells = call.batch * layer.cells
    return cells >= SPARSE_CELLS_PER_CORNER * CORNERS * call.points


def _by_planes(call: CallShape, layer: LayerShape) -> bool:
    """Is the map read and written plane by plane?"""
    return not layer.channels_last and _sparse(call, layer)


def _read(call: CallShape, layer: LayerShape, way: Way) -> Work:
    """S_i X_i, (P, C)."""
    values = float(call.points * layer.channels)
    columns = values * _itemsize(call)
    if way is not Way.LISTS:
        work = Work(sampled_values=SAMPLED_FORWARD * values, streams=columns, operators=2)
        return work + _whole_conversion(call, layer)
    corners = CORNERS * columns
    if _by_planes(call, layer):
        stream = columns + (0 if call.itemsize >= 4 else 2 * corners)
        return Work(
            strided_reads=corners,
            streams=stream,
            located_points=call.points,
            operators=8 * call.batch,
        )
    work = Work(map_reads=corners, streams=columns, located_points=call.points, operators=4)
    if layer.channels_last and call.itemsize >= 4:  # rows as they are
        return work
    if _sparse(call, layer):  # touched cells alone are converted
        return work + Work(streams=2 * corners, operators=5)
    return work + Work(streams=2 * _map_bytes(call, layer), operators=3)


def _gather_forward(call: CallShape, layer: LayerShape, way: Way) -> Work:
    return _read(call, layer, way) + Work(dense_flops=_products(call, layer, call.points))


def _gather_backward(call: CallShape, layer: LayerShape, way: Way) -> Work:
    values = float(call.points * layer.channels)
    columns = values * _itemsize(call)
    work = Work(
        dense_flops=2 * _products(call, layer, call.points),
        streams=columns + _map_bytes(call, layer),
        operators=10,
    )
    if way is not Way.LISTS:
        work += Work(sampled_values=(2 - SAMPLED_FORWARD) * values, operators=3)
    if way is Way.KEPT:
        return work + _whole_conversion(call, layer)
    work += _read(call, layer, way)
    if way is Way.SAMPLED:  # which writes planes: rows are made of them
        turned = 2 * _map_bytes(call, layer) if layer.channels_last else 0.0
        return work + Work(streams=turned)
    corners = CORNERS * columns
    if _by_planes(call, layer):
        summed = 0.0 if call.itemsize >= 4 else 2 * _map_bytes(call, layer)  # in float32
        return work + Work(strided_reads=corners, streams=summed, operators=9 * call.batch)
    work += Work(
        scatters=corners, located_points=2 * call.points, operators=4
    )  # sorted by cell, too
    if layer.channels_last and call.itemsize >= 4:
        return work
    if _sparse(call, layer):
        return work + Work(streams=corners, operators=6)
    return work + Work(streams=2 * _map_bytes(call, layer), operators=3 * call.batch)


def _project_forward(call: CallShape, layer: LayerShape) -> Work:
    cells = call.batch * layer.cells
    blocks = _blocks(call)
    table = float(cells * call.out_features * _itemsize(call))
    return Work(
        dense_flops=_products(call, layer, cells),
        projected_reads=CORNERS * float(call.points * call.out_features * _itemsize(call)),
        streams=_as_operand(call, table)
        + blocks * _map_bytes(call, layer)
        + _conversion(call, layer),
        operators=8 * blocks * _matrices(call, layer),
        located_points=call.points,
    )


def _project_backward(call: CallShape, layer: LayerShape) -> Work:
    cells = call.batch * layer.cells
    blocks = _blocks(call)
    q = float(cells * call.out_features * _itemsize(call))
    # For each block of outputs Q is written once and read twice, X_i is read, and dX_i is
    # written, or read and added to.
    maps = (2 * blocks) * _map_bytes(call, layer)
    return Work(
        dense_flops=2 * _products(call, layer, cells),
        collects=CORNERS * float(call.points * call.out_features * _itemsize(call)),
        streams=_as_operand(call, q) + maps + 2 * _conversion(call, layer),
        operators=20 + 7 * blocks * _matrices(call, layer),
        located_points=2 * call.points,
    )


def _blocks(call: CallShape) -> int:
    """Blocks of outputs that projected layers are worked on in."""
    return len(column_blocks(max(call.points, 1), call.out_features, _operand_size(call)))


def _matrices(call: CallShape, layer: LayerShape) -> int:
    """Products that a projected layer takes: planes are multiplied image by image."""
    return call.batch if not layer.channels_last and not _converted(call) else 1


def _conversion(call: CallShape, layer: LayerShape) -> float:
    """Bytes read and written to turn the map into rows in float32, where that is done."""
    return 2 * _map_bytes(call, layer) if _converted(call) else 0.0


def _whole_conversion(call: CallShape, layer: LayerShape) -> Work:
    """A map of half precision as a whole to float32, or its gradient back."""
    if call.itemsize >= 4:
        return Work()
    return Work(streams=1.5 * _map_bytes(call, layer), operators=2)


def _mixed(call: CallShape) -> bool:
    """Are operands of products in another dtype than what is interpolated?"""
    return _operand_size(call) != _itemsize(call)


def _as_operand(call: CallShape, moved: float) -> float:
    """Bytes of something computed in float32, once written, that a product takes or gives."""
    return 2.5 * moved if _mixed(call) else moved


def _converted(call: CallShape) -> bool:
    """Are the operands of products in another dtype than the maps?"""
    return _operand_size(call) != call.itemsize
