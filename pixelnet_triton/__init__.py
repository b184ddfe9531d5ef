"""Sparse hypercolumns for per-pixel prediction: fused sampling and first layer.

>>> from pixelnet_triton import sparse_hypercolumn, HypercolumnLinear
"""

from .functional import sparse_hypercolumn
from .modules import HypercolumnLinear
from .planner import Plan

__all__ = ["HypercolumnLinear", "Plan", "sparse_hypercolumn"]
__version__ = "0.1.0"
