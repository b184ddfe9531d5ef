"""The CPU back end: the same four functions as :mod:`pixelnet_triton.gpu`, and `small_call`."""

from .backend import gather, gather_backward, linear, linear_backward
from .small import small_call

__all__ = [
    "gather",
    "gather_backward",
    "linear",
    "linear_backward",
    "small_call",
]
