"""`run`: a prepared call by the door that is open to it.

- an expression, which autograd differentiates by itself, where the route says so;
- eagerly, by a `torch.autograd.Function` where a gradient is wanted (eager.py);
- `torch.library` custom ops, for tracing and for tensor subclasses (registration.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from ..call import Linear, Sampling
from ..call.checks import check_values
from .eager import TransformedHypercolumn, eager
from .prepare import Prepared, cast
from .registration import traced

__all__ = ["run"]


def run(
    call: Prepared,
    features: Sequence[Tensor],
    points: Tensor,
    batch_index: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    """(B, N, sum C) or (B, N, D) for points (B, N, 2); (P, ...) for points (P, 2).

    The weights (E, D, sum C) of E layers are those of one with E * D outputs: (B, N, E, D).
    """
    if weight is not None and weight.dim() == 3:
        bias = None if bias is None else bias.flatten()
        value = run(call, features, points, batch_index, weight.flatten(0, 1), bias)
        return value.unflatten(-1, weight.shape[:2])
    if call.cast is not None:
        features, weight, bias = cast(call.cast, features, weight, bias)
    if call.transformed:
        value = TransformedHypercolumn.apply(points, batch_index, weight, bias, call, *features)
    elif call.executor is None:
        value = traced(call, features, points, batch_index, weight, bias)
    elif call.by_autograd:
        if batch_index is not None or points.is_floating_point():  # integers are finite
            check_values(points, batch_index, features[0].shape[0])
        head = None if weight is None else Linear(weight, bias, call.activation)
        s = Sampling(features, points, batch_index, call.geometry)
        value = call.executor.forward(s, head)
    else:
        value = eager(call, features, points, batch_index, weight, bias)
    return F.gelu(value) if call.gelu_outside else value
