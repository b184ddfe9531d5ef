"""Sparse hypercolumns by definition: the features of M layers at P points.

For a point p of image b, layer i with features X_i and the point's position (tx, ty) on it,

    h_i[p] = sum over the four cells (row, column) around (tx, ty) of
             (1 - |ty - row|) * (1 - |tx - column|) * X_i[b, :, row, column]
    h[p]   = [h_1[p] | ... | h_M[p]]
    z[p]   = h[p] W^T + b          y[p] = activation(z[p])

following the sampled hypercolumns of PixelNet (Bansal et al., arXiv 1609.06694, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["layer_positions", "sparse_hypercolumn"]

Stride = float | tuple[float, float]


def sparse_hypercolumn(
    features: Sequence[Tensor],
    points: Tensor,
    image_size: tuple[int, int] | Tensor,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    activation: str | None = None,
    batch_index: Tensor | None = None,
    strides: Sequence[Stride] | None = None,
    interpolation: str = "bilinear",
    align_corners: bool = False,
    padding_mode: str = "border",
    coordinates: str = "pixel",
) -> Tensor:
    """Hypercolumns of sampled points, optionally through a first linear layer.

    All arithmetic is done in float32 (float64 for float64 features; positions also for float64
    points) and rounded to the features' dtype once, at the end.

    Args:
        features: M maps (B, C_i, H_i, W_i) of one floating dtype.
        points: (B, N, 2), or (P, 2) together with `batch_index`: (x, y), any real dtype.
        image_size: (H, W) of the image the points lie on, in pixels; or (B, 2), those of images
            that are padded on the right and below: each is a call of its own, on maps that are
            cut to ceil(H / s) x ceil(W / s) cells.
        weight: (D, sum C_i), or None for the hypercolumns themselves.
        bias: (D,), or None.
        activation: None, "relu" or "gelu" (the exact one).
        batch_index: (P,) integers, the image of each point of a ragged list.
        strides: per layer the image pixels per cell, a number or (stride_y, stride_x);
            None takes the ratio of the sizes.
        interpolation: "bilinear" or "nearest" (halves go to the even cell).
        align_corners: whether the centres of corner pixels and corner cells coincide, rather
            than the outer edges of image and map.
        padding_mode: "border" repeats the outermost cells, "zeros" surrounds the map by zeros.
        coordinates: "pixel" (pixel centres at integers), "unit" (image edges at 0 and 1) or
            "normalized" (image edges at -1 and 1).

    Returns:
        (B, N, C) or (P, C); with a weight (B, N, D) or (P, D); in the features' dtype.

    Example:
        >>> import torch
        >>> fine = torch.arange(16.0).reshape(1, 1, 4, 4)
        >>> coarse = torch.tensor([0.0, 10.0]).reshape(1, 1, 1, 2)
        >>> points = torch.tensor([[[0, 0], [3, 1]]])
        >>> sparse_hypercolumn([fine, coarse], points, (4, 4))
        tensor([[[ 0.,  0.],
                 [ 7., 10.]]])
    """
    if isinstance(image_size, Tensor):
        return _each_image(
            features,
            points,
            image_size,
            batch_index,
            weight=weight,
            bias=bias,
            activation=activation,
            strides=strides,
            interpolation=interpolation,
            padding_mode=padding_mode,
            coordinates=coordinates,
        )
    dtype = features[0].dtype
    compute = torch.float64 if dtype == torch.float64 else torch.float32

    # Ragged and uniform points alike: P rows of (x, y), and the image each row belongs to.
    if batch_index is None:
        batch, per_image, _ = points.shape
        image = torch.arange(batch, device=points.device).repeat_interleave(per_image)
    else:
        image = batch_index.long()
    flat_points = points.reshape(-1, 2)

    columns = []
    positions = layer_positions(
        flat_points if flat_points.dtype == torch.float64 else flat_points.to(compute),
        [(f.shape[2], f.shape[3]) for f in features],
        image_size,
        strides=strides,
        align_corners=align_corners,
        coordinates=coordinates,
    )
    for feature, (tx, ty) in zip(features, positions, strict=True):
        cells = feature.to(compute).permute(0, 2, 3, 1)  # (B, H_i, W_i, C_i)
        if padding_mode == "border":
            tx = _clamp_to_map(tx, cells.shape[2])
            ty = _clamp_to_map(ty, cells.shape[1])
        else:  # no weight is left two cells outside the map; a far away position is infinite
            tx, ty = tx.clamp(-2, cells.shape[2] + 1), ty.clamp(-2, cells.shape[1] + 1)
        if interpolation == "nearest":
            # round() goes to the even neighbour at halves, as grid_sample does
            columns.append(_cell(cells, image, ty.detach().round(), tx.detach().round()))
        else:
            columns.append(_bilinear(cells, image, tx, ty))
    h = torch.cat(columns, dim=1)  # (P, sum C_i)

    if weight is None:
        y = h
    else:
        z = F.linear(h, weight.to(compute), None if bias is None else bias.to(compute))
        y = {None: lambda t: t, "relu": F.relu, "gelu": F.gelu}[activation](z)
    return y.to(dtype).reshape(*points.shape[:-1], y.shape[1])


def _each_image(
    features: Sequence[Tensor],
    points: Tensor,
    sizes: Tensor,
    batch_index: Tensor | None,
    *,
    strides: Sequence[Stride] | None,
    **options: Any,
) -> Tensor:
    """Image after image, each with its own size, and its maps without padding."""
    assert strides is not None, "sizes of images say nothing of cells"
    rows: Tensor | None = None
    for b, (height, width) in enumerate(sizes.tolist()):
        maps = []
        for feature, stride in zip(features, strides, strict=True):
            stride_y, stride_x = stride if isinstance(stride, (tuple, list)) else (stride, stride)
            cells_y = max(1, math.ceil(height / stride_y - 1e-6))  # 21 / 2.1 is 10
            cells_x = max(1, math.ceil(width / stride_x - 1e-6))
            maps.append(feature[b : b + 1, :, :cells_y, :cells_x])
        mine = b if batch_index is None else batch_index == b
        of_image = sparse_hypercolumn(
            maps, points[mine].reshape(1, -1, 2), (height, width), strides=strides, **options
        )[0]
        if rows is None:
            rows = of_image.new_zeros((*points.shape[:-1], of_image.shape[1]))
        rows = rows.index_put((torch.as_tensor(mine),), of_image)
    assert rows is not None
    return rows


def layer_positions(
    points: Tensor,
    map_sizes: Sequence[tuple[int, int]],
    image_size: tuple[int, int],
    *,
    strides: Sequence[Stride] | None = None,
    align_corners: bool = False,
    coordinates: str = "pixel",
) -> list[tuple[Tensor, Tensor]]:
    """Where points fall on each layer, in cells, with cell centres at integers.

    Args:
        points: (P, 2) of a floating dtype: (x, y) in the convention `coordinates`.
        map_sizes: (H_i, W_i) of each layer.
        image_size: (H, W) of the image in pixels.
        strides, align_corners, coordinates: as for :func:`sparse_hypercolumn`.

    Returns:
        per layer (tx, ty), each (P,), not clamped to the map, in the points' dtype.

    Example:
        >>> import torch
        >>> points = torch.tensor([[3.5, 0.0]])
        >>> layer_positions(points, [(4, 4)], (8, 8))
        [(tensor([1.5000]), tensor([-0.2500]))]
    """
    height, width = image_size
    x, y = points[:, 0], points[:, 1]
    positions = []
    for i, (rows, columns) in enumerate(map_sizes):
        stride = (None, None) if strides is None else strides[i]
        stride_y, stride_x = stride if isinstance(stride, (tuple, list)) else (stride, stride)
        tx = _axis_position(x, columns, width, stride_x, align_corners, coordinates)
        ty = _axis_position(y, rows, height, stride_y, align_corners, coordinates)
        positions.append((tx, ty))
    return positions


def _axis_position(
    x: Tensor, cells: int, pixels: int, stride: float | None, align_corners: bool, coordinates: str
) -> Tensor:
    """One axis of :func:`layer_positions`."""
    if align_corners:
        # the share of the way from the first centre to the last, where a single centre is
        # also the first; then the same share of the way over the cells
        share = {
            "pixel": x / (pixels - 1) if pixels > 1 else torch.zeros_like(x),
            "unit": x,
            "normalized": (x + 1) / 2,
        }[coordinates]
        return share * (cells - 1)
    # u runs from 0 at the image's left edge to `pixels` at its right edge
    u = {"pixel": x + 0.5, "unit": x * pixels, "normalized": (x + 1) / 2 * pixels}[coordinates]
    # divided last: a pixel that lies on a cell's centre gets exactly there
    return (u * cells / pixels if stride is None else u / stride) - 0.5


def _clamp_to_map(t: Tensor, cells: int) -> Tensor:
    """t clamped to [0, cells - 1], with the gradient of grid_sample: zero on the bounds too."""
    inside = (t > 0) & (t < cells - 1)
    return torch.where(inside, t, t.detach().clamp(0, cells - 1))


def _bilinear(cells: Tensor, image: Tensor, tx: Tensor, ty: Tensor) -> Tensor:
    """The four cells around each position, weighted: (B, H_i, W_i, C_i) -> (P, C_i)."""
    left, top = tx.detach().floor(), ty.detach().floor()
    right_share, bottom_share = tx - left, ty - top  # in [0, 1)
    result = torch.zeros((), dtype=cells.dtype, device=cells.device)
    for row, row_share in ((top, 1 - bottom_share), (top + 1, bottom_share)):
        for column, column_share in ((left, 1 - right_share), (left + 1, right_share)):
            share = (row_share * column_share).to(cells.dtype)
            result = result + share[:, None] * _cell(cells, image, row, column)
    return result


def _cell(cells: Tensor, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Cell (row, column) of each point's image, (P, C_i); zero where it lies outside the map."""
    _, height, width, _ = cells.shape
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    # clamped before the conversion: a far away position has no integer
    rows, columns = row.clamp(0, height - 1).long(), column.clamp(0, width - 1).long()
    return torch.where(inside[:, None], cells[image, rows, columns], 0)
