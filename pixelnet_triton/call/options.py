"""`Options`: what a caller says besides tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from .geometry import Stride
from .plan import Plan

__all__ = ["ImageSize", "Options"]

ImageSize = tuple[int, int] | Sequence[tuple[int, int]] | Tensor


class Options(NamedTuple):
    """What a caller says besides tensors, as in :func:`pixelnet_triton.sparse_hypercolumn`."""

    image_size: Any  # (H, W), or of each image until op/extents.py brought them to one
    activation: str | None = None
    strides: Sequence[Stride] | None = None
    interpolation: str = "bilinear"
    align_corners: bool = False
    padding_mode: str = "border"
    coordinates: str = "pixel"
    plan: str | Plan = "auto"

    def placed(self, image_size: Any, coordinates: str) -> Options:
        """The same with these; written out, since torch 2.6 compiles no `_replace`."""
        return Options(
            image_size=image_size,
            activation=self.activation,
            strides=self.strides,
            interpolation=self.interpolation,
            align_corners=self.align_corners,
            padding_mode=self.padding_mode,
            coordinates=coordinates,
            plan=self.plan,
        )

    def in_plain_numbers(self) -> Options:
        """The same with Python's numbers for those of NumPy and for tensors of one number."""
        return self._replace(image_size=_plain(self.image_size), strides=_plain(self.strides))


def _plain(number: Any) -> Any:
    """Of a number, or of a sequence of them, which becomes a tuple."""
    if isinstance(number, (list, tuple)):
        return tuple([_plain(n) for n in number])
    is_other = isinstance(number, (Tensor, np.ndarray, np.generic))
    return _plain(number.tolist()) if is_other else number
