"""How much work each route is on the CPU, counted beside the code that it counts.

P points, C channels, D outputs, cells = B H_i W_i; a point has K corners (4, or 1).

               forward                                      backward
    gather     P C K corners gathered, P x C x D            gathered again, P x C x D twice (dW_i
                                                            and G W_i), P C K corners scattered
    project    cells x C x D, P D K corners of projected    P D K corners collected into Q,
               rows read                                    cells x C x D twice (dW_i and dX_i)

Operators are what PyTorch dispatches, views included; what autograd records counts twice. The
counts are averages over shapes: tests/test_cpu_work.py runs calls, and counts FLOPs and operators.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from ..call import CallShape, Plan, PlanWork, Route, Work
from .planes import images_together, strips
from .routes import column_blocks, copied_bytes, in_double, part_count

__all__ = ["FUNCTION_OPERATORS", "LOCATING_OPERATORS", "picking_operators", "work"]

# What a pass through `torch.autograd.Function` takes, in operators; an expression has none of it.
FUNCTION_OPERATORS = 8
# How many operators take as long as it takes NumPy to begin all that finds corners (corners.py).
LOCATING_OPERATORS = 12

# The sampling kernels take twice the values there and back; this is the share of the way there.
SAMPLED_FORWARD = 0.65
# How many times as long they take there in float64.
DOUBLE = 1.3
# What is streamed for a map that is copied for them, in its bytes as a copy, there and back: there
# narrower numbers are read; back a gradient is cleared, written and converted.
COPIED_FORWARD, COPIED_BACKWARD = 0.6, 2.4
# How many times as long their way back takes with the gradient of points.
SAMPLED_MOVING = 1.5


def picking_operators(shape: CallShape, route: Route) -> int:
    """Those of an expression that autograd does not record: what finds corners for all layers."""
    picked = [m for m, word in zip(shape.layers, route.read, strict=True) if word == "picked"]
    if not (route.by_autograd and picked):
        return 0
    kinds = {layer.channels_last for layer in picked}
    return sum(LOCATING_OPERATORS + (8 if channels_last else 16) for channels_last in kinds)


def work(shape: CallShape, plan: Plan) -> PlanWork:
    """Forward and, for training, backward; `plan.route` says how."""
    assert plan.route is not None
    return _count(shape).work(plan, plan.route)


class _Way(NamedTuple):
    """All that the work of a layer depends on, besides the shape of the call."""

    projected: bool
    forward: str
    backward: str
    read: str
    write: str


@lru_cache(maxsize=64)
def _count(shape: CallShape) -> _Count:
    """One for all plans of a call, which have most of their layers alike."""
    return _Count(shape)


class _Count:
    """Counts the work of a call."""

    def __init__(self, shape: CallShape) -> None:
        self.shape = shape
        self.itemsize = max(4, shape.itemsize)  # of what is interpolated and summed
        self.converts = shape.operand_size != shape.itemsize  # operands, before products
        self.mixed = shape.operand_size != self.itemsize  # what is summed is wider than operands
        self.blocks = len(column_blocks(shape.points, shape.out_features, shape.operand_size))
        self.parts = part_count(shape.points, shape.batch, shape.ragged)
        self.one_part = self.parts == 1
        self.output = float(shape.points * shape.out_features * shape.operand_size)
        self._layers: dict[tuple[int, _Way], Work] = {}

    def work(self, plan: Plan, route: Route) -> PlanWork:
        layers = []
        for i, strategy in enumerate(plan.layers):
            write = route.write[i] if route.write else ""
            projected = strategy != "gather"
            way = _Way(projected, route.forward, route.backward, route.read[i], write)
            if (i, way) not in self._layers:
                self._layers[i, way] = self.layer(i, way)
            layers.append(self._layers[i, way])
        return PlanWork(tuple(layers), self.shared(plan, route))

    # One layer

    def layer(self, i: int, way: _Way) -> Work:
        if way.projected:
            work = self._projected_forward(i)
            return work + self._projected_backward(i) if way.backward else work
        work = self._read(i, way.forward, way.read) + self._products(i, self.shape.points)
        return work + self._gathered_backward(i, way) if way.backward else work

    def _products(self, i: int, rows: int) -> Work:
        """rows x C by C x D."""
        channels = self.shape.layers[i].channels
        return Work(dense_flops=2.0 * rows * channels * self.shape.out_features)

    def _columns(self, i: int) -> float:
        """Bytes of (P, C)."""
        return float(self.shape.points * self.shape.layers[i].channels * self.itemsize)

    def _map(self, i: int) -> float:
        """Bytes of the map in the dtype that is computed in."""
        layer = self.shape.layers[i]
        return float(self.shape.batch * layer.cells * layer.channels * self.itemsize)

    def _read(self, i: int, way: str, word: str) -> Work:
        """S_i X_i, (P, C)."""
        shape, columns = self.shape, self._columns(i)
        half = shape.itemsize < 4
        if way != "lists":
            values = SAMPLED_FORWARD * shape.points * shape.layers[i].channels
            if word == "picked":
                return self._picked(i)
            if way == "expression":
                copied = copied_bytes(shape, i)
                operators = 4.5 if copied else 1.3
                moved = columns + COPIED_FORWARD * copied
                if in_double(shape):  # joined in float64, then rounded
                    values, moved = DOUBLE * values, moved + 4 * columns
                return Work(sampled_values=values, streams=moved, operators=operators)
            return Work(sampled_values=values, streams=columns, operators=1.3)
        corners = shape.corners(i) * columns
        if word == "planes":
            return Work(
                strided_reads=corners,
                streams=columns + (2 * corners if half else 0.0),
                located_points=shape.points,
                operators=self._plane_operators(i, 13),
            )
        work = Work(
            map_reads=corners,
            streams=columns,
            located_points=shape.points,
            operators=10 * self.parts,
        )
        if word == "picked":
            operators = 5 if shape.layers[i].dense else 11
            return work + Work(streams=2 * corners, operators=operators * self.parts)
        if word == "converted":
            return work + Work(streams=2 * self._map(i), operators=5 * self.parts)
        return work

    def _picked(self, i: int) -> Work:
        """Corners in an expression, copied and weighted."""
        corners = self.shape.corners(i) * self._columns(i)
        copied = Work(streams=corners, located_points=self.shape.points, operators=6.5)
        if self.shape.layers[i].channels_last:
            return copied + Work(map_reads=corners)
        return copied + Work(strided_reads=corners)

    def _plane_operators(self, i: int, a_strip: int) -> float:
        """Operators on groups of images, and on strips of their planes."""
        shape, channels = self.shape, self.shape.layers[i].channels
        entries = shape.corners(i) * shape.points // max(shape.batch, 1)
        images = 1 if shape.ragged else images_together(channels, entries)
        groups, images = -(-shape.batch // images), min(images, shape.batch)
        return 6 + groups * (16 + a_strip * len(strips(channels, entries * images)))

    def _gathered_backward(self, i: int, way: _Way) -> Work:
        shape, columns = self.shape, self._columns(i)
        work = self._products(i, 2 * shape.points)
        work += Work(streams=columns + self._map(i))
        half = shape.itemsize < 4
        channels_last = shape.layers[i].channels_last
        if way.read == "picked" and way.backward == "autograd":
            # Added to their cells value by value, whatever the layout.
            corners = shape.corners(i) * columns
            return work + Work(strided_reads=corners, streams=2 * corners, operators=15)
        if way.backward != "lists":
            values = (2 - SAMPLED_FORWARD) * shape.points * shape.layers[i].channels
            if shape.moving_points:
                values *= SAMPLED_MOVING
                work += Work(operators=5)
            work += Work(sampled_values=values, operators=2.3)
            if way.backward == "autograd":
                copied = copied_bytes(shape, i)
                moved = COPIED_BACKWARD * copied
                return work + Work(streams=moved, operators=5 if copied else 1.3)
            # Planes are written: rows are made of them.
            turned = Work(streams=2 * self._map(i), operators=8) if channels_last else Work()
            return work + self._read(i, way.backward, way.read) + turned
        work += self._read(i, "lists", way.read) + Work(operators=5 * self.parts)
        if shape.moving_points:  # read again by the slopes along either axis
            again = self._read(i, "lists", way.read)
            work += again + again + Work(located_points=shape.points, streams=3 * columns)
            work += Work(operators=34)  # corners with slopes are found layer by layer
        corners = shape.corners(i) * columns
        if way.write == "planes":
            summed = 2 * self._map(i) if half else 0.0  # in float32
            return work + Work(
                strided_reads=corners, streams=summed, operators=self._plane_operators(i, 18)
            )
        # Corners are sorted by cell, too.
        operators = {"added": 10, "touched": 14, "listed": 11, "turned": 16}[way.write]
        work += Work(scatters=corners, located_points=2 * shape.points, operators=operators)
        if shape.layers[i].dense and channels_last and not half:
            return work
        if way.write in ("added", "touched"):
            return work + Work(streams=corners)
        return work + Work(streams=2 * self._map(i))

    def _matrices(self, i: int) -> int:
        """Products that a projected layer takes: planes are multiplied image by image."""
        layer = self.shape.layers[i]
        planes = layer.dense and not layer.channels_last and not self.converts
        return self.shape.batch if planes else 1

    def _conversion(self, i: int) -> float:
        """Bytes read and written to turn the map into rows of operands, where that is done."""
        layer = self.shape.layers[i]
        return 2 * self._map(i) if self.converts or not layer.dense else 0.0

    def _table(self, i: int) -> float:
        """Bytes of the projected map as it is written, and as operand of products."""
        cells = self.shape.batch * self.shape.layers[i].cells
        table = float(cells * self.shape.out_features * self.itemsize)
        return 2.5 * table if self.mixed else table

    def _projected_corners(self, i: int) -> float:
        """Bytes of the projected rows at all corners."""
        shape = self.shape
        return float(shape.corners(i) * shape.points * shape.out_features * self.itemsize)

    def _projected_forward(self, i: int) -> Work:
        cells = self.shape.batch * self.shape.layers[i].cells
        return self._products(i, cells) + Work(
            projected_reads=self._projected_corners(i),
            streams=self._table(i) + self.blocks * self._map(i) + self._conversion(i),
            located_points=self.shape.points,
            operators=(3 + 4 * self.blocks) * self._matrices(i),
        )

    def _projected_backward(self, i: int) -> Work:
        cells = self.shape.batch * self.shape.layers[i].cells
        # For each block of outputs Q is written once and read twice, X_i is read, and dX_i is
        # written, or read and added to.
        moving = self.shape.moving_points
        corners = self._projected_corners(i)
        return self._products(i, (3 if moving else 2) * cells) + Work(
            projected_reads=2 * corners * moving,
            collects=corners,
            streams=self._table(i) + 2 * self.blocks * self._map(i) + 2 * self._conversion(i),
            located_points=2 * self.shape.points,
            operators=(4 + 8 * self.blocks) * self._matrices(i),
        )

    # What layers share

    def shared(self, plan: Plan, route: Route) -> Work:
        """The output, and the operators that serve all layers at once."""
        work = self._shared(plan, route.forward, backward=False)
        passes = 1
        if route.backward:
            if route.by_autograd:  # the forward pass is recorded
                work += Work(operators=work.operators)
            work += self._shared(plan, route.backward, backward=True)
            passes = 2
        if route.by_autograd:
            return work + Work(operators=picking_operators(self.shape, route))
        return work + Work(operators=passes * FUNCTION_OPERATORS)

    def _shared(self, plan: Plan, way: str, backward: bool) -> Work:
        """Of one pass."""
        several = self.shape.batch > 1
        if way == "lists":
            work = Work(operators=3 if backward else 5)
            if plan.gathered:
                work += self._gathered_shared(plan, backward)
            return work + self._projected_shared(plan, backward) if plan.projected else work
        if way in ("expression", "autograd"):
            ragged = self.shape.ragged
            operators = 10 + 3 * ragged if backward else 10 + 2 * several + 18 * ragged
        else:
            operators = 21 if backward else 11 + 2 * several
        return Work(streams=self.output, operators=operators)

    def _gathered_shared(self, plan: Plan, backward: bool) -> Work:
        """Adjacent gathered layers share a product, which reads and writes the output.

        The first one only writes it, unless projected layers came first; then all points in one
        part are added to while the block is in the cache. Backward, both products of a run read
        the upstream gradient.
        """
        gathered, projected = plan.gathered, bool(plan.projected)
        runs = sum(i - 1 not in gathered for i in gathered)
        several = 5 * (self.shape.batch > 1)
        if backward:
            passes = 2 * runs - 1 - (projected and self.one_part)
            operators = 23 + several + self.parts * (1 + 6 * runs + self.blocks * (3 + 3 * runs))
            return Work(streams=self.output * passes, operators=operators)
        passes, products = 2 * runs - 1, runs * self.parts
        if projected:
            passes = 0 if self.one_part else 2 * runs
            products = runs * (self.blocks if self.one_part else self.parts)
        operators = 8 + several + 9 * self.parts + 4 * products
        return Work(streams=self.output * passes, operators=operators)

    def _projected_shared(self, plan: Plan, backward: bool) -> Work:
        """Blocks of columns are copied to their places where there are several.

        What is interpolated in float32 and multiplied in half precision is converted on the way.
        """
        mixed = 3 * self.output if self.mixed else 0.0
        if backward:
            operators = 33 + 3 * self.blocks
            if self.shape.moving_points:
                operators += 18 + 24 * self.blocks
            return Work(streams=self.output + mixed, operators=operators)
        added = mixed if plan.gathered else 0.0
        operators = 16 + 3 * (self.shape.batch > 1) + 12 * self.blocks
        return Work(streams=self.output + added, operators=operators)
