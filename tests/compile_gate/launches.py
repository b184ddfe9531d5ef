"""Every kernel's launch, through the library's own launchers, on tensors of a usual shape.

Only shapes, strides and types reach the compiler: the tensors are never filled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pixelnet_triton.call import Geometry, Linear, Sampling
from pixelnet_triton.kernels import band, fused_linear, gather, mask, order, rows
from pixelnet_triton.kernels.order import Order, order_points
from pixelnet_triton.kernels.ruler import ruler_of
from pixelnet_triton.kernels.select import Tile

__all__ = ["ACTIVATED", "AFFINE", "IMAGES", "KERNELS", "Kernel", "Problem", "channels_last"]

IMAGES, POINTS, OUTPUTS = 2, 4000, 512
AFFINE = (0.25, -0.375, 0.25, -0.375)


def channels_last(channels: int, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """A map (IMAGES, channels, *size), never filled."""
    return torch.empty(IMAGES, channels, *size, dtype=dtype).to(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Problem:
    """What the launchers are called with: maps, points, weight and upstream gradients.

    The five layers are those PixelNet takes from VGG-16; a plan would project the coarsest two.
    """

    dtype: torch.dtype
    channels: tuple[int, ...] = (64, 128, 256, 512, 512)
    sizes: tuple[tuple[int, int], ...] = ((56, 56), (56, 56), (28, 28), (14, 14), (7, 7))

    @property
    def sampling(self) -> Sampling:
        """The maps and the points."""
        return Sampling(self._maps(self.dtype), torch.zeros(POINTS, 2), None, self.geometry)

    @property
    def geometry(self) -> Geometry:
        return Geometry((AFFINE,) * len(self.channels))

    @property
    def columns(self) -> list[int]:
        """Where each layer starts in the concatenation."""
        return [columns.start for columns in self.sampling.columns]

    @property
    def columns_gradient(self) -> Tensor:
        return torch.empty(POINTS, sum(self.channels), dtype=self.dtype)

    @property
    def outputs_gradient(self) -> Tensor:
        return torch.empty(POINTS, OUTPUTS, dtype=self.dtype)

    @property
    def weight(self) -> Tensor:
        return torch.empty(OUTPUTS, sum(self.channels), dtype=self.dtype)

    @property
    def order(self) -> Order:
        """Points in order, as the kernels of the backward pass take them."""
        ruler = ruler_of(self.sizes, self.geometry.affine)
        starts = torch.zeros(IMAGES, ruler.spaces, dtype=torch.int64)
        place = torch.zeros(POINTS, dtype=torch.int64)
        return Order(place, torch.zeros(POINTS, 2), None, starts, ruler)

    def _maps(self, dtype: torch.dtype) -> list[Tensor]:
        layers = zip(self.channels, self.sizes, strict=True)
        return [channels_last(channels, size, dtype) for channels, size in layers]


@dataclass(frozen=True)
class Kernel:
    """A launch of one kernel (or of the kernels behind one launcher), for each of its tiles.

    ``launch(problem, tile)`` calls the launcher; tile None is the library's own choice.
    ``products``: it multiplies matrices. ``gathers``: it loads four corners of so many layers.
    ``careful``: numbers that are not finite go a second way, element by element.
    """

    launch: Callable[[Problem, Tile | None], object]
    tiles: Sequence[Tile]
    products: bool = False
    gathers: int = 0
    careful: bool = False


def _gather(a: Problem, tile: Tile | None) -> None:
    gather.gather(a.sampling, tile)


def _coordinate_gradient(a: Problem, tile: Tile | None) -> None:
    gather.coordinate_gradient(a.columns_gradient, a.columns, a.sampling, tile)


def _order(a: Problem, tile: Tile | None) -> None:
    order_points(a.sampling)


def _mask(a: Problem, tile: Tile | None) -> None:
    grad = a.outputs_gradient
    mask.masked_like(grad, is_masked=True, bias=True)(grad, grad, a.order.place)


def _scatter(a: Problem, tile: Tile | None) -> None:
    band.band(a.columns_gradient, a.columns, a.sampling, a.order, tile)


def _collect(a: Problem, tile: Tile | None) -> None:
    s = a.sampling.of([3, 4])
    qs = [channels_last(OUTPUTS, size, a.dtype) for size in s.sizes]
    band.band(a.outputs_gradient, None, s._replace(features=qs), a.order, tile)


def _one_pass(activation: str | None) -> Callable[[Problem, Tile | None], object]:
    def launch(a: Problem, tile: Tile | None) -> None:
        head = Linear(a.weight, torch.empty(OUTPUTS, dtype=a.dtype), activation)
        fused_linear.fused_linear(a.sampling, head, tile)

    return launch


def _rows(
    activation: str | None, gathered: bool = True
) -> Callable[[Problem, Tile | None], object]:
    def launch(a: Problem, tile: Tile | None) -> None:
        coarse = [3, 4] if gathered else [*range(len(a.sizes))]
        maps = [channels_last(OUTPUTS, a.sizes[i], a.dtype) for i in coarse]
        product = a.outputs_gradient if gathered else None
        s = a.sampling.of(coarse, maps, role="rows")
        rows.add_rows(s, product, torch.empty(OUTPUTS, dtype=a.dtype), activation, tile)

    return launch


#: Launches of the kernels that end a first layer, by their activation.
ACTIVATED = {"one_pass": _one_pass, "rows": _rows}
_ANY_ACTIVATION = [tile for tile in fused_linear.TILES if tile is not fused_linear.LEAN_TILE]

KERNELS = {
    "gather": Kernel(_gather, gather.TILES, gathers=5),
    "coordinate_gradient": Kernel(_coordinate_gradient, gather.GRADIENT_TILES, gathers=5),
    "order": Kernel(_order, [order.TILE]),
    "mask": Kernel(_mask, [mask.TILE]),
    "scatter": Kernel(_scatter, band.TILES, products=True, careful=True),
    "collect": Kernel(_collect, band.SHARED_TILES, products=True, careful=True),
    "one_pass": Kernel(_one_pass("gelu"), _ANY_ACTIVATION, products=True, gathers=5),
    "one_pass+relu": Kernel(_one_pass("relu"), fused_linear.TILES, products=True, gathers=5),
    "rows": Kernel(_rows("gelu"), rows.TILES, gathers=2),
    "rows+relu": Kernel(_rows("relu"), rows.TILES, gathers=2),
    "rows+alone": Kernel(_rows(None, gathered=False), rows.TILES, gathers=5),
}
