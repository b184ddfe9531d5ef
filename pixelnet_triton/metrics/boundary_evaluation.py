"""Boundary ODS, OIS and AP of a data set, its images spread over processes.

Nothing here needs torchmetrics, whose import would take longest in a new process.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence, Sized
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..tools.progress import progress_bar
from .boundary_counting import (
    BoundaryCounts,
    Map,
    as_annotations,
    as_distance,
    as_prediction,
    as_thresholds,
    boundary_counts,
)
from .boundary_scores import best_counts, boundary_scores, stacked

__all__ = ["evaluate_boundaries"]


def evaluate_boundaries(
    predictions: Iterable[Map],
    annotations: Iterable[Sequence[Map] | Map],
    *,
    thresholds: int | ArrayLike = 99,
    max_distance: float = 0.0075,
    thin: bool = True,
    workers: int | None = None,
    progress: bool = True,
) -> dict[str, Tensor]:
    """ODS, OIS and AP of a data set, its images spread over processes.

    Both iterables are read as the images are counted, so that generators need not hold a data
    set in memory. New processes import the calling script, as always with Python's ``spawn``;
    a script that is not guarded by ``if __name__ == "__main__":`` has to pass ``workers=1``.

    Args:
        predictions: float ``(H, W)`` in [0, 1], one for each image.
        annotations: for each image the annotators' boundaries, bool ``(H, W)`` each.
        thresholds, max_distance, thin: as for :func:`boundary_counts`.
        workers: processes; the number of cores by default. 1 counts in the calling process.
        progress: show a bar.

    Returns:
        what :meth:`BoundaryMetrics.compute` does.

    Raises:
        TypeError, ValueError: as :func:`boundary_counts` does, with the number of the image, or
            the iterables are empty or not equally long.
        RuntimeError: a process died, or could not start.

    Example:
        >>> import torch
        >>> from pixelnet_triton.metrics import evaluate_boundaries
        >>> truth = torch.eye(50, dtype=torch.bool)
        >>> scores = evaluate_boundaries(
        ...     [0.6 * truth.float()] * 3, [[truth]] * 3, thresholds=9, workers=1, progress=False
        ... )
        >>> scores["ods"]
        tensor(1.)
    """
    values, reach = as_thresholds(thresholds), as_distance(max_distance)
    if workers is None:
        workers = _cores()
    if workers < 1:
        raise ValueError(f"workers={workers}; expected at least 1 process, or None for all cores")
    images: int | None = None
    if isinstance(predictions, Sized) and isinstance(annotations, Sized):
        images = len(predictions)
        if images != len(annotations):
            raise ValueError(
                f"predictions has {images} images but annotations {len(annotations)}; expected "
                "one list of annotations for each prediction"
            )
    total, best = np.zeros((4, len(values)), np.int64), np.zeros(4, np.int64)
    counted = 0
    options = (values, reach, thin)
    tasks = _checked(predictions, annotations)
    with progress_bar(images, progress, unit="image", desc="boundaries") as advance:
        for counts in _results(((*task, *options) for task in tasks), workers):
            total += stacked(counts)
            best += best_counts(stacked(counts))
            counted += 1
            advance(1)
    if counted == 0:
        raise ValueError("predictions is empty; expected at least one image")
    return boundary_scores(values, total, best)


def _checked(
    predictions: Iterable[Map], annotations: Iterable[Sequence[Map] | Map]
) -> Iterator[tuple[NDArray[Any], list[NDArray[Any]]]]:
    """Images as arrays, refused before a process gets them."""
    ended: Any = object()
    images = itertools.zip_longest(predictions, annotations, fillvalue=ended)
    for index, (prediction, drawn) in enumerate(images):
        if prediction is ended or drawn is ended:
            raise ValueError(
                f"{'predictions' if prediction is ended else 'annotations'} ended after {index} "
                "images, but the other did not; expected one list of annotations for each "
                "prediction"
            )
        try:
            soft = as_prediction(prediction)
            truth = as_annotations(drawn, soft.shape)
        except (TypeError, ValueError) as error:
            raise type(error)(f"image {index}: {error}") from error
        yield soft, truth


def _results(tasks: Iterable[tuple[Any, ...]], workers: int) -> Iterator[BoundaryCounts]:
    """`boundary_counts` of each task, in the order in which they are done."""
    if workers == 1:
        for task in tasks:
            yield boundary_counts(*task)
        return
    # Forked processes would inherit the locks of torch's threads, held for ever.
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(1,),
    )
    try:
        waiting: set[Future[BoundaryCounts]] = set()
        for task in tasks:
            waiting.add(pool.submit(boundary_counts, *task))
            if len(waiting) >= 2 * workers:  # one at work and one at hand for each process
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        yield from (future.result() for future in as_completed(waiting))
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a process that counted boundaries died, or could not start. In a script, call "
            'evaluate_boundaries under `if __name__ == "__main__":`, or pass workers=1'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _cores() -> int:
    """Those this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
