"""The metrics of the four tasks; each is imported when it is first asked for.

What needs torchmetrics, SciPy or scikit-image says so then, and not before.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .depth import DepthMetrics
    from .normals import NormalMetrics
    from .segmentation import SegmentationMetrics

__all__ = ["DepthMetrics", "NormalMetrics", "SegmentationMetrics"]

_MODULES = {
    "DepthMetrics": "depth",
    "NormalMetrics": "normals",
    "SegmentationMetrics": "segmentation",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
