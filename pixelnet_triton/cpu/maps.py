"""One layer's map in whatever memory layout it comes: read it, add to its gradient, multiply it.

A map (B, C, H, W) is *rows* if it is channels_last: (B * H * W, C) is a view, whose rows a bag
reads directly. It is *planes* if it is contiguous NCHW: (C, H * W) of an image is a view, which
a matrix product takes transposed, as it is; few points of it are read plane by plane (planes.py).
Anything else, and half precision, is converted.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .bags import TransposedLists, gather_rows, scatter_few
from .corners import Corners
from .planes import planes_to_rows, read_planes, scatter_planes, scatter_transposed
from .products import compute_dtype, product_dtype

__all__ = [
    "laid_out_like",
    "matrices",
    "new_gradient",
    "prefers_planes",
    "read_map",
    "scatter_maps",
]

# From so many cells a corner on, touching single cells is cheaper than converting all of them:
# planes are read and written where they are, and half precision is converted cell by cell.
SPARSE_CELLS_PER_CORNER = 1
# In float32 rows nothing is converted, and only the gradient's zeros are saved.
SPARSE_ROWS_PER_CORNER = 5
# Up to so many corners, adding them one by one is quicker than sorting them first.
FEW_ENTRIES = 128


def _is_rows(feature: Tensor) -> bool:
    return feature.is_contiguous(memory_format=torch.channels_last)


def _is_planes(feature: Tensor) -> bool:
    """Planes that a product takes as they are."""
    exact = feature.dtype == product_dtype(feature.dtype)
    return exact and feature.is_contiguous() and not _is_rows(feature)


def _rows(feature: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, C, H, W) -> (B * H * W, C), contiguous, in `dtype`; a view if it can be.

    By strips of planes, which take half the time of all at once (planes.py).
    """
    batch, channels, height, width = feature.shape
    if _is_rows(feature):
        return feature.permute(0, 2, 3, 1).reshape(-1, channels).to(dtype)
    rows = torch.empty(batch, height * width, channels, dtype=dtype)
    planes_to_rows(rows, feature.flatten(2))
    return rows.view(-1, channels)


def _sparse(feature: Tensor, corners: int) -> bool:
    """Do so many corners touch so few of the cells that these are best treated one by one?"""
    direct = _is_rows(feature) and feature.dtype == compute_dtype(feature.dtype)
    ratio = SPARSE_ROWS_PER_CORNER if direct else SPARSE_CELLS_PER_CORNER
    return _cells(feature) >= ratio * corners


def prefers_planes(feature: Tensor, corners: int) -> bool:
    """Is the map read and written plane by plane? Its columns (P, C) are then best transposed."""
    return feature.is_contiguous() and not _is_rows(feature) and _sparse(feature, corners)


def _cells(feature: Tensor) -> int:
    """Of all images."""
    return feature.numel() // feature.shape[1]


def read_map(feature: Tensor, corners: Corners, uniform: bool) -> Tensor:
    """S X: (B, C, H, W) at corners (P, K) -> (P, C), in the compute dtype."""
    dtype = compute_dtype(feature.dtype)
    if prefers_planes(feature, corners.index.numel()):
        return read_planes(feature, corners, uniform, dtype)
    if _is_rows(feature) and feature.dtype != dtype and _sparse(feature, corners.index.numel()):
        rows = feature.permute(0, 2, 3, 1).reshape(-1, feature.shape[1])
        picked = rows.index_select(0, corners.index.reshape(-1)).to(dtype)
        own = torch.arange(corners.index.numel()).view_as(corners.index)
        return gather_rows(picked, own, corners.weight)
    return gather_rows(_rows(feature, dtype), corners.index, corners.weight)


def scatter_maps(
    features: Sequence[Tensor], corners: Corners, grads: list[Tensor], uniform: bool
) -> list[Tensor]:
    """S_i^T G_i of M layers: gradients (P, C_i) brought to the maps, laid out like these.

    Corners (M, P, K), rows numbered by layer. Lets go of `grads` as it goes: their memory is of use
    for the next map.
    """
    each = [corners.layer(i) for i in range(len(features))]
    entries = corners.index[0].numel()
    few = entries <= FEW_ENTRIES
    sparse = [_sparse(feature, entries) for feature in features]
    listed = [i for i, is_sparse in enumerate(sparse) if not (is_sparse or few)]
    lists: dict[int, TransposedLists] = {}
    if listed:
        chosen = corners if len(listed) == len(features) else corners.layers(listed)
        cells = [_cells(features[i]) for i in listed]
        lists = dict(zip(listed, TransposedLists.of_layers(chosen, cells), strict=True))
    out: dict[int, Tensor] = {}
    # The widest first: at the end, with all maps' gradients there, the narrowest table is left.
    for i in sorted(range(len(features)), key=lambda i: -features[i].shape[1]):
        feature, own, grad = features[i], each[i], grads[i]
        grads[i] = grad.new_empty(0)
        if prefers_planes(feature, entries):
            out[i] = scatter_planes(feature, own, uniform, grad)
        elif i in lists and uniform and feature.is_contiguous() and not _is_rows(feature):
            out[i] = scatter_transposed(feature, grad, lists[i])
        else:
            out[i] = _scatter_rows(feature, own, grad, few, lists.get(i))
    return [out[i] for i in range(len(features))]


def _scatter_rows(
    feature: Tensor, corners: Corners, grad: Tensor, few: bool, lists: TransposedLists | None
) -> Tensor:
    """S^T G as rows (cells, C), seen as a map; of touched cells alone, where there are no lists."""
    batch, channels, height, width = feature.shape
    cells = batch * height * width
    if lists is not None:
        rows = lists.scatter(grad)
    elif few:
        rows = scatter_few(corners, grad, cells)
    else:
        touched, lists = TransposedLists.of_touched(corners, cells)
        rows = feature.new_zeros((cells, channels))
        rows.index_copy_(0, touched, lists.scatter(grad).to(feature.dtype))
    return laid_out_like(feature, rows.view(batch, height, width, channels).permute(0, 3, 1, 2))


def matrices(feature: Tensor) -> list[Tensor]:
    """Matrices (n, C) which, one under the other, are the map's rows; of planes, views."""
    if _is_planes(feature):
        return [planes.flatten(1).t() for planes in feature]
    return [_rows(feature, product_dtype(feature.dtype))]


def new_gradient(feature: Tensor, dtype: torch.dtype) -> Tensor:
    """Uninitialised, and such that its :func:`matrices` are views of it."""
    if _is_planes(feature):
        return torch.empty_like(feature, dtype=dtype)
    return torch.empty(feature.shape, dtype=dtype, memory_format=torch.channels_last)


def laid_out_like(feature: Tensor, gradient: Tensor) -> Tensor:
    """`gradient` in the dtype and memory layout of `feature`; itself if it has them."""
    if gradient.dtype == feature.dtype and gradient.stride() == feature.stride():
        return gradient
    if _is_rows(feature) and gradient.is_contiguous() and gradient.dtype == feature.dtype:
        batch, channels, height, width = feature.shape  # by matrices: faster, see `_rows`
        rows = _rows(gradient, gradient.dtype)
        return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)
    return torch.empty_like(feature).copy_(gradient)
