"""Depth: the errors that papers since Eigen et al. (2014) report."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .base import Metric, check_same_shape, check_usable

__all__ = ["DepthMetrics"]

ROOTS = ("rmse", "rmse_log", "scale_invariant")  # of means
NAMES = ("abs_rel", "sq_rel", "log10", *ROOTS, "delta1", "delta2", "delta3")


class DepthMetrics(Metric):
    r"""Relative, squared, logarithmic and scale-invariant errors of depth, and its accuracies.

    With prediction p and depth z in metres at the n valid pixels of the whole set,

    =================  =======================================================================
    abs_rel            mean |p - z| / z
    sq_rel             mean (p - z)^2 / z, in metres
    rmse               sqrt(mean (p - z)^2), in metres
    rmse_log           sqrt(mean d^2), with d = ln p - ln z
    log10              mean |log10 p - log10 z|
    scale_invariant    sqrt(mean (d - mean of d over its image)^2): rmse_log without each image's
                       error of scale (Eigen, Puhrsch, Fergus, arXiv 1406.2283, section 3.2)
    delta1, 2, 3       fraction with max(p / z, z / p) < 1.25, 1.25^2, 1.25^3
    =================  =======================================================================

    Args:
        kwargs: of :class:`torchmetrics.Metric`, such as `process_group`.

    Example:
        >>> import torch
        >>> from pixelnet_triton.metrics import DepthMetrics
        >>> metric = DepthMetrics()
        >>> metric.update(torch.full((1, 8, 8), 3.0), torch.full((1, 8, 8), 2.0))
        >>> metric.compute()["abs_rel"], metric.compute()["scale_invariant"]
        (tensor(0.5000), tensor(0.))
    """

    is_differentiable = False
    full_state_update = False

    count: Tensor
    sums: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("count", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        sums = torch.zeros(len(NAMES), dtype=torch.float64)
        self.add_state("sums", default=sums, dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add the errors of the pixels whose depth is finite and above 0.

        Args:
            prediction: ``(B, H, W)``, ``(B, 1, H, W)`` or ``(B, N)``, metres, above 0.
            target: ``(B, H, W)`` or ``(B, N)``, metres; not above 0, or not finite, where it is
                not known. The first dimension is the image.
        """
        if prediction.dim() == 4 and prediction.shape[1] == 1 and target.dim() == 3:
            prediction = prediction.squeeze(1)
        check_same_shape(prediction, target)
        if target.dim() < 2:
            raise ValueError(
                f"target has shape {tuple(target.shape)}; expected (B, H, W) or (B, N), with the "
                "image first, for the scale-invariant error"
            )
        known = (target > 0) & target.isfinite()
        check_usable(
            (prediction[known] > 0) & prediction[known].isfinite(),
            "a finite depth above 0",
            "clamp predictions to the range of depths, or predict the logarithm",
        )
        # Float64: a float32 sum over millions of pixels would stop growing in the end.
        one = torch.ones((), dtype=torch.float64, device=target.device)
        p = torch.where(known, prediction.double(), one).flatten(1)  # (B, P), no error if not known
        z = torch.where(known, target.double(), one).flatten(1)
        known = known.flatten(1)
        d = p.log() - z.log()
        ratio = torch.maximum(p / z, z / p)
        scale = d.sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp(min=1)
        terms = {
            "abs_rel": (p - z).abs() / z,
            "sq_rel": (p - z).square() / z,
            "rmse": (p - z).square(),
            "rmse_log": d.square(),
            "log10": p.log10().sub(z.log10()).abs(),
            "scale_invariant": (d - scale).masked_fill(~known, 0).square(),
            "delta1": ((ratio < 1.25) & known).double(),
            "delta2": ((ratio < 1.25**2) & known).double(),
            "delta3": ((ratio < 1.25**3) & known).double(),
        }
        self.sums += torch.stack([terms[name].sum() for name in NAMES])
        self.count += known.sum()

    def compute(self) -> dict[str, Tensor]:
        """The errors of the table, scalars; NaN before any valid pixel was seen."""
        means = dict(zip(NAMES, (self.sums / self.count).unbind(), strict=True))
        return {
            name: (mean.sqrt() if name in ROOTS else mean).float() for name, mean in means.items()
        }
