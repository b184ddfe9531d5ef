"""One layer's map in whatever memory layout it comes: read it, add to its gradient, multiply it.

A map (B, C, H, W) is *rows* if it is channels_last: (B * H * W, C) is a view, whose rows a bag
reads directly. It is *planes* if it is contiguous NCHW: (C, H * W) of an image is a view, which
a matrix product takes transposed, as it is. Which way it is read and written: routes.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .bags import TransposedLists, gather_rows, scatter_few
from .corners import Corners
from .planes import planes_to_rows, read_planes, scatter_planes, scatter_transposed
from .products import compute_dtype, product_dtype

__all__ = ["laid_out_like", "matrices", "new_gradient", "read_map", "write_maps"]


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
    rows = torch.empty(batch, height * width, channels, dtype=dtype, device="cpu")
    planes_to_rows(rows, feature.flatten(2))
    return rows.view(-1, channels)


def read_map(feature: Tensor, corners: Corners, word: str, uniform: bool) -> Tensor:
    """S X: (B, C, H, W) at corners (P, K) -> (P, C), in the compute dtype.

    `word`: one of the route's for reading. `uniform`: P / B points an image, in order.
    """
    dtype = compute_dtype(feature.dtype)
    if word == "planes":
        return read_planes(feature, corners, uniform, dtype)
    if word == "picked":
        picked = _picked(feature, corners.index.reshape(-1)).to(dtype)
        order = torch.arange(corners.index.numel(), device="cpu").view_as(corners.index)
        return gather_rows(picked, order, corners.weight)
    return gather_rows(_rows(feature, dtype), corners.index, corners.weight)


def _picked(feature: Tensor, index: Tensor) -> Tensor:
    """Rows (E, C) of a map in any layout, numbered (image, y, x); nothing else is read."""
    cells = feature.permute(0, 2, 3, 1)
    if _is_rows(feature):
        return cells.reshape(-1, feature.shape[1]).index_select(0, index)
    height, width = feature.shape[2:]
    y = torch.div(index, width, rounding_mode="floor")
    image = torch.div(y, height, rounding_mode="floor")
    return cells[image, y - image * height, index - y * width]


def write_maps(
    features: Sequence[Tensor],
    corners: Corners,
    columns: list[Tensor],
    words: Sequence[str],
    uniform: bool,
) -> list[Tensor]:
    """S_i^T G_i of M layers: columns G_i (P, C_i) brought to the maps, laid out like these.

    Corners (M, P, K), rows numbered by layer; `words` of the route for writing. Lets go of
    `columns` as it goes: their memory is of use for the next map.
    """
    by_layer = [corners.layer(i) for i in range(len(features))]
    listed = [i for i, word in enumerate(words) if word in ("listed", "turned")]
    lists: dict[int, TransposedLists] = {}
    if listed:
        chosen = corners if len(listed) == len(features) else corners.layers(listed)
        cells = [_cells(features[i]) for i in listed]
        lists = dict(zip(listed, TransposedLists.of_layers(chosen, cells), strict=True))
    gradients: dict[int, Tensor] = {}
    # The widest first: at the end, with all maps' gradients there, the narrowest table is left.
    for i in sorted(range(len(features)), key=lambda i: -features[i].shape[1]):
        feature, taken = features[i], columns[i]
        columns[i] = taken.new_empty(0)
        if words[i] == "planes":
            planes = scatter_planes(feature, by_layer[i], uniform, taken)
            gradients[i] = laid_out_like(feature, planes)
        elif words[i] == "turned":
            gradients[i] = laid_out_like(feature, scatter_transposed(feature, taken, lists[i]))
        else:
            rows = _written_rows(feature, by_layer[i], taken, words[i], lists.get(i))
            batch, channels, height, width = feature.shape
            rows = rows.view(batch, height, width, channels)
            gradients[i] = laid_out_like(feature, rows.permute(0, 3, 1, 2))
    return [gradients[i] for i in range(len(features))]


def _cells(feature: Tensor) -> int:
    """Of all images."""
    return feature.numel() // feature.shape[1]


def _written_rows(
    feature: Tensor, corners: Corners, columns: Tensor, word: str, lists: TransposedLists | None
) -> Tensor:
    """S^T G as rows (cells, C)."""
    if lists is not None:
        return lists.scatter(columns)
    if word == "added":
        return scatter_few(corners, columns, _cells(feature))
    touched, lists = TransposedLists.of_touched(corners, _cells(feature))
    rows = feature.new_zeros((_cells(feature), feature.shape[1]))
    return rows.index_copy_(0, touched, lists.scatter(columns).to(feature.dtype))


def matrices(feature: Tensor) -> list[Tensor]:
    """Matrices (n, C) which, one under the other, are the map's rows; of planes, views."""
    if _is_planes(feature):
        return [planes.flatten(1).t() for planes in feature]
    return [_rows(feature, product_dtype(feature.dtype))]


def new_gradient(feature: Tensor, dtype: torch.dtype) -> Tensor:
    """Uninitialised, and such that its :func:`matrices` are views of it."""
    if _is_planes(feature):
        return torch.empty_like(feature, dtype=dtype)
    return torch.empty(feature.shape, dtype=dtype, memory_format=torch.channels_last, device="cpu")


def laid_out_like(feature: Tensor, gradient: Tensor) -> Tensor:
    """`gradient` in the dtype and memory layout of `feature`; itself if it has them."""
    if gradient.dtype == feature.dtype and gradient.stride() == feature.stride():
        return gradient
    if _is_rows(feature) and gradient.is_contiguous() and gradient.dtype == feature.dtype:
        batch, channels, height, width = feature.shape  # by matrices: faster, see `_rows`
        rows = _rows(gradient, gradient.dtype)
        return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)
    return torch.empty_like(feature).copy_(gradient)
