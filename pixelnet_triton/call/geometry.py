"""Conventions become one affine map per layer and axis.

Everything a caller may choose about coordinates (pixel, unit or normalised, corners aligned or
not, size ratio or stride) only changes the two numbers of

    t = scale * x + offset,

the position of a point on the layer's grid of cells, in cells, with cell centres at integers.
They are computed here once, in double precision, so that neither kernels nor the CPU path know
of any convention but `interpolation` and `padding_mode`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

__all__ = [
    "COORDINATES",
    "INTERPOLATIONS",
    "PADDING_MODES",
    "Geometry",
    "LayerAffine",
    "Stride",
    "TorchCoordinates",
    "layer_geometry",
    "quotient",
]

COORDINATES = ("pixel", "unit", "normalized")
INTERPOLATIONS = ("bilinear", "nearest")
PADDING_MODES = ("border", "zeros")

LayerAffine = tuple[float, float, float, float]
Stride = float | tuple[float, float]


class TorchCoordinates(NamedTuple):
    """Points of `grid_sample`: in [0, 1] if `unit`, else in [-1, 1]; its `align_corners`."""

    unit: bool
    aligned: bool


@dataclass(frozen=True)
class Geometry:
    """How points fall onto the grid of each layer.

    ``affine[i]`` is ``(scale_x, offset_x, scale_y, offset_y)`` of layer i, in cells.
    """

    affine: tuple[LayerAffine, ...]
    interpolation: str = "bilinear"
    padding_mode: str = "border"

    @property
    def bilinear(self) -> bool:
        return self.interpolation == "bilinear"

    @property
    def border(self) -> bool:
        return self.padding_mode == "border"

    def is_exact(self, layer: int, integers: bool) -> bool:
        """Do all points fall on cell centres, so that one corner carries all the weight?

        True of `integers` on a map as fine as the image: a quarter of the cells is read.
        """
        return integers and all(number.is_integer() for number in self.affine[layer])

    def torch_coordinates(self, sizes: Sequence[tuple[int, int]]) -> TorchCoordinates | None:
        """What `grid_sample` calls them, if points lie on all maps (H_i, W_i) where it has them."""
        return _torch_coordinates(self.affine, tuple(sizes))

    def of(self, layers: Sequence[int]) -> Geometry:
        """That of some of the layers."""
        affine = tuple([self.affine[i] for i in layers])
        return Geometry(affine, self.interpolation, self.padding_mode)

    def flat(self) -> list[float]:
        """``affine`` as one list, the form an operator's schema can carry."""
        return [number for layer in self.affine for number in layer]

    @staticmethod
    def from_flat(numbers: Sequence[float], interpolation: str, padding_mode: str) -> Geometry:
        """Undo :meth:`flat`."""
        it = iter(numbers)
        return Geometry(tuple(zip(it, it, it, it, strict=True)), interpolation, padding_mode)


@lru_cache(maxsize=1024)
def _torch_coordinates(
    affine: tuple[LayerAffine, ...], sizes: tuple[tuple[int, int], ...]
) -> TorchCoordinates | None:
    for coordinates in ("unit", "normalized"):
        for aligned in (False, True):
            # Most calls differ in the first layer.
            layers = zip(affine, sizes, strict=True)
            if all(_lies_alike(*layer, coordinates, aligned) for layer in layers):
                return TorchCoordinates(coordinates == "unit", aligned)
    return None


def _lies_alike(
    affine: LayerAffine, size: tuple[int, int], coordinates: str, aligned: bool
) -> bool:
    """Do points fall onto a layer of (H_i, W_i) cells as in these conventions?"""
    same = layer_geometry([size], (1, 1), coordinates=coordinates, align_corners=aligned)
    pairs = zip(affine, same.flat(), strict=True)
    return all(math.isclose(*pair, rel_tol=1e-15) for pair in pairs)


@lru_cache(maxsize=4096)
def quotient(scale: float, offset: float) -> tuple[float, float, float]:
    """``(a, b, c)``: t = (a * x + b) / c, one axis of `Geometry.affine` with nothing rounded.

    A reciprocal such as 1/14 is rounded, and t = x / 14 - 13 / 28 misses the cell that a pixel
    lies on. x - 6.5 is a multiple of 14 there, and such a quotient is exact. c is 1 where the two
    numbers are themselves exact, powers of two included.
    """
    ratio = Fraction(scale).limit_denominator(1 << 14)
    c = ratio.denominator
    half = round(2 * offset * c)
    fits = math.isclose(ratio.numerator / c, scale, rel_tol=1e-15)
    if c & (c - 1) and fits and math.isclose(half, 2 * offset * c, abs_tol=1e-9):
        return float(ratio.numerator), half / 2, float(c)
    return scale, offset, 1.0


def axis_affine(
    cells: int, pixels: int, stride: float | None, align_corners: bool, coordinates: str
) -> tuple[float, float]:
    """``(scale, offset)`` of one axis of one layer, `cells` long under `pixels` of the image.

    Half-pixel maps (``align_corners=False``) go through the edge-based coordinate u, which is
    0 at the image's left edge and `pixels` at its right one: t = u * ratio - 1/2. With a stride
    s this is (x - (s - 1)/2) / s, the formula of the authors' sampling layer. Corner-aligned
    maps send the centres of the first and last pixel onto those of the first and last cell.
    """
    if align_corners:
        last = cells - 1
        if coordinates == "pixel":
            return (last / (pixels - 1), 0.0) if pixels > 1 else (0.0, 0.0)
        return (float(last), 0.0) if coordinates == "unit" else (last / 2, last / 2)
    ratio = cells / pixels if stride is None else 1 / stride
    if coordinates == "pixel":
        return ratio, 0.5 * ratio - 0.5
    extent = pixels * ratio
    return (extent, -0.5) if coordinates == "unit" else (extent / 2, extent / 2 - 0.5)


def layer_geometry(
    map_sizes: Sequence[tuple[int, int]],
    image_size: tuple[int, int],
    *,
    strides: Sequence[Stride] | None = None,
    interpolation: str = "bilinear",
    align_corners: bool = False,
    padding_mode: str = "border",
    coordinates: str = "pixel",
) -> Geometry:
    """The geometry of layers of ``(H_i, W_i)`` cells under an image of ``(H, W)`` pixels.

    Args are those of :func:`pixelnet_triton.sparse_hypercolumn`, already checked.
    """
    height, width = image_size
    per_layer = strides if strides is not None else [None] * len(map_sizes)
    affine = []
    for (rows, columns), stride in zip(map_sizes, per_layer, strict=True):
        stride_y, stride_x = stride if isinstance(stride, tuple) else (stride, stride)
        affine.append(
            axis_affine(columns, width, stride_x, align_corners, coordinates)
            + axis_affine(rows, height, stride_y, align_corners, coordinates)
        )
    return Geometry(tuple(affine), interpolation, padding_mode)
