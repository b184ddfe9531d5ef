"""Few points: PyTorch's own `grid_sample` kernels, whose dispatch costs less than that of bags.

    z^T = W [S_1 X_1 | ...]^T + b        dW = G^T [S_1 X_1 | ...]        (S_i^T G W_i) by layer

`grid_sample` takes g = (2 t + 1) / W - 1 for a position t in cells, which is affine in the point
as t is: one operator makes the grids of all layers. It writes channels first, (B, C_i, N), so
the hypercolumns are transposed here: views, where there is one image. Small calls are bound by
the 2-5 us that an operator takes to dispatch; everything here is as few of them as possible.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ..call.geometry import Geometry, LayerAffine
from .choice import prefers_grid_sample, reads_by_grid_sample
from .maps import laid_out_like
from .products import compute_dtype

__all__ = [
    "PADDING",
    "defines_alike",
    "gather",
    "grid_affine",
    "grids_of",
    "linear",
    "linear_backward",
    "sampled_planes",
    "scatter",
    "suits",
    "suits_reading",
]

BILINEAR = 0
PADDING = {"zeros": 0, "border": 1}


def suits_reading(
    features: Sequence[Tensor], points: int, batch_index: Tensor | None, geometry: Geometry
) -> bool:
    """Are these the better way forward? `points` counts those of all images."""
    if batch_index is not None or not _serves(features, geometry):
        return False
    channels, _, channels_last = _sizes(features)
    batch = features[0].shape[0]
    return reads_by_grid_sample(points, channels, len(features), batch, channels_last)


def suits(
    features: Sequence[Tensor], points: int, batch_index: Tensor | None, geometry: Geometry
) -> bool:
    """Are these the better way back, on which the maps are read again?"""
    if batch_index is not None or not _serves(features, geometry):
        return False
    channels, values, channels_last = _sizes(features)
    return prefers_grid_sample(points, channels, len(features), values, channels_last)


def _sizes(features: Sequence[Tensor]) -> tuple[int, int, bool]:
    """sum C_i, sum B C_i H_i W_i, and whether all are channels_last."""
    channels_last = all(f.is_contiguous(memory_format=torch.channels_last) for f in features)
    return sum([f.shape[1] for f in features]), sum([f.numel() for f in features]), channels_last


def defines_alike(features: Sequence[Tensor], geometry: Geometry) -> bool:
    """Do the kernels take such arguments, and compute what this library defines?

    Rounding in the grid moves a point by 1e-7 of the map, which bilinear values do not notice,
    but nearest cells would at ties.
    """
    if geometry.interpolation != "bilinear":
        return False
    layouts = (torch.contiguous_format, torch.channels_last)
    return all(any(f.is_contiguous(memory_format=m) for m in layouts) for f in features)


def _serves(features: Sequence[Tensor], geometry: Geometry) -> bool:
    """The same, for maps as they are: half-precision coordinates would be useless."""
    exact = features[0].dtype == compute_dtype(features[0].dtype)
    return exact and defines_alike(features, geometry)


def _grids(features: Sequence[Tensor], points: Tensor, geometry: Geometry) -> Sequence[Tensor]:
    sizes = tuple([feature.shape[2:] for feature in features])
    scale, offset = grid_affine(geometry.affine, sizes)
    return grids_of(scale, offset, points, features)


def grids_of(
    scale: Tensor, offset: Tensor, points: Tensor, features: Sequence[Tensor]
) -> Sequence[Tensor]:
    """scale * points + offset for each layer, (B, 1, N, 2); points (B, N, 2) or (P, 2)."""
    batch, dtype = features[0].shape[0], features[0].dtype
    # In double precision: rounded, 2 * scale / W would be off by more than the grid itself.
    if scale.dim() == 1:
        grid = torch.addcmul(offset, scale, points).to(dtype).reshape(batch, 1, -1, 2)
        return (grid,) * len(features)
    grids = torch.addcmul(offset, scale, points.reshape(1, -1, 2)).to(dtype)
    return grids.reshape(len(features), batch, 1, -1, 2).unbind(0)


@lru_cache(maxsize=256)
def grid_affine(
    affine: tuple[LayerAffine, ...], sizes: tuple[tuple[int, int], ...]
) -> tuple[Tensor, Tensor]:
    """scale and offset of the grid coordinates, each (M, 1, 2); (2,) if they are all alike.

    They are where each map covers the image, whatever its size, which is the usual case.
    """
    scale, offset = [], []
    for (sx, ox, sy, oy), (height, width) in zip(affine, sizes, strict=True):
        scale.append([[2 * sx / width, 2 * sy / height]])
        offset.append([[(2 * ox + 1) / width - 1, (2 * oy + 1) / height - 1]])
    both = torch.tensor([scale, offset], dtype=torch.float64, device="cpu")
    if torch.allclose(both, both[:, :1], rtol=1e-13, atol=1e-13):  # a rounding error of doubles
        both = both[:, 0, 0].clone()
    return both[0], both[1]


def gather(features: Sequence[Tensor], points: Tensor, geometry: Geometry) -> Tensor:
    """[S_1 X_1 | ...], (P, sum C_i); for one image the transpose of a contiguous matrix."""
    return _sampled(features, _grids(features, points, geometry), geometry)


def _sampled(features: Sequence[Tensor], grids: Sequence[Tensor], geometry: Geometry) -> Tensor:
    h = sampled_planes(features, grids, PADDING[geometry.padding_mode])
    if h.shape[0] == 1:
        return h.view(h.shape[1], h.shape[3]).t()
    return h.squeeze(2).transpose(1, 2).reshape(-1, h.shape[1])


def sampled_planes(features: Sequence[Tensor], grids: Sequence[Tensor], padding: int) -> Tensor:
    """(B, sum C_i, 1, N)."""
    parts = [
        torch.grid_sampler_2d(feature, grid, BILINEAR, padding, False)
        for feature, grid in zip(features, grids, strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def scatter(
    grad: Tensor,
    features: Sequence[Tensor],
    points: Tensor,
    geometry: Geometry,
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """S_i^T G_i, laid out as X_i, for grad = [G_1 | ...], (P, sum C_i); None where not wanted."""
    return _scattered(grad, features, _grids(features, points, geometry), geometry, wanted)


def _scattered(
    grad: Tensor,
    features: Sequence[Tensor],
    grids: Sequence[Tensor],
    geometry: Geometry,
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    padding = PADDING[geometry.padding_mode]
    batch = features[0].shape[0]
    planes = grad.reshape(batch, -1, grad.shape[1]).transpose(1, 2).unsqueeze(2)  # (B, C, 1, N)
    out: list[Tensor | None] = []
    start = 0
    for feature, grid, want in zip(features, grids, wanted, strict=True):
        own = planes.narrow(1, start, feature.shape[1])
        start += feature.shape[1]
        if not want:
            out.append(None)
            continue
        found = torch.ops.aten.grid_sampler_2d_backward(
            own, feature, grid, BILINEAR, padding, False, (True, False)
        )[0]
        out.append(laid_out_like(feature, found))
    return out


def linear(
    features: Sequence[Tensor],
    points: Tensor,
    geometry: Geometry,
    weight: Tensor,
    bias: Tensor | None,
) -> Tensor:
    """z = h W^T + b, (P, D)."""
    h = gather(features, points, geometry)
    return torch.mm(h, weight.t()) if bias is None else torch.addmm(bias, h, weight.t())


def linear_backward(
    grad: Tensor,
    features: Sequence[Tensor],
    points: Tensor,
    geometry: Geometry,
    weight: Tensor,
    feature_grads: Sequence[bool],
    weight_grad: bool,
) -> tuple[list[Tensor | None], Tensor | None]:
    """dX_i and dW, None where not asked for, of G = grad (P, D)."""
    grids = _grids(features, points, geometry)
    found: list[Tensor | None] = [None] * len(features)
    weight_out = None
    if weight_grad:
        weight_out = torch.mm(grad.t(), _sampled(features, grids, geometry))
    if any(feature_grads):
        if features[0].shape[0] == 1:  # (C, P): planes, as the kernel likes them
            columns = torch.mm(weight.t(), grad.t()).t()
        else:
            columns = torch.mm(grad, weight)
        found = _scattered(columns, features, grids, geometry, feature_grads)
    return found, weight_out
