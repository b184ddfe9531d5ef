"""From the nouns of a call to the arguments of a kernel, and what a launch says of itself.

Shape suffixes, here and in the kernels: P points, C channels, D outputs, S cells, M layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton import knobs
from triton.runtime.driver import driver

from ..call.geometry import LayerAffine, quotient
from ..call.sampling import Sampling
from .select import Tile

__all__ = [
    "Layer",
    "Layers",
    "Matrix",
    "Mode",
    "Points",
    "PointsLike",
    "accounted",
    "capability",
    "channel_blocks",
    "coded",
    "decoded",
    "matrix",
    "mode_of",
    "options",
    "points_of",
    "power_of_2",
    "precision",
    "row_vector",
    "starts",
]


class Points(NamedTuple):
    """The points as a kernel sees them: (x, y) of each, and which image it belongs to.

    `image` is read where `Mode.ragged`; elsewhere `per_image` points belong to each, in order.
    """

    xy: Tensor
    image: Tensor
    total: int
    per_image: int
    batch: int


def coded(number: int) -> int:
    """2 n + 3, of which Triton sees nothing; `number` in bilinear.py undoes it.

    It compiles a kernel anew for each set of numbers that are 1 or that 16 divides, and sizes of
    images that vary, as in training on several scales, come with dozens of such sets.
    """
    return 2 * number + 3


def decoded(code: int) -> int:
    """n."""
    return (code - 3) >> 1


#: (a, b, c): a point lies at (a x + b) / c on an axis of a layer.
Axis = tuple[float, float, float]


class Layer(NamedTuple):
    """A map as a kernel sees it: size (H_i, W_i), strides (batch, row, column), all `coded`; axes
    x and y.

    These strides count in VECTOR elements, so that the compiler sees what they divide by. That of
    the channels is `across` = 2 n - 1, as the compiler is to see whether n is 1.
    """

    map: Tensor
    size: tuple[int, int]
    strides: tuple[int, int, int]
    across: int
    axes: tuple[Axis, Axis]


class Matrix(NamedTuple):
    """A matrix as a kernel sees it: its numbers, and the strides of rows and columns."""

    data: Tensor
    strides: tuple[int, int]


class Mode(NamedTuple):
    """What a kernel is compiled for.

    `divided`: c of some axis is not 1. It is 1 where a map's stride is a power of two.
    """

    ragged: bool
    bilinear: bool
    border: bool
    divided: bool


def points_of(s: Sampling) -> Points:
    """The argument `points`."""
    xy, index = s.points.contiguous(), s.batch_index
    total, batch = xy.shape[0], s.batch
    if index is None:
        # A pointer argument must point somewhere, also where the kernel does not read it.
        return Points(xy, xy, total, total // batch, batch)
    return Points(xy, index.contiguous(), total, total, batch)


class PointsLike:
    """Makes the argument `points` of points that are as many as those of a sampling."""

    def __init__(self, s: Sampling) -> None:
        _, _, *self._numbers = points_of(s)

    def __call__(self, points: Tensor, batch_index: Tensor | None) -> Points:
        xy = points.contiguous()
        return Points(xy, xy if batch_index is None else batch_index.contiguous(), *self._numbers)


def mode_of(s: Sampling) -> Mode:
    """The constant MODE."""
    geometry = s.geometry
    divided = any(c != 1 for affine in geometry.affine for _, _, c in _axes(affine))
    return Mode(s.batch_index is not None, geometry.bilinear, geometry.border, divided)


@lru_cache(maxsize=4096)
def _axes(affine: LayerAffine) -> tuple[Axis, Axis]:
    return quotient(*affine[:2]), quotient(*affine[2:])


class Layers:
    """Makes the argument `layers` of maps that are laid out as those of a sampling.

    A matrix (P, C) counts as a map of P images of one cell.

    Args:
        vectors: the constant VECTORS: how many elements, at most 16 bytes, each cell's offset
            divides by.
        contiguous: channels of every map lie side by side.
    """

    def __init__(self, maps: Sequence[Tensor], affine: Sequence[LayerAffine]) -> None:
        layouts = [_layout(m.shape, m.stride(), m.itemsize) for m in maps]
        self.vectors = tuple([vector for _, _, vector in layouts])
        self._sizes: list[Any] = [tuple(map(coded, size)) for size, _, _ in layouts]
        self._strides: list[Any] = [
            (coded(image // vector), coded(row // vector), coded(column // vector))
            for _, (image, _, row, column), vector in layouts
        ]
        self._across = [2 * channel - 1 for _, (_, channel, _, _), _ in layouts]
        self._axes = [*map(_axes, affine)]
        self.contiguous = max(self._across, default=1) <= 1

    def __call__(self, maps: Sequence[Tensor]) -> tuple[Layer, ...]:
        return tuple(map(Layer, maps, self._sizes, self._strides, self._across, self._axes))


@lru_cache(maxsize=4096)
def _layout(
    shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int
) -> tuple[tuple[int, int], tuple[int, int, int, int], int]:
    """(H_i, W_i), strides, and what the offsets of all cells divide by.

    A dimension of size 1 gets stride 0, which is divisible by everything: torch may give it any
    stride, and a 1x1 map would lose its 16-byte loads.
    """
    _, _, rows, columns = shape = (*shape, 1, 1)[:4]
    batch, channel, row, column = [
        0 if size == 1 else stride for size, stride in zip(shape, (*strides, 0, 0), strict=False)
    ]
    return (
        (rows, columns),
        (batch, channel, row, column),
        math.gcd(16 // itemsize, batch, row, column),
    )


def matrix(tensor: Tensor) -> Matrix:
    """A matrix with any strides."""
    return Matrix(tensor, tensor.stride())  # type: ignore[arg-type]


def row_vector(tensor: Tensor) -> int:
    """How many elements, at most 16 bytes, every row of a matrix starts at a multiple of."""
    if tensor.stride(1) != 1:
        return 1
    return math.gcd(16 // tensor.itemsize, tensor.stride(0))


@lru_cache(maxsize=4096)
def starts(channels: tuple[int, ...]) -> tuple[int, ...]:
    """The first column of each layer where all stand side by side."""
    return tuple(accumulate(channels[:-1], initial=0))


@lru_cache(maxsize=4096)
def channel_blocks(channels: tuple[int, ...], block: int) -> tuple[tuple[int, ...], int]:
    """First block of each layer, and their number, when every layer is cut into blocks."""
    counts = tuple([-(-count // block) for count in channels])
    return starts(counts), sum(counts)


def power_of_2(number: int) -> int:
    """The next one; Triton's own `next_power_of_2` takes two microseconds on the host."""
    return 1 << (number - 1).bit_length()


