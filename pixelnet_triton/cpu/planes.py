"""Maps in NCHW: transposed, or read and written plane by plane where few cells are touched.

    (S X)^T[c, p]       = sum over k of weight[p, k] * plane[c, index[p, k]]
    (S^T G)^T[c, cell]  = sum over (p, k) with index[p, k] = cell of weight[p, k] * G^T[c, p]

A plane is a row of memory, and all planes of an image take the same indices: PyTorch's `gather`
and `scatter_add_` with an index expanded over the planes. Threads share planes, never the cells
of one, so every sum has one order.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .bags import TransposedLists
from .corners import Corners

__all__ = [
    "images_together",
    "planes_to_rows",
    "read_planes",
    "scatter_planes",
    "scatter_transposed",
    "strips",
]

# Planes are read, and turned into rows, in strips of 1 MB an image, which stay in the cache, of all
# images at once, so that few operators begin, and in multiples of 16 planes, whose values at a cell
# are a line of the cache.
STRIP = 16
STRIP_VALUES = 1 << 18
# Rows of several images are collected together, before they are turned into planes: 2 MB, at least
# 128 columns. They are turned by strips of 128 cells, or as a whole where an image has many.
COLLECTED_VALUES, WIDE_STRIP = 1 << 19, 128
MANY_CELLS = 2048


def planes_to_rows(out: Tensor, planes: Tensor) -> None:
    """out (B, n, C) = planes (B, C, n), converted to its dtype."""
    for strip in strips(planes.shape[1], planes.shape[2]):
        out[:, :, strip] = planes[:, strip].transpose(1, 2)


def read_planes(feature: Tensor, corners: Corners, uniform: bool, dtype: torch.dtype) -> Tensor:
    """S X, (P, C): the transpose of a contiguous matrix. `uniform`: P / B points an image."""
    out = torch.empty(feature.shape[1], corners.index.shape[0], dtype=dtype, device="cpu")
    planes = feature.flatten(2)  # (B, C, H W)
    for group in _groups(feature, corners, uniform):
        for strip in strips(feature.shape[1], group.cells.numel()):
            plane = planes[group.images, strip]  # (b, c, H W)
            corner = plane.gather(2, group.cells.expand(-1, plane.shape[1], -1)).to(dtype)
            if group.weight is not None:  # (b, c, K N) -> (b, c, N)
                corner = corner.unflatten(2, group.weight.shape[2:]).mul_(group.weight).sum(2)
            out[strip, group.points] = corner.transpose(0, 1).flatten(1)
    return out.t()


def scatter_planes(feature: Tensor, corners: Corners, uniform: bool, grad: Tensor) -> Tensor:
    """S^T G, contiguous, for G = grad (P, C), best the transpose of a matrix."""
    out = torch.zeros_like(feature, memory_format=torch.contiguous_format)
    planes, columns = out.flatten(2), grad.t()
    for group in _groups(feature, corners, uniform):
        images = group.cells.shape[0]
        for strip in strips(feature.shape[1], group.cells.numel()):
            plane = planes[group.images, strip]  # (b, c, H W)
            added = columns[strip, group.points].unflatten(1, (images, -1)).transpose(0, 1)
            if group.weight is not None:  # (b, c, N) -> (b, c, K N)
                corner = added.new_empty((*added.shape[:2], *group.weight.shape[2:]))
                added = torch.mul(added.unsqueeze(2), group.weight, out=corner).flatten(2)
            exact = plane.to(added.dtype)  # half precision is summed in float32
            exact.scatter_add_(2, group.cells.expand(-1, plane.shape[1], -1), added)
            if exact is not plane:
                plane.copy_(exact)
    return out


def scatter_transposed(feature: Tensor, grad: Tensor, lists: TransposedLists) -> Tensor:
    """The same for all cells, by lists and with little scratch memory."""
    out = torch.empty_like(feature, memory_format=torch.contiguous_format)
    (batch, channels), cells = feature.shape[:2], feature.shape[2] * feature.shape[3]
    width = max(COLLECTED_VALUES // cells // WIDE_STRIP, 1) * WIDE_STRIP
    several = max(COLLECTED_VALUES // (cells * channels), 1)
    turned = cells if cells > MANY_CELLS else WIDE_STRIP
    for first in range(0, batch, several):
        images = slice(first, min(first + several, batch))
        image_lists = lists.of_images(images, batch)
        image_planes = out[images].flatten(2).split(width, 1)
        for planes, columns in zip(image_planes, grad.split(width, 1), strict=True):
            rows = image_lists.scatter(columns.contiguous()).view(-1, cells, columns.shape[1])
            for strip, written in zip(planes.split(turned, 2), rows.split(turned, 1), strict=True):
                strip.copy_(written.transpose(1, 2))
    return out


class _Group(NamedTuple):
    """Some images and their points, N of each; cells (b, 1, K N), weights (b, 1, K, N)."""

    images: slice
    points: slice | Tensor
    cells: Tensor
    weight: Tensor | None


def _groups(feature: Tensor, corners: Corners, uniform: bool) -> list[_Group]:
    """Images to be worked on together: few planes of one by one, or as many as make a strip."""
    (batch, channels), cells = feature.shape[:2], feature.shape[2] * feature.shape[3]
    index, weight = corners.index.to(torch.int64), corners.weight
    per_point, total = index.shape[1], index.shape[0]
    if not uniform:
        image_of_point = index[:, 0] // cells
        order = image_of_point.argsort(stable=True)
        index, weight = index[order], None if weight is None else weight[order]
        counts = image_of_point.bincount(minlength=batch).tolist()
        several = 1
    else:
        counts = [total // batch] * batch
        several = images_together(channels, per_point * counts[0])
    groups, start = [], 0
    for first in range(0, batch, several):
        images = slice(first, min(first + several, batch))
        part = slice(start, start + sum(counts[images]))
        start = part.stop
        by_image = (images.stop - first, -1, per_point)  # (b, N, K)
        first_cells = torch.arange(first, images.stop, device="cpu")[:, None, None] * cells
        group_index = index[part].view(by_image).mT - first_cells  # (b, K, N)
        group_weight = None if weight is None else weight[part].view(by_image).mT.contiguous()
        groups.append(
            _Group(
                images,
                part if uniform else order[part],
                group_index.flatten(1).unsqueeze(1),
                None if group_weight is None else group_weight.unsqueeze(1),
            )
        )
    return groups


def images_together(channels: int, entries: int) -> int:
    """How many images are worked on together, with so many corners each."""
    return max(1, STRIP_VALUES // (channels * max(entries, 1)))


def strips(channels: int, entries: int) -> list[slice]:
    """Planes in slices of which each has some STRIP_VALUES values, of `entries` a plane."""
    width = max(STRIP, STRIP_VALUES // max(entries, 1) // STRIP * STRIP)
    return [slice(at, min(at + width, channels)) for at in range(0, channels, width)]
