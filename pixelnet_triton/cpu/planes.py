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

__all__ = ["planes_to_rows", "read_planes", "scatter_planes", "scatter_transposed"]

# Planes turned into rows together: a whole matrix is transposed by one thread, strips of it by
# all, and the rows of one strip are lines of the cache (256@128: 1.4 against 3.4 ms).
STRIP = 16
# Columns collected and turned into planes together (512@64: 2.7 against 3.7 ms).
WIDE_STRIP = 128
# Corners of planes worked on together: 1 MB in the cache. Planes come in multiples of STRIP.
STRIP_VALUES = 1 << 18


def planes_to_rows(out: Tensor, planes: Tensor) -> None:
    """out (n, C) = planes (C, n), converted to its dtype."""
    for own_out, own in zip(out.split(STRIP, 1), planes.split(STRIP), strict=True):
        own_out.copy_(own.t())


def read_planes(feature: Tensor, corners: Corners, uniform: bool, dtype: torch.dtype) -> Tensor:
    """S X, (P, C): the transpose of a contiguous matrix. `uniform`: P / B points an image."""
    channels = feature.shape[1]
    out = torch.empty(channels, corners.index.shape[0], dtype=dtype)
    each = _per_image(feature, corners, uniform)
    for planes, image in zip(feature.flatten(2), each, strict=True):
        index, weight = image.cells, image.weight
        for strip in _strips(channels, index.numel()):
            own = planes[strip]
            corner = own.gather(1, index.expand(own.shape[0], -1)).to(dtype)  # (c, K N)
            if weight is not None:
                corner = corner.view(own.shape[0], *weight.shape).mul_(weight).sum(1)
            out[strip, image.points] = corner
    return out.t()


def scatter_planes(feature: Tensor, corners: Corners, uniform: bool, grad: Tensor) -> Tensor:
    """S^T G laid out as `feature`, for G = grad (P, C), best the transpose of a matrix."""
    out = torch.zeros_like(feature)
    each = _per_image(feature, corners, uniform)
    for planes, image in zip(out.flatten(2), each, strict=True):
        index, weight = image.cells, image.weight
        for strip in _strips(feature.shape[1], index.numel()):
            own, added = planes[strip], grad.t()[strip, image.points]  # (c, H W), (c, N)
            if weight is not None:
                corner = added.new_empty((added.shape[0], *weight.shape))
                added = torch.mul(added.unsqueeze(1), weight, out=corner).flatten(1)
            exact = own.to(added.dtype)  # half precision is summed in float32
            exact.scatter_add_(1, index.expand(own.shape[0], -1), added)
            if exact is not own:
                own.copy_(exact)
    return out


def scatter_transposed(feature: Tensor, grad: Tensor, lists: TransposedLists) -> Tensor:
    """The same for all cells, by lists and with the scratch memory of a strip of one image."""
    out = torch.empty_like(feature)
    for image, planes in enumerate(out.flatten(2)):
        own_lists = lists.of_image(image, feature.shape[0])
        for strip, columns in zip(planes.split(WIDE_STRIP), grad.split(WIDE_STRIP, 1), strict=True):
            strip.copy_(own_lists.scatter(columns.contiguous()).t())
    return out


class _Image(NamedTuple):
    """Its points, N of them; their cells (K N,), counted from its own first; weights (K, N)."""

    points: slice | Tensor
    cells: Tensor
    weight: Tensor | None


def _per_image(feature: Tensor, corners: Corners, uniform: bool) -> list[_Image]:
    batch, cells = feature.shape[0], feature.shape[2] * feature.shape[3]
    index = corners.index.to(torch.int64)
    each: list[slice | Tensor]
    if uniform:
        together = index.shape[0] // batch
        each = [slice(image * together, (image + 1) * together) for image in range(batch)]
    else:
        image_of_point = index[:, 0] // cells
        order = image_of_point.argsort(stable=True)
        each = list(order.split(image_of_point.bincount(minlength=batch).tolist()))
    return [
        _Image(
            points,
            (index[points] - image * cells).t().flatten(),
            None if corners.weight is None else corners.weight[points].t().contiguous(),
        )
        for image, points in enumerate(each)
    ]


def _strips(channels: int, entries: int) -> list[slice]:
    """Planes in slices of which each has some STRIP_VALUES corners."""
    width = max(STRIP, STRIP_VALUES // max(entries, 1) // STRIP * STRIP)
    return [slice(at, min(at + width, channels)) for at in range(0, channels, width)]
