"""How much work a layer is on the CPU, by each way and word of a route; see work.py."""

from __future__ import annotations

from typing import NamedTuple

from ..call import CallShape, Work
from .planes import images_together, strips
from .routes import column_blocks, copied_bytes, in_double, part_count

__all__ = ["LayerCount", "Way"]

# The sampling kernels take twice the values there and back; this is the share of the way there.
SAMPLED_FORWARD = 0.65
# How many times as long they take there in float64.
DOUBLE = 1.3
# What is streamed for a map that is copied for them, in its bytes as a copy, there and back: there
# narrower numbers are read; back a gradient is cleared, written and converted.
COPIED_FORWARD, COPIED_BACKWARD = 0.6, 2.4
# How many times as long their way back takes with the gradient of points.
SAMPLED_MOVING = 1.5


class Way(NamedTuple):
    """All that the work of a layer depends on, besides the shape of the call."""

    projected: bool
    forward: str
    backward: str
    read: str
    write: str


class LayerCount:
    """Counts the work of the layers of a call, one by one."""

    def __init__(self, shape: CallShape) -> None:
        self.shape = shape
        self.itemsize = max(4, shape.itemsize)  # of what is interpolated and summed
        self.converts = shape.operand_size != shape.itemsize  # operands, before products
        self.mixed = shape.operand_size != self.itemsize  # what is summed is wider than operands
        self.blocks = len(column_blocks(shape.points, shape.out_features, shape.operand_size))
        self.parts = part_count(shape.points, shape.batch, shape.ragged)
        self.one_part = self.parts == 1
        self.output = float(shape.points * shape.out_features * shape.operand_size)

    def layer(self, i: int, way: Way) -> Work:
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

    def _gathered_backward(self, i: int, way: Way) -> Work:
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
