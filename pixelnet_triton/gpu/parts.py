"""What both passes take: a map as rows of cells, some layers' columns of the weight."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..call.sampling import Sampling

__all__ = ["cells_of", "layout", "put_columns", "weight_of"]


def _columns_of(s: Sampling, layers: Sequence[int]) -> slice | None:
    """The columns of `layers` in the weight, if they are neighbours there; else None."""
    if layers[-1] - layers[0] != len(layers) - 1:
        return None
    return slice(s.columns[layers[0]].start, s.columns[layers[-1]].stop)


def weight_of(weight: Tensor, s: Sampling, layers: Sequence[int]) -> Tensor:
    """Columns of the weight that belong to `layers`: a view if they are neighbours."""
    columns = s.once(("columns", *layers), lambda: _columns_of(s, layers))
    if columns is not None:
        return weight[:, columns]
    return torch.cat([weight[:, s.columns[i]] for i in layers], dim=1)


def put_columns(
    weight: Tensor, s: Sampling, layers: Sequence[int], left: Tensor, right: Tensor
) -> None:
    """Write left times right, the gradient of the columns of `layers`, where it belongs."""
    columns = s.once(("columns", *layers), lambda: _columns_of(s, layers))
    if columns is not None:
        torch.mm(left, right, out=weight[:, columns])
        return
    parts = torch.mm(left, right).split([s.channels[i] for i in layers], dim=1)
    for i, part in zip(layers, parts, strict=True):
        weight[:, s.columns[i]] = part


def cells_of(feature: Tensor) -> Tensor:
    """(B H_i W_i, C_i): a view of a channels_last map, a copy of others."""
    return feature.permute(0, 2, 3, 1).reshape(-1, feature.shape[1])


def layout(feature: Tensor) -> torch.memory_format:
    """The memory format in which the gradient of a map is written."""
    if feature.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format
