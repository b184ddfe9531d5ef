"""The steps of a forward pass on a GPU: kernels and plain products, as its route says.

y = act( sum_i (S_i X_i) W_i^T + sum_k S_k Z_k + b ),   Z_k = X_k W_k^T the projected maps
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache, partial

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
from ..kernels.linear import Operand
from ..kernels.order import order_points
from ..kernels.product import product
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
    if not projected and "gather" in route.read:
        return ByRows(s)
    if "project_columns" in route.read:
        return partial(_by_columns, gathered=gathered, projected=projected)
    if "project_band" in route.read:
        return partial(_by_bands, projected=projected)
    return partial(_by_operands, route=route, gathered=gathered, projected=projected)


class ByRows:
    """act(h W^T + b) of hypercolumns that are written out, settled for calls like one."""

    def __init__(self, s: Sampling) -> None:
        self.gather, self.points = gather_like(s), PointsLike(s)

    def __call__(self, s: Sampling, head: Linear) -> Tensor:
        rows = self.gather(s.features, self.points(s.points, s.batch_index))
        return _multiplied(rows, head.weight, head)


def _by_columns(
    s: Sampling, head: Linear, gathered: Sequence[int], projected: Sequence[int]
) -> Tensor:
    """act([h | S Z_1 | S Z_2 ...] [W | I | I ...]^T + b): one gather, one product."""
    maps = [s.features[i] for i in gathered] + [_projected(s, head, i) for i in projected]
    one = _identity(head.out_features, head.weight.dtype, head.weight.device)
    weight = [weight_of(head.weight, s, gathered)] if gathered else []
    rows = gather(s.of([*gathered, *projected], maps, role="columns"))
    return _multiplied(rows, torch.cat([*weight, *[one] * len(projected)], 1), head)


def _by_bands(s: Sampling, head: Linear, projected: Sequence[int]) -> Tensor:
    """One product for gathered columns and interpolation weights, of points in order."""
    s.kept = order_points(s)
    return banded(s, head, projected, s.kept)


def _by_operands(
    s: Sampling, head: Linear, route: Route, gathered: Sequence[int], projected: Sequence[int]
) -> Tensor:
    """One kernel that multiplies, for each layer, what the route says."""
    operands = {i: Operand("gather", s.features[i]) for i in gathered}
    if "gather" in route.read:
        rows = gather(s.of(gathered)).split([s.channels[i] for i in gathered], dim=1)
        operands = {i: Operand("gather", row) for i, row in zip(gathered, rows, strict=True)}
    for i in projected:
        operands[i] = Operand(route.read[i], _projected(s, head, i))
    if "project_product" in route.read:
        s = _cleaned(s, {i: x for i, (way, x) in operands.items() if way == "project_product"})
    launch = fused_linear if "fused_linear" in route.read else product
    return launch([operands[i] for i in range(len(route.read))], s, head)


def _cleaned(s: Sampling, projected: dict[int, Tensor]) -> Sampling:
    """`s`, with NaN for points that see a number not finite in a map of `projected`, by layer.

    Such numbers are taken out of these maps: a product with S_i gives cells that a point does not
    see a weight of 0, and 0 times infinity is NaN.
    """
    norm, maps = torch.linalg.vector_norm, list(projected.values())
    peaks = [norm(z, torch.inf, dim=1, keepdim=True, dtype=torch.float32) for z in maps]
    for z in maps:
        z.nan_to_num_(0.0, 0.0, 0.0)
    seen = gather(s.of(list(projected), peaks, role="peaks"))
    return s.at(s.points.float() + (seen - seen).sum(1, keepdim=True), s.batch_index)


@lru_cache(maxsize=4)
def _identity(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.eye(size, dtype=dtype, device=device)


def _multiplied(rows: Tensor, weight: Tensor, head: Linear) -> Tensor:
    """act(rows W^T + b) by one launch where the library of products has an epilogue for it."""
    if head.activation == "relu":
        if head.bias is not None and rows.is_cuda:
            return torch._addmm_activation(head.bias, rows, weight.t())
        return F.linear(rows, weight, head.bias).relu_()
    rows = F.linear(rows, weight, head.bias)
    return F.gelu(rows) if head.activation == "gelu" else rows


def _projected(s: Sampling, head: Linear, layer: int) -> Tensor:
    """Z_i = X_i W_i^T as a channels_last map (B, D, H_i, W_i)."""
    cells, weight = s.features[layer].permute(0, 2, 3, 1), weight_of(head.weight, s, [layer])
    return F.linear(cells, weight).permute(0, 3, 1, 2)
