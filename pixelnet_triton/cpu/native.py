"""Few points: PyTorch's own `grid_sample` kernels, whose dispatch costs less than that of bags.

`grid_sample` takes g = (2 t + 1) / W - 1 for a position t in cells, which is affine in the point
as t is: one operator makes the grids of all layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ..geometry import LayerAffine
from .choice import prefers_grid_sample
from .maps import laid_out_like
from .sampling import Sampling

__all__ = ["gather", "scatter", "suits"]

BILINEAR = 0
PADDING = {"zeros": 0, "border": 1}


def suits(call: Sampling) -> bool:
    """Is this small, and of a kind that the kernels compute as this library defines it?

    Rounding in the grid moves a point by 1e-7 of the map, which bilinear values do not notice,
    but nearest cells would at ties.
    """
    features = call.features
    return (
        call.batch_index is None
        and call.geometry.interpolation == "bilinear"
        and features[0].dtype == call.dtype
        and prefers_grid_sample(
            call.points.shape[0],
            sum(f.shape[1] for f in features),
            len(features),
            all(f.is_contiguous(memory_format=torch.channels_last) for f in features),
        )
        and all(_dense(f) for f in features)
    )


def _dense(feature: Tensor) -> bool:
    return feature.is_contiguous() or feature.is_contiguous(memory_format=torch.channels_last)


def _grids(call: Sampling, layers: Sequence[int]) -> Tensor:
    """(M, B, N, 1, 2), in [-1, 1] on each map."""
    affine = tuple(call.geometry.affine[i] for i in layers)
    sizes = tuple((call.features[i].shape[2], call.features[i].shape[3]) for i in layers)
    scale, offset = _grid_affine(affine, sizes)
    # In double precision: rounded, 2 * scale / W would be off by more than the grid itself.
    grids = torch.addcmul(offset, scale, call.points.double()).to(call.dtype)
    return grids.view(len(layers), call.batch, -1, 1, 2)


@lru_cache(maxsize=256)
def _grid_affine(
    affine: tuple[LayerAffine, ...], sizes: tuple[tuple[int, int], ...]
) -> tuple[Tensor, Tensor]:
    """scale and offset of the grid coordinates, each (M, 1, 2)."""
    scale, offset = [], []
    for (sx, ox, sy, oy), (height, width) in zip(affine, sizes, strict=True):
        scale.append([[2 * sx / width, 2 * sy / height]])
        offset.append([[(2 * ox + 1) / width - 1, (2 * oy + 1) / height - 1]])
    return (
        torch.tensor(scale, dtype=torch.float64, device="cpu"),
        torch.tensor(offset, dtype=torch.float64, device="cpu"),
    )


def gather(call: Sampling, layers: Sequence[int]) -> Tensor:
    """[S_i X_i | ...] of `layers`, (P, sum of their C_i)."""
    padding = PADDING[call.geometry.padding_mode]
    grids = _grids(call, layers).unbind(0)
    parts = [
        torch.grid_sampler_2d(call.features[i], grid, BILINEAR, padding, False)
        for i, grid in zip(layers, grids, strict=True)
    ]
    h = parts[0] if len(parts) == 1 else torch.cat(parts, 1)  # (B, C, N, 1)
    return h.squeeze(-1).transpose(1, 2).reshape(-1, h.shape[1])


def scatter(call: Sampling, grads: dict[int, Tensor]) -> dict[int, Tensor]:
    """S_i^T G_i, laid out as X_i, of G_i (P, C_i) by layer."""
    padding = PADDING[call.geometry.padding_mode]
    out = {}
    for (i, grad), grid in zip(grads.items(), _grids(call, list(grads)).unbind(0), strict=True):
        feature = call.features[i]
        planes = grad.unflatten(0, (call.batch, -1)).transpose(1, 2).unsqueeze(-1)
        found = torch.ops.aten.grid_sampler_2d_backward(
            planes, feature, grid, BILINEAR, padding, False, (True, False)
        )[0]
        out[i] = laid_out_like(feature, found)
    return out
