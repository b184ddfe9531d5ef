"""The derivative of the first derivative: of the plain expression, which torch differentiates.

    (G, p, W, X) -> (dp, dW, db, dX), the first derivative of y = act(h W^T + b) for a gradient G
                    of y: G' = G * [y > 0],  dW = G'^T h,  db = sum of G',  dX, dp from dh = G' W

The kernels have no second derivative. Hypercolumns are in memory for it, as often as torch needs
them, and everything can be differentiated again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import vjp

from ..call import Geometry, LayerAffine, Wanted
from ..call.geometry import quotient
from ..reference import sparse_hypercolumn

__all__ = ["FirstDerivative", "second_derivative"]


class FirstDerivative(NamedTuple):
    """All that the first derivative of a call is made from.

    Args:
        grad: (..., D), or (..., sum C_i) without a weight, of P rows. output: the ReLU's, alike;
            or None.
        points: (P, 2). batch_index: (P,); None for P / B points an image, in order.
        weight: (D, sum C_i) or None. features: M maps (B, C_i, H_i, W_i).
    """

    grad: Tensor
    points: Tensor
    batch_index: Tensor | None
    weight: Tensor | None
    output: Tensor | None
    features: Sequence[Tensor]
    geometry: Geometry
    wanted: Wanted

    def variables(self) -> dict[str, Tensor]:
        """Points, weight and maps, by name, as far as they are differentiable."""
        named = {f"features[{i}]": feature for i, feature in enumerate(self.features)}
        if self.points.is_floating_point():
            named["points"] = self.points
        if self.weight is not None:
            named["weight"] = self.weight
        return named

    def at(self, named: dict[str, Tensor]) -> FirstDerivative:
        """The same of other variables, some or all of them, and of another `grad`."""
        maps = [named.get(f"features[{i}]", feature) for i, feature in enumerate(self.features)]
        return self._replace(
            grad=named.get("grad", self.grad),
            points=named.get("points", self.points),
            weight=named.get("weight", self.weight),
            features=maps,
        )


def second_derivative(
    of: FirstDerivative, cotangents: Sequence[Tensor | None]
) -> tuple[Tensor, Tensor | None, Tensor | None, list[Tensor]]:
    """Gradients of grad, points, weight and features, for those of what the first derivative gave.

    `cotangents`: of points, weight, bias and features, in this order; None for what was not wanted.
    """
    variables = {"grad": of.grad, **of.variables()}

    def first(*tensors: Tensor) -> tuple[Tensor, ...]:
        gradients = _first_derivative(of.at(dict(zip(variables, tensors, strict=True))))
        return tuple([g for g in gradients if g is not None])

    # As in the first derivative (compute.py), the forward pass's dtypes hold.
    with torch.autocast("cuda" if of.grad.is_cuda else "cpu", enabled=False):
        pull = vjp(first, *variables.values())[1]
        pulled = pull(tuple([c for c in cotangents if c is not None]))
    found = dict(zip(variables, pulled, strict=True))
    maps = [found[f"features[{i}]"] for i in range(len(of.features))]
    return found["grad"], found.get("points"), found.get("weight"), maps


def _first_derivative(of: FirstDerivative) -> list[Tensor | None]:
    """Of points, weight, bias and features; None for what is not wanted."""
    names = [f"features[{i}]" for i in range(len(of.features))]
    wanted = {names[i] for i in of.wanted.layers}
    wanted |= {"points"} if of.wanted.points else set()
    wanted |= {"weight"} if of.wanted.weight else set()
    chosen = {name: tensor for name, tensor in of.variables().items() if name in wanted}
    grad = of.grad if of.output is None else of.grad * (of.output > 0)
    grad = grad.flatten(0, -2)  # (P, D)
    found: dict[str, Tensor] = {}
    if chosen:

        def layer(*tensors: Tensor) -> Tensor:
            return _layer(of.at(dict(zip(chosen, tensors, strict=True))))

        value, pull = vjp(layer, *chosen.values())[:2]
        found = dict(zip(chosen, pull(grad.to(value.dtype)), strict=True))
    bias = grad.sum(0) if of.wanted.bias else None
    return [found.get("points"), found.get("weight"), bias, *[found.get(name) for name in names]]


def _layer(of: FirstDerivative) -> Tensor:
    """h W^T, (P, D), or h, (P, sum C_i): the plain expression without bias and activation."""
    image = of.batch_index
    if image is None:
        batch = of.features[0].shape[0]
        images = torch.arange(batch, device=of.points.device)
        image = images.repeat_interleave(len(of.points) // max(batch, 1))
    points = of.points.double()  # as exact as the positions of the first derivative
    dtype = torch.float64 if of.features[0].dtype == torch.float64 else torch.float32
    columns = [
        sparse_hypercolumn(
            [feature.to(dtype)],
            _on_map(points, affine),
            (feature.shape[2], feature.shape[3]),  # an image whose pixels are the map's cells
            batch_index=image,
            interpolation=of.geometry.interpolation,
            padding_mode=of.geometry.padding_mode,
        )
        for feature, affine in zip(of.features, of.geometry.affine, strict=True)
    ]
    h = torch.cat(columns, 1)
    return h if of.weight is None else F.linear(h, of.weight.to(dtype))


def _on_map(points: Tensor, affine: LayerAffine) -> Tensor:
    """(P, 2): where the points lie on a map, in cells."""
    (ax, bx, cx), (ay, by, cy) = quotient(*affine[:2]), quotient(*affine[2:])
    return torch.stack([(points[:, 0] * ax + bx) / cx, (points[:, 1] * ay + by) / cy], 1)
