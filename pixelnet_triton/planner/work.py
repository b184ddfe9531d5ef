"""Work: what a strategy does, counted in the units that a device has rates for.

The model is linear: time is a sum over kinds of work of amount / rate. That keeps it readable,
and lets :func:`pixelnet_triton.calibrate` find the rates by least squares.
"""

from __future__ import annotations

from operator import add, mul
from typing import NamedTuple

__all__ = ["Work"]


class Work(NamedTuple):
    """Amounts of work; FLOPs or bytes unless said otherwise. The same fields hold costs.

    product     FLOPs of plain matrix products
    fused       FLOPs of products inside a kernel that also gathers
    gather      bytes of corners read from maps whose channels lie side by side
    strided     bytes of corners read from maps whose channels lie apart
    rows        bytes of corners read from projected maps
    scatter     bytes of gradients added to the corners' cells
    collect     bytes of upstream gradients summed per cell, Q = S^T G
    stream      bytes read or written in order
    sampled     values (a number) interpolated by PyTorch's own sampling kernels
    located     points (a number) whose corners and weights are found, once per layer
    launches    kernels or operators started (a number)
    """

    product: float = 0.0
    fused: float = 0.0
    gather: float = 0.0
    strided: float = 0.0
    rows: float = 0.0
    scatter: float = 0.0
    collect: float = 0.0
    stream: float = 0.0
    sampled: float = 0.0
    located: float = 0.0
    launches: float = 0.0

    # Amounts add up; nobody concatenates them.
    def __add__(self, other: Work) -> Work:  # type: ignore[override]
        return Work(*map(add, self, other))

    def at(self, costs: Work) -> float:
        """Seconds, for `costs` in seconds per unit of each kind of work."""
        return sum(map(mul, self, costs))

    @property
    def flops(self) -> float:
        """Arithmetic of the products, which is nearly all there is."""
        return self.product + self.fused

    @property
    def bytes(self) -> float:
        """Bytes moved by everything but the products, whose operands are counted as streams."""
        moved = (self.gather, self.strided, self.rows, self.scatter, self.collect, self.stream)
        return sum(moved)
