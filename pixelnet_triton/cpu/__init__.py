"""The CPU back end: the same four functions as :mod:`pixelnet_triton.gpu`."""

from .backend import gather, gather_backward, linear, linear_backward

__all__ = ["gather", "gather_backward", "linear", "linear_backward"]
