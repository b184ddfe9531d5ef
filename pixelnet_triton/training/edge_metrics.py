"""A quick measure of edge maps for use during training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

try:
    from torchmetrics.classification import BinaryPrecisionRecallCurve
except ImportError as error:
    raise ImportError(
        "pixelnet_triton.training needs torchmetrics, which is not installed; "
        "pip install 'pixelnet-triton[train]'"
    ) from error

__all__ = ["PixelEdgeMetrics"]


class PixelEdgeMetrics(BinaryPrecisionRecallCurve):
    """Average precision and best F of edge probabilities, pixel by pixel.

    No thinning, no tolerance in place, one consensus for truth: this is a classifier's measure,
    cheap enough for validation, and far below ODS and OIS, which
    :class:`pixelnet_triton.metrics.BoundaryMetrics` computes.

    Args:
        thresholds: points of the curve, equally spaced in [0, 1].
        ignore_index: of pixels that do not count.

    Example:
        >>> import torch
        >>> from pixelnet_triton.training import PixelEdgeMetrics
        >>> metric = PixelEdgeMetrics()
        >>> edges = torch.tensor([[[0, 1, 255]]])
        >>> metric.update(torch.tensor([[[[0.1, 0.9, 0.5]]]]), edges)
        >>> {name: float(value) for name, value in metric.compute().items()}
        {'average_precision': 1.0, 'best_f': 1.0}
    """

    def __init__(self, thresholds: int = 100, *, ignore_index: int = 255, **options: Any) -> None:
        # float32 whatever torch's default: bfloat16 has no 100 values to be told apart
        points = torch.linspace(0, 1, thresholds, dtype=torch.float32)
        super().__init__(thresholds=points, ignore_index=ignore_index, **options)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add probabilities ``(B, 1, H, W)`` and edges ``(B, H, W)``: 0, 1, `ignore_index`."""
        super().update(prediction.squeeze(1), target)

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """``average_precision`` (area under the steps of the curve) and ``best_f``."""
        precision, recall, _ = super().compute()  # recall falls from 1 to 0
        precision = precision.nan_to_num(1.0)  # 0 / 0 where nothing is above the threshold
        f = 2 * precision * recall / (precision + recall).clamp(min=1e-12)
        area = torch.sum((recall[:-1] - recall[1:]) * precision[:-1])
        return {"average_precision": area, "best_f": f.max()}
