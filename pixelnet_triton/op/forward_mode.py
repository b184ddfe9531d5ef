"""Forward-mode derivatives: of the plain expression, which torch differentiates in every way.

    dy = S dX W^T + (dS) X W^T + S X dW^T + db

The kernels have no such derivative. In forward mode nothing is kept for a backward pass, so that
the memory is that of the hypercolumns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..call import Options
from ..call.checks import check_values
from ..reference import sparse_hypercolumn
from ..tools.values import values_at_hand
from .prepare import Prepared, cast

__all__ = ["in_forward_mode", "run_in_forward_mode"]


def in_forward_mode() -> bool:
    """Whether tangents may be on their way, by `torch.func.jvp` or `forward_ad.dual_level`."""
    return forward_ad._current_level >= 0


def run_in_forward_mode(
    call: Prepared,
    features: Sequence[Tensor],
    points: Tensor,
    batch_index: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    options: Options,
) -> Tensor:
    """What `run` gives."""
    if call.cast is not None:
        features, weight, bias = cast(call.cast, features, weight, bias)
    if values_at_hand(points):
        check_values(points, batch_index, features[0].shape[0])
    members = () if weight is None else weight.shape[:-1]
    arguments = options.in_plain_numbers()._asdict()
    del arguments["plan"]
    with torch.autocast(points.device.type, enabled=False):
        value = sparse_hypercolumn(
            features,
            points.double(),  # in float32, positions on a wide map are off
            weight=None if weight is None else weight.flatten(0, -2),
            bias=None if bias is None else bias.flatten(),
            batch_index=batch_index,
            **arguments,
        )
    return value.unflatten(-1, members) if members else value
