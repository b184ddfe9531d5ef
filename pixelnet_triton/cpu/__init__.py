"""The CPU back end, in PyTorch's own operators."""

from .backend import BACKEND

__all__ = ["BACKEND"]
