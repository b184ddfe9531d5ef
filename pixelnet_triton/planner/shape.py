"""What the planner may know of a call: sizes, layout and element size, never values."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CallShape", "LayerShape", "bucket"]


@dataclass(frozen=True)
class LayerShape:
    """A map (B, channels, rows, columns); channels_last: a cell's channels lie side by side."""

    channels: int
    rows: int
    columns: int
    channels_last: bool = True

    @property
    def cells(self) -> int:
        """Cells of one image."""
        return self.rows * self.columns

    def __str__(self) -> str:
        return f"{self.channels} @ {self.rows} x {self.columns}"


@dataclass(frozen=True)
class CallShape:
    """One call of :func:`pixelnet_triton.sparse_hypercolumn` with a weight.

    `points` counts those of all images, `itemsize` the bytes of an element of the maps; `ragged`:
    with a batch_index; `training`: the backward pass is paid for too; `matrix_units`: half
    precision on a CPU that multiplies it as it is, and does not convert it first.
    """

    layers: tuple[LayerShape, ...]
    batch: int
    points: int
    out_features: int
    itemsize: int = 4
    ragged: bool = False
    training: bool = True
    matrix_units: bool = False

    def __str__(self) -> str:
        kind = {8: "float64", 4: "float32", 2: "half precision"}[self.itemsize]
        passes = "forward and backward" if self.training else "forward"
        points = f"{self.points} {'ragged ' if self.ragged else ''}points"
        return f"{points} on {self.batch} images, {self.out_features} outputs, {kind}, {passes}"


def bucket(points: int) -> int:
    """The nearest number of three significant bits, so that batches of similar size share a plan.

    It is off by an eighth at most, which moves a predicted time as little.

    >>> [bucket(n) for n in (0, 7, 9, 2000, 10000)]
    [0, 7, 10, 2048, 10240]
    """
    shift = max(0, points.bit_length() - 3)
    return (points + (1 << shift >> 1)) >> shift << shift
