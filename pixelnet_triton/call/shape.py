"""What the planner may know of a call: sizes, layout and element size, never values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["CallShape", "LayerShape", "bucket", "layer_shape", "layout_of"]


@dataclass(frozen=True)
class LayerShape:
    """A map (B, channels, rows, columns) and how it lies in memory.

    Args:
        channels, rows, columns: its sizes.
        channels_last: a cell's channels lie side by side.
        dense: nothing lies in between, as it does in a crop or in an expanded map.
        exact: every point falls on a cell's centre, as integer pixels do on a map as fine as the
            image: one corner carries all the weight.
    """

    channels: int
    rows: int
    columns: int
    channels_last: bool = True
    dense: bool = True
    exact: bool = False

    @property
    def cells(self) -> int:
        """Cells of one image."""
        return self.rows * self.columns

    def __str__(self) -> str:
        return f"{self.channels} @ {self.rows} x {self.columns}"


@dataclass(frozen=True)
class CallShape:
    """One call of :func:`pixelnet_triton.sparse_hypercolumn`, as far as planning goes.

    Args:
        layers: the maps.
        batch: B.
        points: P, those of all images.
        out_features: D; 0 without a weight.
        itemsize: bytes of an element of the maps.
        ragged: with a batch_index.
        training: the backward pass is paid for too.
        half_products: half precision is multiplied as it is, not converted to float32 first.
        nearest: interpolation is "nearest".
        moving_points: the points want a gradient.
        may_keep: what autograd keeps of a plain expression may be kept; not where a plan is
            named, nor while tracing.
        torch_coordinates: points come as `grid_sample` takes them, on maps that cover the image.
        single: `grid_sample` in float32 finds the points as well as it should: exactly, as it does
            integers at some strides (grids.py), or they are its own, which say no more.
        capability: as in :class:`DeviceProfile`, from where the cost model takes it.
    """

    layers: tuple[LayerShape, ...]
    batch: int
    points: int
    out_features: int
    itemsize: int = 4
    ragged: bool = False
    training: bool = True
    half_products: bool = True
    nearest: bool = False
    moving_points: bool = False
    may_keep: bool = True
    torch_coordinates: bool = False
    single: bool = True
    capability: int | None = None

    @property
    def channels(self) -> int:
        """sum C_i."""
        return sum([layer.channels for layer in self.layers])

    @property
    def operand_size(self) -> int:
        """Bytes of an element that products are made of."""
        return self.itemsize if self.half_products else max(4, self.itemsize)

    @property
    def tensor_loads(self) -> bool:
        """Does the device load tiles of a matrix by itself (NVIDIA's TMA, since Hopper), into
        shared memory that holds 200 KB? That of consumer GPUs does not."""
        return self.capability is not None and self.capability // 10 in (9, 10, 11)

    def rounded(self) -> CallShape:
        """What stands for all calls like this one on images of similar size."""
        heights = _rounded([layer.rows for layer in self.layers])
        widths = _rounded([layer.columns for layer in self.layers])
        sides = zip(self.layers, heights, widths, strict=True)
        return replace(self, layers=tuple([replace(m, rows=h, columns=w) for m, h, w in sides]))

    def corners(self, layer: int) -> int:
        """Cells that one point reads of a layer."""
        return 1 if self.nearest or self.layers[layer].exact else 4

    def __str__(self) -> str:
        kind = {8: "float64", 4: "float32", 2: "half precision"}[self.itemsize]
        passes = "forward and backward" if self.training else "forward"
        points = f"{self.points} {'ragged ' if self.ragged else ''}points"
        return f"{points} on {self.batch} images, {self.out_features} outputs, {kind}, {passes}"


def layout_of(feature: Tensor) -> tuple[bool, bool]:
    """Is a map (B, C, H, W) channels_last, and dense, in the words of :class:`LayerShape`?"""
    rows = feature.is_contiguous(memory_format=torch.channels_last)
    dense = rows or feature.is_contiguous()
    return rows or (not dense and feature.stride(1) == 1), dense


def layer_shape(feature: Tensor, exact: bool = False) -> LayerShape:
    """That of a map; `exact` as in :class:`LayerShape`."""
    _, channels, rows, columns = feature.shape
    return LayerShape(channels, rows, columns, *layout_of(feature), exact)


def _rounded(sides: Sequence[int]) -> list[int]:
    """The longest of four significant bits; the others half of it, a quarter, ..., where they are
    that but for a cell: rounded by themselves, they would tell many sizes of images apart.

    >>> _rounded([500, 250, 125, 63, 32]), _rounded([485, 242, 121, 60, 30]), _rounded([24, 17])
    ([512, 256, 128, 64, 32], [480, 240, 120, 60, 30], [24, 18])
    """
    longest = max(sides)
    rounded, found = bucket(longest, bits=4), []
    for side in sides:
        part = 1 << max(0, round(math.log2(longest / side)))
        is_part = abs(longest / part - side) <= 1
        found.append(-(-rounded // part) if is_part else bucket(side, bits=4))
    return found


def bucket(number: int, bits: int = 3) -> int:
    """The nearest number of so many significant bits, so that calls of similar size share a plan.

    With three it is off by an eighth at most, which moves a predicted time as little; with four by
    a sixteenth.

    >>> [bucket(n) for n in (0, 7, 9, 2000, 10000)]
    [0, 7, 10, 2048, 10240]
    """
    shift = max(0, number.bit_length() - bits)
    return (number + (1 << shift >> 1)) >> shift << shift
