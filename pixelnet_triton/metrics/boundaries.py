"""Boundary ODS, OIS and AP, as the BSDS500 benchmark defines them: one image at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from .base import Metric
from .boundary_counting import Map, as_distance, as_thresholds, boundary_counts
from .boundary_scores import best_counts, boundary_scores, stacked

__all__ = ["BoundaryMetrics"]


class BoundaryMetrics(Metric):
    """ODS, OIS and AP of boundary maps, one image at a time.

    The counts are those of :func:`boundary_counts`, the scores those of the official MATLAB code
    (:mod:`.boundary_scores`): ODS is the best F over the data set at one threshold for all images,
    OIS that with each image's own best threshold, AP the area under the curve of precision over
    recall. Counting an image of BSDS500 at 99 thresholds takes seconds;
    :func:`evaluate_boundaries` spreads the images over processes.

    Args:
        thresholds, max_distance, thin: as for :func:`boundary_counts`.
        kwargs: of :class:`torchmetrics.Metric`, such as `process_group`.

    Example:
        >>> import torch
        >>> from pixelnet_triton.metrics import BoundaryMetrics
        >>> truth = torch.zeros(60, 90, dtype=torch.bool)
        >>> truth[30] = True
        >>> metric = BoundaryMetrics(thresholds=9)
        >>> metric.update(0.85 * truth.float(), [truth, truth])
        >>> scores = metric.compute()
        >>> scores["ods"], scores["ois"]
        (tensor(1.), tensor(1.))
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    images: Tensor
    total: Tensor
    best: Tensor

    def __init__(
        self,
        thresholds: int | ArrayLike = 99,
        max_distance: float = 0.0075,
        thin: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.thresholds = as_thresholds(thresholds)
        self.max_distance = as_distance(max_distance)
        self.thin = thin
        for name, shape in (("images", ()), ("total", (4, len(self.thresholds))), ("best", (4,))):
            zeros = torch.zeros(shape, dtype=torch.int64)
            self.add_state(name, default=zeros, dist_reduce_fx="sum")

    def update(self, prediction: Map, annotations: Sequence[Map] | Map) -> None:
        """Count one image.

        Args:
            prediction: float ``(H, W)`` in [0, 1].
            annotations: bool ``(H, W)``, one for each annotator, as
                :meth:`pixelnet_triton.data.BSDS500.annotations` returns them.
        """
        counts = stacked(
            boundary_counts(prediction, annotations, self.thresholds, self.max_distance, self.thin)
        )
        self.images += 1
        self.total += torch.from_numpy(counts).to(self.total.device)
        self.best += torch.from_numpy(best_counts(counts)).to(self.best.device)

    def compute(self) -> dict[str, Tensor]:
        """The scores and the curve.

        Returns:
            ``ods``, ``ods_threshold``, ``ois``, ``ap``: scalars, NaN before any image was seen;
            ``thresholds``, ``recall``, ``precision``: ``(K,)``, of the whole data set.
        """
        scores = boundary_scores(self.thresholds, self.total.cpu().numpy(), self.best.cpu().numpy())
        if self.images == 0:
            scores = {name: torch.full_like(value, torch.nan) for name, value in scores.items()}
        return scores
