"""The four tasks of the paper: what each samples, minimises and measures."""

from __future__ import annotations

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

    Targets are int64 ``(B, H, W)``, 255 = ignore.

    Args:
        classes: K.
        sampler: of :mod:`pixelnet_triton.sampling`; the paper draws 2,000 pixels uniformly.

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

    @property
    def out_features(self) -> int:
        return self.classes

    def sample(self, target: Tensor, *, generator: torch.Generator | None) -> SampledPixels:
        return self.sampler(target, generator=generator)

    def loss(self, scores: Tensor, target: Tensor, pixels: SampledPixels) -> Tensor:
        return cross_entropy(scores, pixels.take(target))

    def metrics(self) -> torchmetrics.Metric:
        return SegmentationMetrics(self.classes)


@dataclass(frozen=True)
class Edges:
    """Edge or not, for each pixel: class-balanced sigmoid cross-entropy (section 4.3).

    Targets are int64 ``(B, H, W)``: 1 = edge, 0 = none, 255 = ignore. The metrics are those of
    a classifier of single pixels, which training can afford; the boundary benchmark, with its
    tolerance in place, is :class:`pixelnet_triton.metrics.BoundaryMetrics`.

    Args:
        sampler: by default half of the 2,000 pixels are edges (Table 6, 50%).
    """

    output: ClassVar[str] = "sigmoid"
    monitor: ClassVar[str] = "average_precision"

    sampler: Sampler = _HALF_EDGES

    @property
    def out_features(self) -> int:
        return 1

    def sample(self, target: Tensor, *, generator: torch.Generator | None) -> SampledPixels:
        return self.sampler(target, generator=generator)

    def loss(self, scores: Tensor, target: Tensor, pixels: SampledPixels) -> Tensor:
        return balanced_sigmoid_cross_entropy(scores, pixels.take(target))

    def metrics(self) -> torchmetrics.Metric:
        return PixelEdgeMetrics()


@dataclass(frozen=True)
class Normals:
    """A surface normal for each pixel: Euclidean loss on normalised outputs (section 4.2).

    Targets are float ``(B, 3, H, W)`` unit vectors, zeros where unknown.

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
        valid = target.abs().sum(dim=1) > 0
        return self.sampler(valid=valid, generator=generator)

    def loss(self, scores: Tensor, target: Tensor, pixels: SampledPixels) -> Tensor:
        return normal_loss(scores, pixels.take(target))

    def metrics(self) -> torchmetrics.Metric:
        return NormalMetrics()


@dataclass(frozen=True)
class Depth:
    """A depth for each pixel: scale-invariant error of its logarithm (section 5, footnote 6).

    Targets are float ``(B, H, W)`` in metres, 0 where unknown. The network's raw output is log
    depth.

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
        valid = target > 0
        return self.sampler(valid=valid, generator=generator)

    def loss(self, scores: Tensor, target: Tensor, pixels: SampledPixels) -> Tensor:
        return scale_invariant_log_loss(scores, pixels.take(target))

    def metrics(self) -> torchmetrics.Metric:
        return DepthMetrics()
