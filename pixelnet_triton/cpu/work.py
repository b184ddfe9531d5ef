"""How much work each route is on the CPU, counted beside the code that it counts.

P points, C channels, D outputs, cells = B H_i W_i; a point has K corners (4, or 1).

               forward                                      backward
    gather     P C K corners gathered, P x C x D            gathered again, P x C x D twice (dW_i
                                                            and G W_i), P C K corners scattered
    project    cells x C x D, P D K corners of projected    P D K corners collected into Q,
               rows read                                    cells x C x D twice (dW_i and dX_i)

tests/test_cpu_work.py runs calls and counts FLOPs and operators.
"""

from __future__ import annotations

from ..call import CallShape, Plan, PlanWork, Route, Work
from .routes import column_blocks, in_one_part

__all__ = ["work"]

# Of twice the values, what the sampling kernels take there and back, the share of the way there.
SAMPLED_FORWARD = 0.65


def work(shape: CallShape, plan: Plan) -> PlanWork:
    """Forward and, for training, backward; `plan.route` says how."""
    assert plan.route is not None
    count = _Count(shape, plan, plan.route)
    return PlanWork(tuple(count.layer(i) for i in range(len(plan.layers))), count.shared())


class _Count:
    """Counts one call."""

    def __init__(self, shape: CallShape, plan: Plan, route: Route) -> None:
        self.shape, self.plan, self.route = shape, plan, route
        self.itemsize = max(4, shape.itemsize)  # of what is interpolated and summed
        self.converts = shape.operand_size != shape.itemsize  # operands, before products
        self.mixed = shape.operand_size != self.itemsize  # what is summed is wider than operands
        self.blocks = len(column_blocks(shape.points, shape.out_features, shape.operand_size))
        self.together = in_one_part(max(shape.points, 1), shape.batch, shape.ragged)
        self.output = float(shape.points * shape.out_features * shape.operand_size)

    # One layer

    def layer(self, i: int) -> Work:
        if self.plan.layers[i] != "gather":
            work = self._projected_forward(i)
            return work + self._projected_backward(i) if self.route.backward else work
        work = self._read(i, self.route.forward) + self._products(i, self.shape.points)
        return work + self._gathered_backward(i) if self.route.backward else work

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

    def _read(self, i: int, way: str) -> Work:
        """S_i X_i, (P, C)."""
        shape, columns = self.shape, self._columns(i)
        half = shape.itemsize < 4
        if way != "lists":
            values = SAMPLED_FORWARD * shape.points * shape.layers[i].channels
            converted = Work(streams=1.5 * self._map(i), operators=2) if half else Work()
            return Work(sampled_values=values, streams=columns, operators=2) + converted
        corners = shape.corners(i) * columns
        word = self.route.read[i]
        if word == "planes":
            return Work(
                strided_reads=corners,
                streams=columns + (2 * corners if half else 0.0),
                located_points=shape.points,
                operators=8 * shape.batch,
            )
        work = Work(map_reads=corners, streams=columns, located_points=shape.points, operators=4)
        if word == "picked":
            return work + Work(streams=2 * corners, operators=5)
        if word == "converted":
            return work + Work(streams=2 * self._map(i), operators=3)
        return work

    def _gathered_backward(self, i: int) -> Work:
        shape, columns, way = self.shape, self._columns(i), self.route.backward
        work = self._products(i, 2 * shape.points)
        work += Work(streams=columns + self._map(i), operators=10)
        half = shape.itemsize < 4
        if way in ("autograd", "grid_sample"):
            values = (2 - SAMPLED_FORWARD) * shape.points * shape.layers[i].channels
            work += Work(sampled_values=values, operators=3)
            if way == "autograd":
                return work + (Work(streams=1.5 * self._map(i), operators=2) if half else Work())
            # Planes are written: rows are made of them.
            turned = 2 * self._map(i) if shape.layers[i].channels_last else 0.0
            return work + self._read(i, way) + Work(streams=turned)
        work += self._read(i, way)
        corners, word = shape.corners(i) * columns, self.route.write[i]
        if word == "planes":
            summed = 2 * self._map(i) if half else 0.0  # in float32
            return work + Work(strided_reads=corners, streams=summed, operators=9 * shape.batch)
        # Corners are sorted by cell, too.
        work += Work(scatters=corners, located_points=2 * shape.points, operators=4)
        layer = shape.layers[i]
        if layer.dense and layer.channels_last and not half:
            return work
        if word in ("few", "touched"):
            return work + Work(streams=corners, operators=6)
        return work + Work(streams=2 * self._map(i), operators=3 * shape.batch)

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
            operators=8 * self.blocks * self._matrices(i),
        )

    def _projected_backward(self, i: int) -> Work:
        cells = self.shape.batch * self.shape.layers[i].cells
        # For each block of outputs Q is written once and read twice, X_i is read, and dX_i is
        # written, or read and added to.
        return self._products(i, 2 * cells) + Work(
            collects=self._projected_corners(i),
            streams=self._table(i) + 2 * self.blocks * self._map(i) + 2 * self._conversion(i),
            located_points=2 * self.shape.points,
            operators=20 + 7 * self.blocks * self._matrices(i),
        )

    # What layers share

    def shared(self) -> Work:
        """The output, and the operators that serve all layers at once."""
        training = bool(self.route.backward)
        if self.route.by_autograd:
            work = Work(streams=self.output, operators=3 + 12 * self.shape.ragged)
            return work + Work(streams=self.output, operators=25) if training else work
        work = Work(operators=20 if training else 12)
        if self.plan.gathered:
            work += self._gathered_shared(training)
        if self.plan.projected:
            # What is interpolated in float32 and multiplied in half precision is converted on
            # the way; blocks of columns are copied to their places where there are several.
            mixed = 3 * self.output if self.mixed else 0.0
            added = mixed if self.plan.gathered else 0.0
            work += Work(streams=self.output + added, operators=31 + 6 * self.blocks)
            if training:
                work += Work(streams=self.output + mixed, operators=25 + 25 * self.blocks)
        return work

    def _gathered_shared(self, training: bool) -> Work:
        """Adjacent gathered layers share a product, which reads and writes the output.

        The first one only writes it, unless projected layers came first; then all points in one
        part are added to while the block is in the cache. Backward, both products of a run read
        the upstream gradient.
        """
        gathered, projected = self.plan.gathered, bool(self.plan.projected)
        runs = sum(i - 1 not in gathered for i in gathered)
        passes = 2 * runs - 1
        if projected:
            passes = 0 if self.together else 2 * runs
        lists = self.route.forward == "lists"
        work = Work(streams=self.output * passes, operators=(33 if lists else 6) + 3 * (runs - 1))
        if training:
            backward_passes = 2 * runs - 1 - (projected and self.together)
            lists = self.route.backward == "lists"
            work += Work(
                streams=self.output * backward_passes,
                operators=(95 if lists else 36) + 6 * (runs - 1),
            )
        return work
