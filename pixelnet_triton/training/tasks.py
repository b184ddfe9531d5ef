"""The four tasks of the paper: what each samples, minimises and measures."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torchmetrics
from torch import Tensor

from ..losses import (
    balanced_sigmoid_cross_entropy,
    cross_entropy,
    normal_loss,
    scale_invariant_log_loss,
)
from ..metrics import DepthMetrics, NormalMetrics, SegmentationMetrics
from ..sampling import BiasedSampler, SampledPixels, UniformSampler
from ..tools.settings import whole_number
from ..tools.values import values_at_hand
from .edge_metrics import PixelEdgeMetrics

__all__ = ["Depth", "Edges", "Normals", "Sampler", "Segmentation", "Task"]

_UNIFORM = UniformSampler(2000)
_HALF_EDGES = BiasedSampler(2000, positive_fraction=0.5)


class Sampler(Protocol):
    """Those of :mod:`pixelnet_triton.sampling` that need no network."""

    def __call__(
        self,
        labels: Tensor | None = None,
        *,
        valid: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> SampledPixels: ...


def _ignored_label(sampler: Sampler) -> int:
    """The label that is neither drawn nor trained nor measured: the sampler's, or else 255."""
    label = getattr(sampler, "ignore_index", None)
    return 255 if label is None else int(label)


def _warn_of_image_files(target: Tensor, ignored: int) -> None:
    """Warn of edge maps whose edges are all ignored, if values can be read without a wait."""
    if ignored != 255 or not values_at_hand(target):
        return
    if bool((target == 255).any()) and not bool((target == 1).any()):
        warnings.warn(
            "the batch of edge targets has pixels of 255, which are ignored, and none of 1, an "
            "edge. If the targets are edge maps from image files (0 and 255), divide them by 255",
            stacklevel=3,
        )


class Task(Protocol):
    """What :class:`PixelNetModule` asks of a task."""

    output: ClassVar[str]
    """The activation of :class:`pixelnet_triton.models.PixelNet` in dense prediction."""

    monitor: ClassVar[str]
    """The metric to watch."""

    @property
    def out_features(self) -> int:
        """K, the network's outputs."""

    def sample(self, target: Tensor, *, generator: torch.Generator | None) -> SampledPixels:
        """Pixels of each image of a batch of targets."""

    def loss(self, scores: Tensor, target: Tensor, pixels: SampledPixels) -> Tensor:
        """The loss of raw `scores` ``(B, N, K)`` at `pixels` of the batch `target`."""

    def metrics(self) -> torchmetrics.Metric:
        """A fresh metric, to be updated with (dense prediction, target)."""


@dataclass(frozen=True)
class Segmentation:
    """A class for each pixel: cross-entropy over K classes, uniform sampling (section 4.1).

    Targets are integers ``(B, H, W)`` in [0, K), or the sampler's `ignore_index` (255 unless it
    says otherwise), which sampler, loss and metric ignore alike.

    Args:
        classes: K.
        sampler: of :mod:`pixelnet_triton.sampling`; the paper draws 2,000 pixels uniformly.

    Raises:
        ValueError: `classes` is no integer of at least 1, or the ignored label is one of the K.

    Example:
        >>> import torch
        >>> from pixelnet_triton.sampling import UniformSampler
        >>> from pixelnet_triton.training import Segmentation
        >>> task = Segmentation(3, UniformSampler(100))
        >>> target = torch.randint(3, (2, 20, 30))
        >>> pixels = task.sample(target, generator=None)
        >>> scores = torch.zeros(2, 100, 3)
        >>> round(float(task.loss(scores, target, pixels)), 4)  # log 3
        1.0986
    """

    output: ClassVar[str] = "softmax"
    monitor: ClassVar[str] = "mean_iu"

    classes: int
    sampler: Sampler = _UNIFORM

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", whole_number("classes", self.classes))
        ignored = _ignored_label(self.sampler)
        if 0 <= ignored < self.classes:
            raise ValueError(
                f"sampler.ignore_index={ignored} is one of the {self.classes} classes, which would "
                "never be trained; pass a sampler with another, such as "
                "UniformSampler(2000, ignore_index=-100), and map the labels to it"
            )

    @property
    def out_features(self) -> int:
        return self.classes

    def sample(self, target: Tensor, *, generator: torch.Generator | None) -> SampledPixels:
        return self.sampler(target, generator=generator)

    def loss(self, scores: Tensor, target: Tensor, pixels: SampledPixels) -> Tensor:
        ignored = _ignored_label(self.sampler)
        return cross_entropy(scores, pixels.take(target, fill=ignored), ignore_index=ignored)

    def metrics(self) -> torchmetrics.Metric:
        return SegmentationMetrics(self.classes, ignore_index=_ignored_label(self.sampler))


