"""Semantic segmentation: pixel accuracy, mean class accuracy, mean intersection over union."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .base import Metric

__all__ = ["SegmentationMetrics"]


class SegmentationMetrics(Metric):
    r"""Pixel accuracy, mean class accuracy and mean IU from one confusion matrix.

    With n_ij the pixels of class i predicted as j, over the whole set (FCN, Long et al. 2015),

    .. math::
        \mathrm{pixel\_accuracy} = \frac{\sum_i n_{ii}}{\sum_{ij} n_{ij}}, \qquad
        \mathrm{class\_accuracy}_i = \frac{n_{ii}}{\sum_j n_{ij}}, \qquad
        \mathrm{iu}_i = \frac{n_{ii}}{\sum_j n_{ij} + \sum_j n_{ji} - n_{ii}}.

    The mean of the class accuracies is FCN's "mean accuracy" and the column AC of PixelNet's
    tables, though PixelNet's text calls that column pixel accuracy.

    What would be 0 / 0 is NaN and left out of the means: the accuracy of a class that is not in
    the ground truth, and the IU of one that is neither there nor predicted. A class that is
    predicted but not there has IU 0.

    Args:
        num_classes: K.
        ignore_index: label of pixels that do not count, outside of [0, K); None counts them all.
        class_names: K names; `compute` then also gives ``class_accuracy/NAME`` and ``iu/NAME``.
        kwargs: of :class:`torchmetrics.Metric`, such as `process_group`.

    Example:
        >>> import torch
        >>> from pixelnet_triton.metrics import SegmentationMetrics
        >>> metric = SegmentationMetrics(2, class_names=["road", "sky"])
        >>> metric.update(torch.tensor([[0, 0, 1]]), torch.tensor([[0, 1, 255]]))
        >>> {name: value.item() for name, value in metric.compute().items()}["iu/road"]
        0.5
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    confusion: Tensor

    def __init__(
        self,
        num_classes: int,
        *,
        ignore_index: int | None = 255,
        class_names: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if num_classes < 1:
            raise ValueError(f"num_classes={num_classes}; expected at least 1")
        if ignore_index is not None and 0 <= ignore_index < num_classes:
            raise ValueError(
                f"ignore_index={ignore_index} is one of the {num_classes} classes; choose another "
                "value, such as -100, and map the labels to it"
            )
        if class_names is not None and len(class_names) != num_classes:
            raise ValueError(
                f"class_names has {len(class_names)} names; expected num_classes={num_classes}"
            )
        if class_names is not None and len(set(class_names)) < num_classes:
            twice = next(name for i, name in enumerate(class_names) if name in class_names[:i])
            raise ValueError(
                f"class_names has {twice!r} several times; expected a name of its own for each "
                "class, by which `compute` reports it"
            )
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.class_names = class_names
        zeros = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.add_state("confusion", default=zeros, dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Count pixels.

        Args:
            prediction: class ids in the target's shape, or scores with one dimension more:
                ``(B, K, H, W)`` for ``(B, H, W)``, ``(..., K)`` for ``(...,)``; of equal scores
                the first wins.
            target: class ids in [0, K), or `ignore_index`.

        Raises:
            TypeError, ValueError: shapes or dtypes do not fit, or an id is out of range.
        """
        if prediction.dim() == target.dim() + 1:
            channel = 1 if prediction.dim() == 4 else -1
            if prediction.shape[channel] != self.num_classes:
                raise ValueError(
                    f"prediction has shape {tuple(prediction.shape)}, with "
                    f"{prediction.shape[channel]} scores a pixel; expected num_classes="
                    f"{self.num_classes}, as (B, K, H, W) or (..., K). Permute scores whose "
                    "channels are elsewhere; for one sigmoid score pass "
                    "(scores > 0).long().squeeze(1)"
                )
            prediction = prediction.argmax(channel)
        prediction, target = _wide(prediction), _wide(target)
        if prediction.shape != target.shape:
            raise ValueError(
                f"prediction gives classes of shape {tuple(prediction.shape)} but target has "
                f"{tuple(target.shape)}; expected the same pixels"
            )
        for name, tensor in (("prediction", prediction), ("target", target)):
            if tensor.is_floating_point():
                raise TypeError(f"{name} is {tensor.dtype}; expected integer class ids")
        target = target.long()  # uint8 is compared with -100 as with 156
        prediction = prediction.long()
        if self.ignore_index is not None:
            counted = target != self.ignore_index
            target, prediction = target[counted], prediction[counted]
        for name, tensor in (("prediction", prediction), ("target", target)):
            wrong = (tensor < 0) | (tensor >= self.num_classes)
            if bool(wrong.any()):
                raise ValueError(
                    f"{name} has the class {int(tensor[wrong][0])}; expected ids in "
                    f"[0, num_classes={self.num_classes})"
                )
        cells = torch.bincount(
            target * self.num_classes + prediction, minlength=self.num_classes**2
        )
        self.confusion += cells.view_as(self.confusion)

    def compute(self) -> dict[str, Tensor]:
        """``pixel_accuracy``, ``mean_class_accuracy`` and ``mean_iu`` in [0, 1], scalars.

        The paper's tables call the second AC and the third IU.
        """
        counts = self.confusion.double()
        right, actual, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
        accuracy = right / actual  # 0 / 0 is NaN
        iu = right / (actual + predicted - right)
        results = {
            "pixel_accuracy": right.sum() / actual.sum(),
            "mean_class_accuracy": accuracy.nanmean(),
            "mean_iu": iu.nanmean(),
        }
        for i, name in enumerate(self.class_names or ()):
            results[f"class_accuracy/{name}"] = accuracy[i]
            results[f"iu/{name}"] = iu[i]
        return {name: value.float() for name, value in results.items()}


def _wide(ids: Tensor) -> Tensor:
    """uint16, uint32 and uint64, which torch cannot compare in order, as int64."""
    return ids.long() if ids.dtype in (torch.uint16, torch.uint32, torch.uint64) else ids
