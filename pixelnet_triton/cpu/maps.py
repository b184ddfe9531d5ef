"""One layer's map in whatever memory layout it comes: read it, add to its gradient, multiply it.

A map (B, C, H, W) is *rows* if it is channels_last: (B * H * W, C) is a view, whose rows a bag
reads directly. It is *planes* if it is contiguous NCHW: (C, H * W) of an image is a view, which
a matrix product takes transposed, as it is. Anything else, and half precision, is converted.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .bags import TransposedLists, gather_rows, scatter_few
from .corners import Corners

__all__ = [
    "compute_dtype",
    "laid_out_like",
    "matrices",
    "new_gradient",
    "read_map",
    "scatter_maps",
]

# From so many cells a corner on, touching single cells of the planes is cheaper than transposing
# them all: 4 to 8 ns a value (strided) against 0.5 to 1.5 ns a value of the map.
SPARSE_CELLS_PER_CORNER = 5
# Up to so many corners, adding them one by one is quicker than sorting them first.
FEW_ENTRIES = 128
# Maps below this size are converted whole; above, fresh memory costs more than strided products
# (page faults: 64 MB in 29 ms, against 0.1 ms for 8 MB that malloc hands out again).
CONVERT_BYTES = 16 << 20


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Half precision is computed in float32: faster without AMX, and more accurate."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _is_rows(feature: Tensor) -> bool:
    return feature.is_contiguous(memory_format=torch.channels_last)


def _rows(feature: Tensor) -> Tensor:
    """(B, C, H, W) -> (B * H * W, C), contiguous, in the compute dtype; a view if it can be.

    Image by image, because PyTorch transposes a matrix 2 to 6 times as fast as it permutes four
    dimensions (256@128: 6 against 18 ms).
    """
    batch, channels, height, width = feature.shape
    dtype = compute_dtype(feature.dtype)
    if _is_rows(feature):
        return feature.permute(0, 2, 3, 1).reshape(-1, channels).to(dtype)
    rows = torch.empty(batch, height * width, channels, dtype=dtype)
    for out, planes in zip(rows, feature, strict=True):
        out.copy_(planes.flatten(1).to(dtype).t())
    return rows.view(-1, channels)


def _sparse(feature: Tensor, corners: Corners) -> bool:
    """Do the points touch so few of the cells that these are best treated one by one?"""
    return _cells(feature) >= SPARSE_CELLS_PER_CORNER * corners.index.numel()


def _cells(feature: Tensor) -> int:
    """Of all images."""
    return feature.numel() // feature.shape[1]


def read_map(feature: Tensor, corners: Corners, uniform: bool) -> Tensor:
    """S X: (B, C, H, W) at corners (P, K) -> (P, C), in the compute dtype."""
    direct = _is_rows(feature) and feature.dtype == compute_dtype(feature.dtype)
    if direct or not uniform or not _sparse(feature, corners):
        return gather_rows(_rows(feature), corners.index, corners.weight)
    picked = _pick(feature, corners.index)
    own = torch.arange(corners.index.numel()).view_as(corners.index)
    return gather_rows(picked, own, corners.weight)


def _pick(feature: Tensor, index: Tensor) -> Tensor:
    """The cells at index (P, K), P / B points an image -> (P * K, C)."""
    batch, channels, height, width = feature.shape
    picked = torch.empty(index.numel(), channels, dtype=compute_dtype(feature.dtype))
    wanted = index.reshape(batch, -1)
    for image, (out, cells) in enumerate(zip(picked.chunk(batch), wanted, strict=True)):
        planes = feature[image].flatten(1)  # (C, H * W)
        out.copy_(planes.index_select(1, cells - image * height * width).t())
    return picked


def scatter_maps(
    features: Sequence[Tensor], corners: Corners, grads: list[Tensor], uniform: bool
) -> list[Tensor]:
    """S_i^T G_i of M layers: gradients (P, C_i) brought to the maps, laid out like these.

    Corners (M, P, K), rows numbered by layer. Empties `grads` as it goes: their memory is of use
    for the next map.
    """
    each = [corners.layer(i) for i in range(len(features))]
    sparse = [_sparse(f, own) for f, own in zip(features, each, strict=True)]
    few = corners.index[0].numel() <= FEW_ENTRIES
    listed = [i for i, is_sparse in enumerate(sparse) if not (is_sparse or few)]
    lists: dict[int, TransposedLists] = {}
    if listed:
        chosen = corners if len(listed) == len(features) else corners.layers(listed)
        cells = [_cells(features[i]) for i in listed]
        lists = dict(zip(listed, TransposedLists.of_layers(chosen, cells), strict=True))
    out = []
    for i, (feature, own) in enumerate(zip(features, each, strict=True)):
        grad = grads.pop(0)
        direct = _is_rows(feature) and grad.dtype == feature.dtype
        empty_like = torch.zeros_like if sparse[i] else torch.empty_like
        gradient = empty_like(feature) if uniform and not direct else None
        if gradient is not None and (_is_rows(gradient) or gradient.is_contiguous()):
            if few and not sparse[i]:
                lists[i] = TransposedLists.of_stack(own, _cells(feature))
            _write_per_image(gradient, own, grad, lists.get(i))
            out.append(gradient)
        else:
            out.append(_scatter_rows(feature, own, grad, few, lists.get(i)))
    return out


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
        rows = grad.new_zeros((cells, channels))
        touched, lists = TransposedLists.of_touched(corners, cells)
        rows.index_copy_(0, touched, lists.scatter(grad))
    return laid_out_like(feature, rows.view(batch, height, width, channels).permute(0, 3, 1, 2))


def _write_per_image(
    out: Tensor, corners: Corners, grad: Tensor, lists: TransposedLists | None
) -> None:
    """S^T G with the scratch memory of one image: all cells, or without lists those touched."""
    batch, _, height, width = out.shape
    cells, points = height * width, grad.shape[0] // batch
    for image, planes in enumerate(out.flatten(2)):  # (C, H * W)
        if lists is not None:
            planes.copy_(lists.of_image(image, batch).scatter(grad).to(out.dtype).t())
            continue
        part = slice(image * points, (image + 1) * points)
        own = corners.of_points(part)
        local = Corners(own.index - image * cells, own.weight)
        touched, own_lists = TransposedLists.of_touched(local, cells)
        planes.index_copy_(1, touched, own_lists.scatter(grad[part]).to(out.dtype).t())


def matrices(feature: Tensor) -> list[Tensor]:
    """Matrices (n, C) which, one under the other, are the map's rows: views of a large map."""
    in_place = feature.dtype == compute_dtype(feature.dtype) and feature.is_contiguous()
    if not in_place or _is_rows(feature) or feature.nbytes <= CONVERT_BYTES:
        return [_rows(feature)]
    return [planes.flatten(1).t() for planes in feature]


def new_gradient(feature: Tensor) -> Tensor:
    """Uninitialised, in the compute dtype, and such that its `matrices` are views of it."""
    in_place = feature.dtype == compute_dtype(feature.dtype) and feature.is_contiguous()
    if in_place and feature.nbytes > CONVERT_BYTES:
        return torch.empty_like(feature)
    dtype = compute_dtype(feature.dtype)
    return torch.empty(feature.shape, dtype=dtype, memory_format=torch.channels_last)


def laid_out_like(feature: Tensor, gradient: Tensor) -> Tensor:
    """`gradient` in the dtype and memory layout of `feature`; itself if it has them."""
    if gradient.dtype == feature.dtype and gradient.stride() == feature.stride():
        return gradient
    if _is_rows(feature) and gradient.is_contiguous() and gradient.dtype == feature.dtype:
        batch, channels, height, width = feature.shape  # by matrices: faster, see `_rows`
        return _rows(gradient).view(batch, height, width, channels).permute(0, 3, 1, 2)
    return torch.empty_like(feature).copy_(gradient)
