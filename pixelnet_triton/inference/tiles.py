"""The head at every pixel of an image, in tiles that keep within a budget of memory.

The hidden layers at all pixels would be the largest tensors of all (224 x 224 x 4096 in float32:
822 MB each). Rows of pixels are taken together, as many as the budget allows; where not even one
row fits, a part of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..call import DenseLayer, Linear, layer_geometry
from ..functional import sparse_hypercolumn
from .first_layer import first_layer

if TYPE_CHECKING:
    from ..models.head import PixelMLP

__all__ = ["head_at_every_pixel"]

# A share of the budget for maps projected once and kept.
KEPT_SHARE = 0.5
# Hidden values of a tile on a CPU: 10 MB, which malloc hands out again without fresh pages. Of
# smaller tiles there are more operators to begin; larger ones fall out of the caches.
CPU_TILE_VALUES = 5 << 19


def head_at_every_pixel(
    head: PixelMLP,
    features: Sequence[Tensor],
    image_size: tuple[int, int],
    *,
    memory_budget: int,
    output: Callable[[Tensor], Tensor] | None = None,
    out: Tensor | None = None,
    done: Callable[[int], object] = lambda pixels: None,
) -> Tensor:
    """Raw scores at all pixels, as ``head(features, points, image_size)`` gives them.

    Args:
        head: in evaluation mode.
        features: one image's maps ``(1, C_i, H_i, W_i)``.
        image_size: ``(H, W)`` of the image in pixels.
        memory_budget: bytes for everything allocated here but the result.
        output: what scores (pixels, K) become, tile by tile; None leaves them.
        out: where the result is written.
        done: called with the number of pixels after each tile.

    Returns:
        `out`, or ``(K, H, W)``, float32 (float64 for float64 features).

    Raises:
        ValueError: maps of several images, or a budget that does not suffice for one pixel.

    Example:
        >>> import torch
        >>> from pixelnet_triton.inference import head_at_every_pixel
        >>> from pixelnet_triton.models import PixelMLP
        >>> head = PixelMLP([8, 16], (32, 32), out_features=5).eval()
        >>> maps = [torch.randn(1, 8, 20, 30), torch.randn(1, 16, 10, 15)]
        >>> with torch.no_grad():
        ...     head_at_every_pixel(head, maps, (20, 30), memory_budget=1 << 20).shape
        torch.Size([5, 20, 30])
    """
    if features[0].shape[0] != 1:
        raise ValueError(
            f"features[0] has shape {tuple(features[0].shape)}; expected one image's maps, "
            "(1, C_i, H_i, W_i). Call this once for each image"
        )
    weight, bias = head.first_layer()
    dtype = _checked_dtype(head, features, image_size, weight, bias)
    features = [f.to(dtype) for f in features]
    geometry = layer_geometry(
        [(f.shape[2], f.shape[3]) for f in features], image_size, strides=head.first.strides
    )
    linear = Linear(weight, bias, head.first.activation)
    kept = int(KEPT_SHARE * memory_budget)
    layer = first_layer(features, linear, geometry, image_size, kept)
    shape = _tile_shape(layer, head, image_size, dtype, features[0].device, memory_budget)
    if out is None:
        out_dtype = torch.float64 if dtype == torch.float64 else torch.float32
        out = features[0].new_empty((head.out_features, *image_size), dtype=out_dtype)
    for rows, columns in _tiles(image_size, shape):
        scores = _through(head.rest, layer(rows, columns))  # (pixels, K)
        if output is not None:
            scores = output(scores.to(out.dtype))
        target = out[:, rows, columns]
        target.copy_(scores.t().view(target.shape))
        done(len(scores))
    return out


def _checked_dtype(
    head: PixelMLP,
    features: Sequence[Tensor],
    image_size: tuple[int, int],
    weight: Tensor,
    bias: Tensor,
) -> torch.dtype:
    """The dtype of hidden values: that of a call for no pixel, which also checks arguments."""
    batch = features[0].shape[0]
    nowhere = torch.zeros((batch, 0, 2), dtype=torch.int64, device=features[0].device)
    return sparse_hypercolumn(
        features, nowhere, image_size, weight=weight, bias=bias, strides=head.first.strides
    ).dtype


def _through(layers: nn.Sequential, values: Tensor) -> Tensor:
    """``layers(values)``, but each layer's input is freed before the next one allocates."""
    for layer in layers:
        values = layer(values)
    return values


def _bytes_per_pixel_of_rest(head: PixelMLP, dtype: torch.dtype) -> int:
    """Input and output of the widest pair of layers after the first one."""
    linear = [m for m in head.rest if isinstance(m, nn.Linear)]
    widest = max((m.in_features + m.out_features for m in linear), default=0)
    return widest * dtype.itemsize


def _tile_shape(
    layer: DenseLayer,
    head: PixelMLP,
    image_size: tuple[int, int],
    dtype: torch.dtype,
    device: torch.device,
    memory_budget: int,
) -> tuple[int, int]:
    """(rows, columns) of the largest tile within the budget: whole rows if one of them fits."""
    height, width = image_size
    later_bytes = _bytes_per_pixel_of_rest(head, dtype)
    budget = memory_budget - layer.kept_bytes

    def fits(rows: int, columns: int) -> bool:
        return max(layer.scratch_bytes(rows, columns), rows * columns * later_bytes) <= budget

    if not fits(1, 1):
        needed = layer.kept_bytes + max(layer.scratch_bytes(1, 1), later_bytes)
        raise ValueError(
            f"memory_budget={memory_budget} bytes; the head needs at least {needed} for a single "
            "pixel. Raise the budget, or use a narrower head"
        )
    if not fits(1, width):
        return 1, _largest(width, lambda columns: fits(1, columns))
    rows = _largest(height, lambda rows: fits(rows, width))
    if device.type == "cpu":
        rows = min(rows, max(1, CPU_TILE_VALUES // (width * head.first.weight.shape[0])))
    return rows, width


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest n <= most that fits, where 1 does and what fits is an interval."""
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _tiles(image_size: tuple[int, int], shape: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of pixels."""
    height, width = image_size
    for y in range(0, height, shape[0]):
        for x in range(0, width, shape[1]):
            yield slice(y, min(y + shape[0], height)), slice(x, min(x + shape[1], width))
