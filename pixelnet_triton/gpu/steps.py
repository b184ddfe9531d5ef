"""The steps of a forward pass on a GPU: kernels and plain products, as its route says.

y = act( sum_i (S_i X_i) W_i^T + sum_k S_k Z_k + b ),   Z_k = X_k W_k^T the projected maps
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..call.linear import Linear
from ..call.route import Route
from ..call.sampling import Sampling
from ..kernels.banded import banded
from ..kernels.direct import modes
from ..kernels.fused_linear import fused_linear
from ..kernels.gather import gather, gather_like
from ..kernels.launch import PointsLike, precision
from ..kernels.order import order_points
from ..kernels.rows import add_rows
from ..kernels.select import tuner
from ..tools.alike import must_be_alike
from .backward import hypercolumn_gradients, linear_gradients
from .parts import weight_of
from .routes import GATHERED, PROJECTED, layers_read

__all__ = ["gather", "hypercolumn_gradients", "linear", "linear_gradients", "settings"]

Step = Callable[[Sampling, Linear], Tensor]


def settings(dtype: torch.dtype) -> Hashable:
    """What else than shapes and options decides how kernels are launched."""
    asked = tuner()
    tuned = asked and (asked, must_be_alike())
    return modes(), tuned, dtype is torch.float32 and precision(dtype)


def linear(s: Sampling, head: Linear, route: Route) -> Tensor:
    """act(h W^T + b), (P, D)."""
    return s.once(("linear", route.read), lambda: _step(s, route))(s, head)


def _step(s: Sampling, route: Route) -> Step:
    """What carries out the route for calls like this one."""
    gathered, projected = layers_read(route, GATHERED), layers_read(route, PROJECTED)
    if "project_band" in route.read:
        return partial(_by_bands, projected=projected)
    if not projected:
        return fused_linear if "fused_linear" in route.read else ByRows(s)
    return BySums(s, gathered, projected, "fused_linear" in route.read)


class ByRows:
    """act(h W^T + b) of hypercolumns that are written out, settled for calls like one."""

    def __init__(self, s: Sampling) -> None:
        self.gather, self.points = gather_like(s), PointsLike(s)

    def __call__(self, s: Sampling, head: Linear) -> Tensor:
        rows = self.gather(s.features, self.points(s.points, s.batch_index))
        weight, bias, activation = head
        if activation == "relu" and bias is not None and _epilogue_keeps_nan(rows):
            return torch._addmm_activation(bias, rows, weight.t())  # in one launch
        rows = F.linear(rows, weight, bias)
        if activation == "relu":
            return rows.relu_()
        return F.gelu(rows) if activation == "gelu" else rows


_KEEPS_NAN: dict[tuple[torch.device, torch.dtype], bool] = {}


def _epilogue_keeps_nan(like: Tensor) -> bool:
    """Does the ReLU of the library of products keep NaN, by which bad points are marked?

    Its documentation does not say. It is asked once, which waits for the device; within a capture,
    where nothing can be waited for, the answer is no.
    """
    kind = (like.device, like.dtype)
    if kind not in _KEEPS_NAN:
        if like.is_cuda and torch.cuda.is_current_stream_capturing():
            return False
        nan = like.new_full((16, 16), torch.nan)
        _KEEPS_NAN[kind] = bool(torch._addmm_activation(nan[0], nan, nan).isnan().all())
    return _KEEPS_NAN[kind]


class BySums:
    """act(h W^T + sum_k S_k Z_k + b), settled for calls like one: a product, then what is added."""

    def __init__(
        self, s: Sampling, gathered: Sequence[int], projected: Sequence[int], one_pass: bool
    ) -> None:
        self.gathered, self.projected = gathered, projected
        self.multiply: Callable[[Sampling, Linear], Tensor] | None = None
        if gathered:
            self.multiply = fused_linear if one_pass else ByRows(s.of(gathered))

    def __call__(self, s: Sampling, head: Linear) -> Tensor:
        product, bias = None, head.bias
        if self.multiply is not None:  # which adds the bias before it rounds
            columns = Linear(weight_of(head.weight, s, self.gathered), bias, None)
            product, bias = self.multiply(s.of(self.gathered), columns), None
        maps = [_projected(s, head, i) for i in self.projected]
        return add_rows(s.of(self.projected, maps, role="rows"), product, bias, head.activation)


def _by_bands(s: Sampling, head: Linear, projected: Sequence[int]) -> Tensor:
    """One product for gathered columns and interpolation weights, of points in order."""
    s.kept = order_points(s)
    return banded(s, head, projected, s.kept)


def _projected(s: Sampling, head: Linear, layer: int) -> Tensor:
    """Z_i = X_i W_i^T as a channels_last map (B, D, H_i, W_i)."""
    cells, weight = s.features[layer].permute(0, 2, 3, 1), weight_of(head.weight, s, [layer])
    # One product: of cells that do not lie side by side F.linear may make one a row of the map.
    rows = torch.mm(cells.flatten(0, 2), weight.t())
    return rows.view(*cells.shape[:3], -1).permute(0, 3, 1, 2)
