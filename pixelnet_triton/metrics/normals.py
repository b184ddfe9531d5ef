"""Surface normals: the six statistics of the angle between prediction and ground truth."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .base import Metric, check_same_shape, check_usable

__all__ = ["NormalMetrics"]

THRESHOLDS = (11.25, 22.5, 30.0)  # degrees
BINS_PER_DEGREE = 1024


class NormalMetrics(Metric):
    r"""Mean, median, RMSE of the angular error; the fractions within 11.25, 22.5, 30 degrees.

    Of the prediction p and the normal n at each valid pixel of the whole set,

    .. math:: e = \mathrm{atan2}(\|p \times n\|, p \cdot n) \cdot 180 / \pi,

    the angle whatever their lengths; the arc cosine would lose small angles to rounding.

    Sums and fractions are exact. The median comes from a histogram with 1,024 bins a degree, and
    is within 0.0005 degrees; papers print 0.1. The state, which ranks exchange, takes 1.5 MB
    whatever the set; the errors of NYUv2's 654 test images (480 x 640) would take 0.8 GB.

    Args:
        kwargs: of :class:`torchmetrics.Metric`, such as `process_group`.

    Example:
        >>> import torch
        >>> from pixelnet_triton.metrics import NormalMetrics
        >>> metric = NormalMetrics()
        >>> right, up = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]])
        >>> metric.update(right, up)
        >>> metric.compute()["mean"]
        tensor(90.)
    """

    is_differentiable = False
    full_state_update = False

    total: Tensor
    squares: Tensor
    within: Tensor
    histogram: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        zero = torch.zeros((), dtype=torch.float64)
        self.add_state("total", default=zero, dist_reduce_fx="sum")
        self.add_state("squares", default=zero.clone(), dist_reduce_fx="sum")
        within = torch.zeros(len(THRESHOLDS), dtype=torch.int64)
        self.add_state("within", default=within, dist_reduce_fx="sum")
        bins = torch.zeros(180 * BINS_PER_DEGREE, dtype=torch.int64)
        self.add_state("histogram", default=bins, dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add the errors of the pixels whose normal is finite and not zero.

        Args:
            prediction: ``(B, 3, H, W)``, or ``(..., 3)``, of any length but zero. ``(B, 3, H, 3)``
                is taken as the first.
            target: the same shape; zero, or not finite, where the normal is not known.

        Raises:
            ValueError: other shapes, or a prediction that is zero or not finite at a known pixel.
        """
        check_same_shape(prediction, target)
        channel = 1 if target.dim() == 4 and target.shape[1] == 3 else -1
        if target.dim() < 2 or target.shape[channel] != 3:
            raise ValueError(
                f"target has shape {tuple(target.shape)}; expected (B, 3, H, W) or (..., 3). Move "
                "the components to dimension 1 of four, or to the last, with .movedim(...)"
            )
        prediction, target = prediction.movedim(channel, -1), target.movedim(channel, -1)
        known = (target != 0).any(-1) & target.isfinite().all(-1)
        p, n = prediction[known], target[known]  # (V, 3)
        check_usable(
            (p != 0).any(-1) & p.isfinite().all(-1),
            "a direction",
            "a normal has finite length above 0",
        )
        dtype = torch.promote_types(torch.promote_types(p.dtype, n.dtype), torch.float32)
        p, n = _of_size_1(p.to(dtype)), _of_size_1(n.to(dtype))
        cross = torch.linalg.cross(p, n).norm(dim=-1)
        errors = torch.rad2deg(torch.atan2(cross, (p * n).sum(-1)))
        bins = (errors * BINS_PER_DEGREE).long().clamp(max=len(self.histogram) - 1)
        self.histogram += torch.bincount(bins, minlength=len(self.histogram))
        limits = torch.tensor(THRESHOLDS, device=errors.device, dtype=torch.float32)
        self.within += (errors < limits[:, None]).sum(1)
        self.total += errors.double().sum()
        self.squares += errors.double().square().sum()

    def compute(self) -> dict[str, Tensor]:
        """``mean``, ``median``, ``rmse`` in degrees; ``within_11.25``, ... in [0, 1]; scalars.

        NaN before any valid pixel was seen.
        """
        count = self.histogram.sum()
        results = {
            "mean": self.total / count,
            "median": self._median(count),
            "rmse": (self.squares / count).sqrt(),
        }
        # The quotient of two integers would have torch's default dtype.
        for limit, within in zip(THRESHOLDS, self.within.double(), strict=True):
            results[f"within_{limit:g}"] = within / count
        return {name: value.float() for name, value in results.items()}

    def _median(self, count: Tensor) -> Tensor:
        """The middle of the bin that holds the median error; of two bins, where it is between."""
        ranks = torch.stack([(count + 1) // 2, count // 2 + 1])  # the middle one or two, from 1
        bins = torch.searchsorted(self.histogram.cumsum(0), ranks)
        middle = (bins.double().mean() + 0.5) / BINS_PER_DEGREE
        return torch.where(count > 0, middle, torch.nan)


def _of_size_1(vectors: Tensor) -> Tensor:
    """``(V, 3)`` over their largest component: products neither vanish nor overflow."""
    return vectors / vectors.abs().amax(-1, keepdim=True)