def options(tile: Tile) -> dict[str, Any]:
    """Triton's options of a launch.

    Contraction of a * b + c is asked for by name because Triton 3.9 warns where it is left open.
    """
    values: dict[str, Any] = {"enable_fp_fusion": True, "num_warps": tile.num_warps}
    if tile.num_stages is not None:
        values["num_stages"] = tile.num_stages
    # Only NVIDIA's compiler limits registers.
    if tile.maxnreg is not None and capability() is not None:
        values["maxnreg"] = tile.maxnreg
    return values


def precision(dtype: torch.dtype, tf32: bool = True) -> str:
    """How `dot` treats its operands.

    float32 follows PyTorch's own switches for TF32, old and new, unless `tf32` is False. The
    interpreter computes bfloat16 products wrongly, so there the operands are widened after they
    were rounded, which means the same.
    """
    if dtype == torch.float32:
        return "tf32" if tf32 and _allows_tf32() and _has_tf32() else "ieee"
    return "widened" if dtype == torch.bfloat16 and knobs.runtime.interpret else "ieee"


def _allows_tf32() -> bool:
    """Once the new switch (torch >= 2.9) was set, torch refuses to read the old ones."""
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):
        return bool(matmul.fp32_precision == "tf32")
    return matmul.allow_tf32 or torch.get_float32_matmul_precision() != "highest"


def _has_tf32() -> bool:
    """NVIDIA's GPUs have it, of AMD's gfx942 alone."""
    if knobs.runtime.interpret:
        return True
    target = driver.active.get_current_target()
    return target.backend == "cuda" or target.arch == "gfx942"


def capability() -> int | None:
    """80, 90, 100 for the current NVIDIA GPU; None for others, and in the interpreter."""
    if knobs.runtime.interpret:
        return None
    active = driver.active
    return _capability(active, active.get_current_device())


@lru_cache(maxsize=64)
def _capability(active: Any, device: object) -> int | None:
    target = active.get_current_target()
    return target.arch if target.backend == "cuda" else None


Account = Callable[[dict[str, Any]], tuple[float, float, torch.dtype]]


def accounted(count: Account) -> Callable[..., dict[str, Any]]:
    """What a launch says of itself to a profiler, as Triton's `launch_metadata`.

    ``count(arguments)`` gives FLOPs, bytes and the dtype of the products. Bytes are those that the
    program asks for, whatever part of them the caches answer.
    """

    def metadata(grid: Any, kernel: Any, arguments: dict[str, Any]) -> dict[str, Any]:
        flops, moved, dtype = count(arguments)
        words = [kernel.name]
        if "points" in arguments:
            words.append(f"P={arguments['points'].total}")
        if "CHANNELS" in arguments:
            words.append(f"C={'+'.join(map(str, arguments['CHANNELS']))}")
        if "D" in arguments:
            words.append(f"D={arguments['D']}")
        name = " ".join(words)
        return {"name": name, f"flops{8 * dtype.itemsize}": flops, "bytes": moved}

    return metadata
