"""Every kernel's launch, through the library's own launchers, on tensors of a usual shape.

Only shapes, strides and types reach the compiler: the tensors are never filled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pixelnet_triton.kernels import configs
from pixelnet_triton.kernels.fused_gradients import (
    feature_gradient,
    transposed_product,
    weight_gradient,
)
from pixelnet_triton.kernels.fused_linear import (
    DENSE,
    GATHER,
    PRODUCT,
    PROJECTED,
    Operand,
    fused_linear,
)
from pixelnet_triton.kernels.gather import coordinate_gradient, gather
from pixelnet_triton.kernels.scatter import scatter_atomic, scatter_sorted

__all__ = ["AFFINE", "IMAGES", "KERNELS", "Kernel", "Problem", "channels_last"]

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
    def columns(self) -> tuple[int, ...]:
        """Where each layer starts in the concatenation."""
        return tuple(sum(self.channels[:i]) for i in range(len(self.channels)))

    @property
    def affine(self) -> tuple[tuple[float, float, float, float], ...]:
        return (AFFINE,) * len(self.channels)

    @property
    def points(self) -> Tensor:
        return torch.zeros(POINTS, 2)

    @property
    def maps(self) -> list[Tensor]:
        return self._maps(self.dtype)

    @property
    def sums(self) -> list[Tensor]:
        """Accumulators of the maps' gradients."""
        return self._maps(torch.float32)

    @property
    def columns_gradient(self) -> Tensor:
        return torch.empty(POINTS, sum(self.channels), dtype=self.dtype)

    @property
    def outputs_gradient(self) -> Tensor:
        return torch.empty(POINTS, OUTPUTS, dtype=self.dtype)

    @property
    def weight(self) -> Tensor:
        return torch.empty(OUTPUTS, sum(self.channels), dtype=self.dtype)

    def operands(self, kinds: Sequence[Any]) -> list[Operand]:
        """The layers as `fused_linear` takes them; kinds past the last layer are left out."""
        operands = []
        layers = zip(kinds, self.channels, self.sizes, self.columns, strict=False)
        for kind, channels, size, column in layers:
            if kind is DENSE:
                tensor = torch.empty(POINTS, channels, dtype=self.dtype)
            else:
                tensor = channels_last(channels if kind is GATHER else OUTPUTS, size, self.dtype)
            operands.append(Operand(kind.value, tensor, column, AFFINE))
        return operands

    def _maps(self, dtype: torch.dtype) -> list[Tensor]:
        layers = zip(self.channels, self.sizes, strict=True)
        return [channels_last(channels, size, dtype) for channels, size in layers]


@dataclass(frozen=True)
class Kernel:
    """A launch of one kernel (or of the kernels behind one launcher), for each of its configs.

    ``launch(problem, config)`` calls the launcher; config None is the library's own choice.
    ``products``: it multiplies matrices. ``gathers``: it loads four corners of so many layers.
    """

    launch: Callable[[Problem, Any], object]
    configs: Sequence[Any]
    products: bool = False
    gathers: int = 0


def _gather(a: Problem, config: Any) -> None:
    gather(a.maps, a.points, None, a.affine, True, True, config)


def _coordinate_gradient(a: Problem, config: Any) -> None:
    coordinate_gradient(
        a.columns_gradient, a.columns, a.maps, a.points, None, a.affine, True, config
    )


def _scatter_atomic(a: Problem, config: Any) -> None:
    scatter_atomic(
        a.columns_gradient, a.columns, a.sums, a.points, None, a.affine, True, True, config
    )


def _scatter_sorted(a: Problem, config: Any) -> None:
    scatter_sorted(
        a.columns_gradient, a.columns, a.maps, a.points, None, a.affine, True, True, config
    )


def _fused_linear(*kinds: Any) -> Callable[[Problem, Any], object]:
    def launch(a: Problem, config: Any) -> None:
        bias = torch.empty(OUTPUTS, dtype=a.dtype)
        fused_linear(
            a.operands(kinds), a.points, None, IMAGES, a.weight, bias, "gelu", True, True, config
        )

    return launch


def _weight_gradient(a: Problem, config: Any) -> None:
    weight_gradient(a.outputs_gradient, a.maps, a.points, None, a.affine, True, True, config)


def _feature_gradient(a: Problem, config: Any) -> None:
    feature_gradient(
        a.outputs_gradient,
        a.weight,
        a.columns,
        a.sums,
        a.points,
        None,
        a.affine,
        True,
        True,
        config,
    )


def _transposed_product(a: Problem, config: Any) -> None:
    transposed_product(
        a.outputs_gradient, a.points, IMAGES, a.sizes[-1], AFFINE, True, True, config
    )


KERNELS = {
    "gather": Kernel(_gather, configs.GATHER_CONFIGS, gathers=5),
    "coordinate_gradient": Kernel(_coordinate_gradient, configs.GATHER_CONFIGS, gathers=5),
    "scatter_atomic": Kernel(_scatter_atomic, configs.GATHER_CONFIGS),
    "scatter_sorted": Kernel(_scatter_sorted, configs.SEGMENT_CONFIGS),
    "one_pass": Kernel(
        _fused_linear(GATHER, GATHER, GATHER, GATHER, GATHER),
        configs.LINEAR_CONFIGS,
        products=True,
        gathers=5,
    ),
    "one_pass+products": Kernel(
        _fused_linear(GATHER, GATHER, GATHER, PRODUCT, PRODUCT),
        configs.LINEAR_CONFIGS,
        products=True,
        gathers=3,
    ),
    "one_pass+rows": Kernel(
        _fused_linear(GATHER, GATHER, GATHER, PROJECTED, PROJECTED),
        configs.LINEAR_CONFIGS,
        products=True,
        gathers=5,
    ),
    "second_step": Kernel(
        _fused_linear(DENSE, DENSE, DENSE, PRODUCT, PROJECTED),
        configs.LINEAR_CONFIGS,
        products=True,
        gathers=1,
    ),
    "weight_gradient": Kernel(
        _weight_gradient, configs.WEIGHT_GRADIENT_CONFIGS, products=True, gathers=5
    ),
    "feature_gradient": Kernel(_feature_gradient, configs.FEATURE_GRADIENT_CONFIGS, products=True),
    "transposed_product": Kernel(_transposed_product, configs.TRANSPOSED_CONFIGS, products=True),
}
