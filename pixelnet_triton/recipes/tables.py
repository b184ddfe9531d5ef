"""Evaluations as text: a table for people, JSON for programs."""

from __future__ import annotations

import json
import math
from typing import Any

from .card import TaskCard
from .evaluation import Evaluation

__all__ = ["as_json", "as_text"]

PRINTED_CLASSES = 21  # of which the confusion matrix fits on a screen
_LABELS = {
    "pixel_accuracy": "pixel accuracy",
    "mean_class_accuracy": "AC, mean class accuracy",
    "mean_iu": "IU, mean",
    "ods": "ODS",
    "ois": "OIS",
    "ap": "AP",
    "ods_threshold": "threshold of ODS",
    "mean": "mean angle, degrees",
    "median": "median angle, degrees",
    "within_11.25": "within 11.25 degrees",
    "within_22.5": "within 22.5 degrees",
    "within_30": "within 30 degrees",
}


def as_text(card: TaskCard, evaluation: Evaluation) -> str:
    """The task's table; of a segmentation, also each class and the confusion matrix.

    Example:
        >>> from pixelnet_triton.recipes import Evaluation, TaskCard
        >>> print(as_text(TaskCard("edges", "bsds500"), Evaluation({"ods": 0.75}, 200)))
        edges, bsds500, 200 images
          ODS                         0.7500
    """
    lines = [f"{card.name}, {card.data}, {evaluation.images} images"]
    for name, value in evaluation.metrics.items():
        if "/" not in name:
            label = _LABELS.get(name, name)
            if name == "rmse":
                label = "RMSE, degrees" if card.name == "normals" else "RMSE, metres"
            lines.append(f"  {label:<26}{value:8.4f}")
    if evaluation.confusion is not None:
        lines += ["", *_of_classes(card, evaluation.metrics)]
        lines += ["", *_confusion(card, evaluation.confusion)]
    return "\n".join(lines)


def as_json(card: TaskCard, evaluation: Evaluation, **more: Any) -> str:
    """Everything that was measured, and `more`: how.

    JSON has finite numbers alone: NaN, where nothing was there, is null, and infinity "inf".
    """
    content = {
        "task": card.name,
        "data": card.data,
        "images": evaluation.images,
        **more,
        "metrics": {name: _number(value) for name, value in evaluation.metrics.items()},
    }
    if evaluation.confusion is not None:
        content |= {"classes": list(card.classes), "confusion": evaluation.confusion}
    for name, values in evaluation.curve.items():
        content[name] = [value if math.isfinite(value) else _number(value) for value in values]
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _number(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    return str(value) if math.isinf(value) else round(value, 6)


def _of_classes(card: TaskCard, metrics: dict[str, float]) -> list[str]:
    width = max(len(name) for name in ("class", *card.classes)) + 2
    lines = [f"  {'class':<{width}}{'accuracy':>8}{'IU':>8}"]
    for name in card.classes:
        accuracy, iu = metrics[f"class_accuracy/{name}"], metrics[f"iu/{name}"]
        lines.append(f"  {name:<{width}}{accuracy:8.4f}{iu:8.4f}")
    return lines


def _confusion(card: TaskCard, confusion: list[list[int]]) -> list[str]:
    if len(card.classes) > PRINTED_CLASSES:
        return [f"  (the confusion matrix of {len(card.classes)} classes is in the JSON file)"]
    names = [f"{i:2} {name}" for i, name in enumerate(card.classes)]
    width = max(map(len, names)) + 2
    numbers = "".join(f"{j:4}" for j in range(len(names)))
    lines = ["  percent of the class (row) predicted as (column)", f"  {'':<{width}}{numbers}"]
    for name, row in zip(names, confusion, strict=True):
        total = sum(row)
        cells = "".join(f"{100 * n / total:4.0f}" if total else "   -" for n in row)
        lines.append(f"  {name:<{width}}{cells}")
    return lines
