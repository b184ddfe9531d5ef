"""Points in PyTorch's own coordinates: its sampling kernels, the fastest on maps of few channels.

    z^T = W [S_1 X_1 | ...]^T + b        dW = G^T [S_1 X_1 | ...]        (S_i^T G W_i) by layer

`grid_sample` takes g = 2 p - 1 for p in [0, 1]. In float32 that, like p itself, knows a position to
some 2^-25 of the map's side. Pixels say where a point lies more exactly, and are not turned into g.
The kernels write channels first, (B, C_i, N), so the hypercolumns are transposed here: views, where
there is one image. Few points are bound by the 2-5 us that an operator takes to dispatch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..call import CallShape, Geometry, Gradients, Linear, Sampling, Wanted
from ..call.geometry import TorchCoordinates
from .maps import laid_out_like
from .products import Upstream, activate_, add_product

__all__ = ["BILINEAR", "FAR", "PADDING", "GridSample"]

# In the words of `grid_sampler_2d`.
BILINEAR = 0
PADDING = {"zeros": 0, "border": 1}
# A grid beyond all cells of any map, of which `grid_sample` still finds the position.
FAR = 1e9


@dataclass(frozen=True)
class GridSample:
    """Either pass by PyTorch's kernels; see :class:`pixelnet_triton.call.Executor`."""

    coordinates: TorchCoordinates
    padding: int
    bounded: bool  # what is infinite has no weights, or meets a scale of 0
    one: Tensor  # kept: a number takes longer to become a tensor than to be subtracted

    @staticmethod
    def of(geometry: Geometry, shape: CallShape) -> GridSample:
        """That of maps of that shape."""
        coordinates = geometry.torch_coordinates([(m.rows, m.columns) for m in shape.layers])
        assert coordinates is not None, "routes.py sends other points elsewhere"
        dtype = torch.float64 if shape.itemsize == 8 else torch.float32
        one = torch.ones((), dtype=dtype, device="cpu")
        padding = PADDING[geometry.padding_mode]
        single = any(1 in (m.rows, m.columns) for m in shape.layers)
        return GridSample(coordinates, padding, not geometry.border or single, one)

    def forward(self, s: Sampling, head: Linear | None) -> Tensor:
        h = self._hypercolumns(s)
        if head is None:
            return h.contiguous()
        z = h.new_empty((h.shape[0], head.weight.shape[0]))
        add_product(z, h, head.weight.t(), head.bias)
        activate_(z, head.activation)
        return z

    def backward(
        self, s: Sampling, head: Linear | None, grad: Tensor, output: Tensor | None, wanted: Wanted
    ) -> Gradients:
        grad = Upstream.of(grad, output).whole()
        needed = bool(wanted.layers) or wanted.points
        columns, weight = grad, None
        if head is not None:
            if wanted.weight:
                weight = torch.empty_like(head.weight)
                add_product(weight, grad.t(), self._hypercolumns(s), None)
            if needed and s.batch == 1:  # (C, P): planes, as the kernel likes them
                columns = torch.mm(head.weight.t(), grad.t()).t()
            elif needed:
                columns = torch.mm(grad, head.weight)
        features: Sequence[Tensor | None] = [None] * len(s.features)
        points = None
        if needed:
            features, points = self._scattered(s, columns, wanted)
        return Gradients(features, points, weight, grad.sum(0) if wanted.bias else None)

    def _grid(self, s: Sampling) -> Tensor:
        """g of all points, (B, 1, N, 2)."""
        unit = self.coordinates.unit
        g = (s.points * 2.0 if unit else s.points).to(self.one.dtype)
        if self.bounded:
            g = g.clamp(-FAR, FAR)
        return (g.sub(self.one) if unit else g).reshape(s.batch, 1, -1, 2)

    def _hypercolumns(self, s: Sampling) -> Tensor:
        """[S_1 X_1 | ...], (P, sum C_i); for one image the transpose of a contiguous matrix."""
        grid, aligned = self._grid(s), self.coordinates.aligned
        sampled = [
            torch.grid_sampler_2d(feature, grid, BILINEAR, self.padding, aligned)
            for feature in s.features
        ]
        planes = sampled[0] if len(sampled) == 1 else torch.cat(sampled, 1)
        if s.batch == 1:
            return planes.view(planes.shape[1], planes.shape[3]).t()
        return planes.squeeze(2).transpose(1, 2).reshape(-1, planes.shape[1])

    def _scattered(
        self, s: Sampling, columns: Tensor, wanted: Wanted
    ) -> tuple[Sequence[Tensor | None], Tensor | None]:
        """S_i^T G_i, laid out as X_i, and the points' gradient, for columns = [G_1 | ...]."""
        features: list[Tensor | None] = []
        points = None
        grid = self._grid(s)
        planes = columns.reshape(s.batch, -1, columns.shape[1]).transpose(1, 2).unsqueeze(2)
        for feature, of_layer, want in zip(s.features, s.columns, wanted.features, strict=True):
            if not (want or wanted.points):
                features.append(None)
                continue
            gradient, moved = torch.ops.aten.grid_sampler_2d_backward(
                planes[:, of_layer],
                feature,
                grid,
                BILINEAR,
                self.padding,
                self.coordinates.aligned,
                (want, wanted.points),
            )
            features.append(laid_out_like(feature, gradient) if want else None)
            if wanted.points:
                points = moved if points is None else points.add_(moved)
        if points is None:
            return features, None
        points = points.mul_(2.0) if self.coordinates.unit else points  # dg / dp
        return features, points.view(-1, 2).to(s.points.dtype)
