"""Work: what a call does, counted in the units that a device has rates for.

The model is linear: time is a sum over kinds of work of amount / rate. That keeps it readable,
and lets :func:`pixelnet_triton.calibrate` find the rates by least squares.
"""

from __future__ import annotations

from operator import add, mul
from typing import NamedTuple

__all__ = ["PlanWork", "Work"]


class Work(NamedTuple):
    """Amounts of work, and also, in the same fields, seconds per unit of each (`at`).

    Args:
        dense_flops: FLOPs of plain matrix products.
        fused_flops: FLOPs of products inside a kernel that also gathers.
        map_reads: bytes of corners read from maps whose channels lie side by side.
        strided_reads: bytes of corners read from maps whose channels lie apart.
        projected_reads: bytes of corners read from projected maps.
        scatters: bytes of gradients added to the corners' cells; on a GPU, read for their rows.
        collects: bytes of upstream gradients summed per cell, Q = S^T G.
        streams: bytes read or written in order.
        sampled_values: values interpolated by PyTorch's own sampling kernels.
        located_points: points whose corners and weights are found, once for each layer.
        operators: kernels or operators started.
    """

    dense_flops: float = 0.0
    fused_flops: float = 0.0
    map_reads: float = 0.0
    strided_reads: float = 0.0
    projected_reads: float = 0.0
    scatters: float = 0.0
    collects: float = 0.0
    streams: float = 0.0
    sampled_values: float = 0.0
    located_points: float = 0.0
    operators: float = 0.0

    # Amounts add up; nobody concatenates them.
    def __add__(self, other: Work) -> Work:  # type: ignore[override]
        return Work(*map(add, self, other))

    def at(self, costs: Work) -> float:
        """Seconds, for `costs` in seconds per unit of each kind of work."""
        return sum(map(mul, self, costs))

    @property
    def flops(self) -> float:
        """Arithmetic of the products, which is nearly all there is."""
        return self.dense_flops + self.fused_flops

    @property
    def bytes(self) -> float:
        """Bytes moved by everything but the products, whose operands are counted as streams."""
        reads = self.map_reads + self.strided_reads + self.projected_reads
        return reads + self.scatters + self.collects + self.streams


class PlanWork(NamedTuple):
    """Work of a call with some plan: what each layer causes, and what no single layer does."""

    layers: tuple[Work, ...]
    shared: Work

    @property
    def total(self) -> Work:
        return sum(self.layers, start=self.shared)
