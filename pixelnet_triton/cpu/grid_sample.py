"""Few points: PyTorch's own sampling kernels, whose dispatch costs less than that of lists.

    z^T = W [S_1 X_1 | ...]^T + b        dW = G^T [S_1 X_1 | ...]        (S_i^T G W_i) by layer

`grid_sample` takes g = u - 1 for a position t in cells, where u = (2 t + 1) / W, or 2 t / (W - 1)
if it aligns corners. That is affine in the point as t is: one operator makes the grids of all
layers. Where points meet the centres of cells, these are taken by index (met.py). It writes
channels first, (B, C_i, N), so the hypercolumns are transposed here: views, where there is one
image. Calls of few points are bound by the 2-5 us that an operator takes to dispatch; everything
here is as few as possible.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, linear

from ..call import CallShape, Geometry, Gradients, LayerAffine, Linear, Route, Sampling, Wanted
from .maps import laid_out_like
from .met import Cells, Meeting
from .products import Upstream, product_dtype
from .reading import Reading

__all__ = ["Expression", "Grids", "hypercolumns", "sampled_backward"]

BILINEAR = 0
PADDING = {"zeros": 0, "border": 1}
# A grid beyond all cells of any map, of which `grid_sample` still finds the position.
FAR = 1e9


@dataclass(frozen=True)
class Grids:
    """grid = u - 1, u = scale * point + offset, in float64 unless float32 is exact.

    scale, offset: (M, 1, 2) by layer; (2,) if they are alike, as they are where each map covers the
    image. Rounded to float32, 2 * scale / W would be off by more than the grid itself.
    corners: by layer, which of the two u it is; that of the caller's `align_corners` rounds least.
    factor: u = factor * point on both axes, and exactly, as for points in [0, 1]; else None. A
    tensor (2,) multiplies two values at a time, which shows where maps have one channel.
    """

    scale: Tensor
    offset: Tensor
    corners: tuple[bool, ...]
    one: Tensor  # kept: a number takes longer to become a tensor than to be subtracted
    factor: float | None
    padding: int
    meeting: Meeting

    @staticmethod
    def of(geometry: Geometry, shape: CallShape) -> Grids:
        """Those of maps of that shape."""
        sizes = tuple([(layer.rows, layer.columns) for layer in shape.layers])
        corners = tuple(map(_aligns_corners, geometry.affine, sizes))
        scale, offset = _grid_affine(geometry.affine, sizes, corners)
        meeting = Meeting.of(geometry, sizes, scale, offset)
        if meeting.lattice is None and shape.itemsize < 8:  # all is exact in float32, and quicker
            scale, offset = scale.float(), offset.float()
        dtype = torch.float64 if shape.itemsize == 8 else torch.float32
        one = torch.ones((), dtype=dtype, device="cpu")
        same = scale.dim() == 1 and bool(scale[0] == scale[1]) and not bool(offset.any())
        factor = float(scale[0]) if same and meeting.lattice is None else None
        padding = PADDING[geometry.padding_mode]
        return Grids(scale, offset, corners, one, factor, padding, meeting)

    def planes(self, features: Sequence[Tensor], points: Tensor) -> Tensor:
        """[S_1 X_1 | ...] as (B, sum C_i, 1, N), for points (B, N, 2) or (P, 2)."""
        grids, met = self.at(features, points), self.meeting.cells(features[0].shape[0], points)
        planes = [
            self._plane(feature, grid, self.corners[i], met.get(i))
            for i, (feature, grid) in enumerate(zip(features, grids, strict=True))
        ]
        return planes[0] if len(planes) == 1 else torch.cat(planes, 1)

    def _plane(self, feature: Tensor, grid: Tensor, corners: bool, cells: Cells | None) -> Tensor:
        if cells is not None and cells.off is None:
            return cells.taken(feature)
        sampled = torch.grid_sampler_2d(feature, grid, BILINEAR, self.padding, corners)
        if cells is None or cells.off is None:
            return sampled
        return sampled.where(cells.off.unsqueeze(2), cells.taken(feature))

    def scattered(
        self, s: Sampling, planes: Sequence[Tensor], wanted: Wanted
    ) -> Iterator[tuple[Tensor | None, Tensor | None]]:
        """Of each layer S_i^T G_i, contiguous in NCHW, and dL/d(grid), where wanted.

        Of G_i as planes (B, C_i, 1, N). Points that meet cells have no gradient here.
        """
        grids, met = self.at(s.features, s.points), self.meeting.cells(s.batch, s.points)
        for i, plane in enumerate(planes):
            cells, wants_map = met.get(i), wanted.features[i]
            if not (wants_map or wanted.points):
                yield None, None
                continue
            gradient, moved = torch.ops.aten.grid_sampler_2d_backward(
                plane if cells is None else cells.without(plane),
                s.features[i],
                grids[i],
                BILINEAR,
                self.padding,
                self.corners[i],
                (wants_map, wanted.points),
            )
            if cells is not None and wants_map:
                cells.give(gradient, plane)
            yield gradient if wants_map else None, moved if wanted.points else None

    def at(self, features: Sequence[Tensor], points: Tensor) -> Sequence[Tensor]:
        """The grid of each layer, (B, 1, N, 2)."""
        batch, dtype = features[0].shape[0], features[0].dtype
        alike = self.scale.dim() == 1
        if self.factor is not None and points.dtype == self.one.dtype:
            u = points * self.factor
        else:
            by_layer = points if alike else points.reshape(1, -1, 2)
            u = torch.addcmul(self.offset, self.scale, by_layer)
        if self.padding == PADDING["zeros"]:
            u.clamp_(-FAR, FAR)  # what is infinite has no weights
        grids = u.to(dtype).sub_(self.one)  # which the kernels add again, without loss
        if alike:
            return (grids.reshape(batch, 1, -1, 2),) * len(features)
        return grids.reshape(len(features), batch, 1, -1, 2).unbind(0)


@lru_cache(maxsize=256)
def _grid_affine(
    affine: tuple[LayerAffine, ...], sizes: tuple[tuple[int, int], ...], corners: tuple[bool, ...]
) -> tuple[Tensor, Tensor]:
    scale, offset = [], []
    for (sx, ox, sy, oy), (height, width), aligned in zip(affine, sizes, corners, strict=True):
        if aligned:
            across, down = max(width - 1, 1), max(height - 1, 1)  # all is 0 on a single cell
            scale.append([[2 * sx / across, 2 * sy / down]])
            offset.append([[2 * ox / across, 2 * oy / down]])
        else:
            scale.append([[2 * sx / width, 2 * sy / height]])
            offset.append([[(2 * ox + 1) / width, (2 * oy + 1) / height]])
    both = torch.tensor([scale, offset], dtype=torch.float64, device="cpu")
    if bool((both == both[:, :1]).all()):  # to the bit, as each layer would be alone
        both = both[:, 0, 0].clone()
    return both[0], both[1]


def _aligns_corners(layer: LayerAffine, size: tuple[int, int]) -> bool:
    """Do coordinates count from the centres of corner cells, so that 2 t / (W - 1) = a x or x + 1?

    Not if the map is as fine as the image, where edges and corners are one.
    """
    (sx, ox, sy, oy), (height, width) = layer, size
    for scale, offset, last in ((sx, ox, width - 1), (sy, oy, height - 1)):
        if offset not in (0, scale) or (offset and scale != last / 2) or (scale and not last):
            return False
    return layer != (1.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True)
class Expression:
    """y = act([S_1 X_1 | ...] W^T + b) as an expression that autograd differentiates.

    It keeps the hypercolumns for the backward pass, and what it converts of half precision; the
    gradients of maps come as `grid_sample` makes them, contiguous in NCHW.
    """

    grids: Grids
    channels: int
    ragged: bool
    half: bool

    def forward(self, s: Sampling, head: Linear | None) -> Tensor:
        """(..., D), or (..., sum C_i) without a head, for points (..., 2)."""
        features, points, batch_index, _ = s
        batch = features[0].shape[0]
        if self.half:
            features = [feature.float() for feature in features]
        if self.ragged and batch_index is not None:
            rows = self._ragged(features, points, batch_index)
        elif batch == 1:
            planes = self.grids.planes(features, points)
            rows = planes.view(self.channels, -1).t()  # (P, sum C)
        else:
            rows = self.grids.planes(features, points).squeeze(2).transpose(1, 2)  # (B, N, sum C)
            if points.dim() == 2:
                rows = rows.flatten(0, 1)
        if head is None:
            value = rows.to(s.features[0].dtype, memory_format=torch.contiguous_format)
            return value.unsqueeze(0) if value.dim() < points.dim() else value
        weight, bias, activation = head
        value = (
            _in_half(rows, head, s.features[0].dtype) if self.half else linear(rows, weight, bias)
        )
        if activation is not None:
            value = value.relu_() if activation == "relu" else gelu(value)
        return value.unsqueeze(0) if value.dim() < points.dim() else value

    def _ragged(self, features: Sequence[Tensor], points: Tensor, index: Tensor) -> Tensor:
        """(P, sum C_i), the points of all images padded to equally many, if that is not much."""
        batch, index = features[0].shape[0], index.long()
        counts = index.bincount(minlength=batch)
        order = index.argsort(stable=True)
        longest = int(counts.max())
        if batch * longest <= 2 * len(points):
            padded = _padded(points, index, order, counts, longest)
            planes = self.grids.planes(features, padded.points)
            return planes.squeeze(2).transpose(1, 2).flatten(0, 1).index_select(0, padded.row)
        images = zip(*[feature.split(1) for feature in features], strict=True)
        sorted_points = points.index_select(0, order).split(counts.tolist())
        rows = [
            self.grids.planes(maps, image_points)[0, :, 0].t()
            for maps, image_points in zip(images, sorted_points, strict=True)
            if len(image_points)
        ]
        return torch.cat(rows).index_select(0, order.argsort())

    def backward(
        self, s: Sampling, head: Linear | None, grad: Tensor, output: Tensor | None, wanted: Wanted
    ) -> Gradients:
        raise RuntimeError("autograd differentiates an expression by itself")


def _in_half(rows: Tensor, head: Linear, dtype: torch.dtype) -> Tensor:
    """(..., D) in `dtype`, the product made in the dtype that this CPU multiplies."""
    operand = product_dtype(dtype)
    bias = None if head.bias is None else head.bias.to(operand)
    return linear(rows.to(operand), head.weight.to(operand), bias).to(dtype)


class _Padded(NamedTuple):
    """Ragged points as equally many an image, (B, N, 2), and the row that each point became."""

    points: Tensor
    row: Tensor


def _padded(points: Tensor, index: Tensor, order: Tensor, counts: Tensor, longest: int) -> _Padded:
    batch = len(counts)
    shift = torch.arange(0, batch * longest, longest) - counts.cumsum(0) + counts
    row = torch.empty_like(order)
    row[order] = torch.arange(len(order)) + shift[index[order]]
    padded = points.new_zeros((batch * longest, 2)).index_copy_(0, row, points)
    return _Padded(padded.view(batch, longest, 2), row)


def hypercolumns(s: Sampling, grids: Grids) -> Tensor:
    """[S_1 X_1 | ...], (P, sum C_i); for one image the transpose of a contiguous matrix."""
    planes = grids.planes(s.features, s.points)
    if planes.shape[0] == 1:
        return planes.view(planes.shape[1], planes.shape[3]).t()
    return planes.squeeze(2).transpose(1, 2).reshape(-1, planes.shape[1])


def sampled_backward(
    s: Sampling, grids: Grids, head: Linear | None, upstream: Upstream, wanted: Wanted
) -> Gradients:
    """All gradients."""
    grad = upstream.whole()
    needed = bool(wanted.layers) or wanted.points
    columns, weight = grad, None
    if head is not None:
        if wanted.weight:
            weight = torch.mm(grad.t(), hypercolumns(s, grids))
        if needed and s.batch == 1:  # (C, P): planes, as the kernel likes them
            columns = torch.mm(head.weight.t(), grad.t()).t()
        elif needed:
            columns = torch.mm(grad, head.weight)
    features: Sequence[Tensor | None] = [None] * len(s.features)
    points = None
    if needed:
        features, points = _scattered(s, grids, columns, wanted)
    return Gradients(features, points, weight, grad.sum(0) if wanted.bias else None)


def _scattered(
    s: Sampling, grids: Grids, columns: Tensor, wanted: Wanted
) -> tuple[Sequence[Tensor | None], Tensor | None]:
    """S_i^T G_i, laid out as X_i, and the points' gradient, for columns = [G_1 | ...]."""
    features: list[Tensor | None] = []
    points = None
    by_image = columns.reshape(s.batch, -1, columns.shape[1]).transpose(1, 2).unsqueeze(2)
    planes = [by_image[:, of_layer] for of_layer in s.columns]
    for i, (written, moved) in enumerate(grids.scattered(s, planes, wanted)):
        features.append(None if written is None else laid_out_like(s.features[i], written))
        if moved is not None:  # d(grid) / d(point) is the scale
            scale = grids.scale if grids.scale.dim() == 1 else grids.scale[i]
            of_layer = moved.reshape(-1, 2).mul_(scale)
            points = of_layer if points is None else points.add_(of_layer)
    if points is not None:
        _correct_on_steps(points, s, grids, columns)
        points = points.to(s.points.dtype)
    return features, points


def _correct_on_steps(points: Tensor, s: Sampling, grids: Grids, columns: Tensor) -> None:
    """The gradient of points at whose coordinates the derivative steps, which grids may miss."""
    rows = grids.meeting.on_steps(s.points)
    if rows is None:
        return
    image = rows.div(s.total // s.batch, rounding_mode="floor")
    some = s._replace(points=s.points[rows], batch_index=image)
    reading = Reading(some, Route("lists", "", ("picked",) * len(s.features), ()))
    right = points.new_zeros((len(rows), 2))
    for i, of_layer in enumerate(s.columns):
        reading.add_point_gradient(right, i, columns[rows, of_layer])
    points[rows] = right
