"""What both passes take: some layers' columns of the weight, the layout of gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..call.sampling import Sampling

__all__ = ["Columns", "strided_like", "weight_of"]


def _are_neighbours(layers: Sequence[int]) -> bool:
    """Do their columns stand side by side in the weight?"""
    return layers[-1] - layers[0] == len(layers) - 1


def _columns_of(s: Sampling, layers: Sequence[int]) -> slice | None:
    """The columns of `layers` in the weight, if they are neighbours there; else None."""
    if not _are_neighbours(layers):
        return None
    return slice(s.columns[layers[0]].start, s.columns[layers[-1]].stop)


def weight_of(weight: Tensor, s: Sampling, layers: Sequence[int]) -> Tensor:
    """Columns of the weight that belong to `layers`: a view if they are neighbours."""
    columns = s.once(("columns", *layers), lambda: _columns_of(s, layers))
    if columns is not None:
        return weight[:, columns]
    return torch.cat([weight[:, s.columns[i]] for i in layers], dim=1)


class Columns:
    """The columns of a weight in parts: layers that are scattered together, else layer by layer.

    Args:
        part: for each layer the part that its columns belong to.
    """

    def __init__(self, channels: Sequence[int], together: Sequence[int]) -> None:
        self.channels, self.together = channels, together
        self.part: list[int] = []
        self.widths: list[int] = []
        are_neighbours = bool(together) and _are_neighbours(together)
        for i, width in enumerate(channels):
            if are_neighbours and i in together[1:]:
                self.widths[-1] += width
            else:
                self.widths.append(width)
            self.part.append(len(self.widths) - 1)
        self.parts = list(dict.fromkeys([self.part[i] for i in together]))

    def of(self, weight: Tensor) -> Sequence[Tensor]:
        """The parts of (D, sum C_i), in its memory: one operator, where slices are one each.

        Unsafe only where autograd records; a backward pass it does not.
        """
        return torch.unsafe_split_with_sizes(weight, self.widths, 1)

    def joined(self, slices: Sequence[Tensor]) -> Tensor:
        """The columns of the layers that belong together: a view if they are neighbours."""
        if len(self.parts) == 1:
            return slices[self.parts[0]]
        return torch.cat([slices[part] for part in self.parts], dim=1)

    def put(self, slices: Sequence[Tensor], left: Tensor, right: Tensor) -> None:
        """Write left times right, the columns of the layers that belong together."""
        if len(self.parts) == 1:
            torch.mm(left, right, out=slices[self.parts[0]])
            return
        columns = torch.mm(left, right).split([self.channels[i] for i in self.together], dim=1)
        for part, column in zip(self.parts, columns, strict=True):
            slices[part].copy_(column)


def strided_like(feature: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape and strides of a map's gradient: as `torch.empty_like` has them, and so tracing."""
    gradient = torch.empty_like(feature, device="meta")
    return tuple(gradient.shape), gradient.stride()
