"""A trained network on the images of a data set: the task's metrics at the images' own size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..metrics import DepthMetrics, NormalMetrics, SegmentationMetrics, edge_nms
from ..metrics import evaluate_boundaries as counted_boundaries
from ..models import PixelNet
from ..tools.progress import progress_bar
from ..training import PixelEdgeMetrics
from .card import TaskCard
from .ranks import Samples, Share, first_process, meeting_place
from .view import naming, predict_image

__all__ = ["Evaluation", "evaluate", "evaluate_boundaries"]

Keep = Callable[[str, Tensor], object]


@dataclass(frozen=True)
class Evaluation:
    """The outcome of an evaluation.

    Args:
        metrics: scalars by name.
        images: how many were measured.
        confusion: of a segmentation: the pixels of class i predicted as j, ``(K, K)``.
        curve: of edges: thresholds, recall and precision of the data set, ``(T,)`` each.
    """

    metrics: dict[str, float]
    images: int
    confusion: list[list[int]] | None = None
    curve: dict[str, list[float]] = field(default_factory=dict)


def evaluate(
    model: PixelNet,
    card: TaskCard,
    data: Samples,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    keep: Keep | None = None,
    progress: bool = True,
) -> Evaluation:
    """The task's metrics over whole images.

    Edges are measured pixel by pixel, as in validation; the measure that papers report is
    :func:`evaluate_boundaries`.

    Under ``torch.distributed`` the ranks share the images, and each gets the metrics of all.

    Args:
        model: on any device.
        card: its task, and the size at which it sees images.
        data: images with targets, at their own size.
        scales, flip: outputs are averaged over these, as in
            :func:`pixelnet_triton.inference.predict`.
        keep: called with the name and the output ``(K, H, W)`` of each image, to write it.
        progress: show a bar.
    """
    place = meeting_place(model)
    metric = _metric(card).to(place)
    share = Share(len(data))
    with progress_bar(
        len(share), progress and first_process(), unit="image", desc="evaluation", leave=False
    ) as done:
        for index in share:
            sample = data[index]
            name = sample.get("name", str(index))
            with naming(name):
                output = predict_image(model, sample["image"], card.view, scales=scales, flip=flip)
            metric.update(output[None].to(place), sample["target"][None].to(place))
            if keep is not None:
                keep(name, output)
            done(1)
    metrics = {name: float(value) for name, value in metric.compute().items()}
    confusion = None
    if isinstance(metric, SegmentationMetrics):
        with metric.sync_context():  # the counts of all ranks
            confusion = metric.confusion.tolist()
    return Evaluation(metrics, len(data), confusion)


def evaluate_boundaries(
    model: PixelNet,
    card: TaskCard,
    data: Any,
    *,
    images: int | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    thresholds: int = 99,
    workers: int | None = None,
    keep: Keep | None = None,
    progress: bool = True,
) -> Evaluation:
    """ODS, OIS and AP of the boundary benchmark, after non-maximum suppression (section 4.3).

    Edges are predicted at the card's size, and suppressed and matched at the images' own, where
    the annotations are.

    Args:
        model: with ``output="sigmoid"``, on any device.
        card: the size at which it sees images.
        data: a :class:`~pixelnet_triton.data.BSDS500`, at the images' own size.
        images: the first so many; None takes all.
        scales, flip, keep: as for :func:`evaluate`; `keep` gets the thin map.
        thresholds, workers: as in :func:`pixelnet_triton.metrics.evaluate_boundaries`.
        progress: show bars.
    """
    indices = range(len(data) if images is None else min(images, len(data)))
    thin = []
    with progress_bar(len(indices), progress, unit="image", desc="prediction", leave=False) as done:
        for index in indices:
            sample = data[index]
            with naming(sample["name"]):
                edges = predict_image(model, sample["image"], card.view, scales=scales, flip=flip)
            thin.append(edge_nms(edges[0]))
            if keep is not None:
                keep(sample["name"], thin[-1][None])
            done(1)
    scores = counted_boundaries(
        thin,
        [data.annotations(index) for index in indices],
        thresholds=thresholds,
        workers=workers,
        progress=progress,
    )
    curves = ("thresholds", "recall", "precision")
    return Evaluation(
        {name: float(scores[name]) for name in ("ods", "ois", "ap", "ods_threshold")},
        len(indices),
        curve={name: scores[name].tolist() for name in curves},
    )


def _metric(card: TaskCard) -> Any:
    """A fresh one for the task."""
    if card.name == "segmentation":
        return SegmentationMetrics(len(card.classes), class_names=card.classes)
    return {"edges": PixelEdgeMetrics, "normals": NormalMetrics, "depth": DepthMetrics}[card.name]()