@dataclass(frozen=True)
class Edges:
    """Edge or not, for each pixel: class-balanced sigmoid cross-entropy (section 4.3).

    Targets are integers ``(B, H, W)``: 1 = edge, 0 = none, the sampler's `ignore_index` (255
    unless it says otherwise) = ignore. A batch of 0 and 255 without any 1, as edge maps from image
    files have it, would train nothing: a warning says so.

    The metrics are those of a classifier of single pixels, which training can afford; the
    boundary benchmark, with its tolerance in place, is
    :class:`pixelnet_triton.metrics.BoundaryMetrics`.

    Args:
        sampler: by default half of the 2,000 pixels are edges (Table 6, 50%).

    Raises:
        ValueError: the sampler's ignored label is 0 or 1.
    """

    output: ClassVar[str] = "sigmoid"
    monitor: ClassVar[str] = "average_precision"

    sampler: Sampler = _HALF_EDGES

    def __post_init__(self) -> None:
        ignored = _ignored_label(self.sampler)
        if ignored in (0, 1):
            raise ValueError(
                f"sampler.ignore_index={ignored} is the label of {('no edge', 'edges')[ignored]}, "
                "which would never be trained; pass a sampler with another, such as "
                "BiasedSampler(2000, ignore_index=255), and map the labels to it"
            )

    @property
    def out_features(self) -> int:
        return 1

    def sample(self, target: Tensor, *, generator: torch.Generator | None) -> SampledPixels:
        _warn_of_image_files(target, _ignored_label(self.sampler))
        return self.sampler(target, generator=generator)

    def loss(self, scores: Tensor, target: Tensor, pixels: SampledPixels) -> Tensor:
        ignored = _ignored_label(self.sampler)
        return balanced_sigmoid_cross_entropy(
            scores, pixels.take(target, fill=ignored), ignore_index=ignored
        )

    def metrics(self) -> torchmetrics.Metric:
        return PixelEdgeMetrics(ignore_index=_ignored_label(self.sampler))


@dataclass(frozen=True)
class Normals:
    """A surface normal for each pixel: Euclidean loss on normalised outputs (section 4.2).

    Targets are float ``(B, 3, H, W)`` unit vectors, zeros, or not finite, where
    unknown.

    Args:
        sampler: 2,000 known pixels, uniformly.
    """

    output: ClassVar[str] = "normals"
    monitor: ClassVar[str] = "mean"

    sampler: Sampler = _UNIFORM

    @property
    def out_features(self) -> int:
        return 3

    def sample(self, target: Tensor, *, generator: torch.Generator | None) -> SampledPixels:
        valid = (target != 0).any(1) & target.isfinite().all(1)
        return self.sampler(valid=valid, generator=generator)

    def loss(self, scores: Tensor, target: Tensor, pixels: SampledPixels) -> Tensor:
        return normal_loss(scores, pixels.take(target))

    def metrics(self) -> torchmetrics.Metric:
        return NormalMetrics()


@dataclass(frozen=True)
class Depth:
    """A depth for each pixel: scale-invariant error of its logarithm (section 5, footnote 6).

    Targets are float ``(B, H, W)`` in metres; 0, or not finite, where unknown. The network's
    raw output is log depth.

    Args:
        sampler: 2,000 known pixels, uniformly.
    """

    output: ClassVar[str] = "depth"
    monitor: ClassVar[str] = "abs_rel"

    sampler: Sampler = _UNIFORM

    @property
    def out_features(self) -> int:
        return 1

    def sample(self, target: Tensor, *, generator: torch.Generator | None) -> SampledPixels:
        valid = (target > 0) & target.isfinite()
        return self.sampler(valid=valid, generator=generator)

    def loss(self, scores: Tensor, target: Tensor, pixels: SampledPixels) -> Tensor:
        return scale_invariant_log_loss(scores, pixels.take(target))

    def metrics(self) -> torchmetrics.Metric:
        return DepthMetrics()
