"""`Options`: what a caller says besides tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .geometry import Stride
from .plan import Plan

__all__ = ["Options"]


class Options(NamedTuple):
    """What a caller says besides tensors, as in :func:`pixelnet_triton.sparse_hypercolumn`."""

    image_size: tuple[int, int]
    activation: str | None = None
    strides: Sequence[Stride] | None = None
    interpolation: str = "bilinear"
    align_corners: bool = False
    padding_mode: str = "border"
    coordinates: str = "pixel"
    plan: str | Plan = "auto"
