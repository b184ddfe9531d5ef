"""Segmentation, normals and depth: values by hand, by NumPy, by torchmetrics, and over ranks."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("torchmetrics")

from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from pixelnet_triton.metrics import DepthMetrics, NormalMetrics, SegmentationMetrics


def _values(metric: Metric, *batches: tuple[Tensor, Tensor]) -> dict[str, float]:
    for batch in batches:
        metric.update(*batch)
    return {name: value.item() for name, value in metric.compute().items()}


def test_segmentation_by_hand() -> None:
    """Four classes: 0 and 1 in the ground truth, 2 only predicted, 3 nowhere."""
    target = torch.tensor([[0, 0, 0, 1, 1, 255]])
    prediction = torch.tensor([[0, 0, 1, 1, 2, 3]])
    values = _values(SegmentationMetrics(4, class_names="abcd"), (prediction, target))
    assert values["pixel_accuracy"] == pytest.approx(3 / 5)
    assert values["mean_class_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert values["mean_iu"] == pytest.approx((2 / 3 + 1 / 3 + 0) / 3)
    assert values["class_accuracy/b"] == pytest.approx(1 / 2)
    assert math.isnan(values["class_accuracy/c"])
    assert values["iu/b"] == pytest.approx(1 / 3)
    assert values["iu/c"] == 0
    assert math.isnan(values["iu/d"])


def test_segmentation_agrees_with_torchmetrics() -> None:
    """Where every class occurs, so that no convention about absent ones takes part."""
    torch.manual_seed(1)
    scores, target = torch.randn(3, 6, 20, 30), torch.randint(0, 6, (3, 20, 30))
    target[torch.rand(target.shape) < 0.2] = 255
    values = _values(SegmentationMetrics(6), (scores, target))
    for name, other in {
        "pixel_accuracy": MulticlassAccuracy(6, average="micro", ignore_index=255),
        "mean_class_accuracy": MulticlassAccuracy(6, average="macro", ignore_index=255),
        "mean_iu": MulticlassJaccardIndex(6, average="macro", ignore_index=255),
    }.items():
        assert values[name] == pytest.approx(other(scores, target).item(), rel=1e-6), name


def test_segmentation_takes_classes_and_scores_of_images_and_of_points() -> None:
    scores, target = torch.randn(2, 5, 8, 9), torch.randint(0, 5, (2, 8, 9))
    expected = _values(SegmentationMetrics(5), (scores, target))
    for prediction, truth in (
        (scores.argmax(1), target),
        (scores.argmax(1).to(torch.uint8), target.to(torch.uint8)),
        (scores.flatten(2).transpose(1, 2), target.flatten(1)),
        (scores.movedim(1, -1).reshape(-1, 5), target.flatten()),
    ):
        assert _values(SegmentationMetrics(5), (prediction, truth)) == expected


def _random_normals(*shape: int) -> tuple[Tensor, Tensor]:
    """Predictions at angles of all sizes from unit normals, a tenth of them unknown."""
    target = torch.nn.functional.normalize(torch.randn(*shape, 3, dtype=torch.float64), dim=-1)
    noise = torch.randn_like(target) * torch.rand(*shape, 1, dtype=torch.float64) ** 3 * 3
    prediction = (target + noise) * (torch.rand(*shape, 1, dtype=torch.float64) + 0.1)
    target[torch.rand(shape) < 0.1] = 0
    return prediction, target


def test_normals_agree_with_numpy() -> None:
    batches = [_random_normals(2, 30, 41) for _ in range(3)]
    metric = NormalMetrics()
    for prediction, target in batches:
        metric.update(prediction.movedim(-1, 1).float(), target.movedim(-1, 1).float())
    values = {name: value.item() for name, value in metric.compute().items()}

    p = np.concatenate([b[0].numpy().reshape(-1, 3) for b in batches])
    n = np.concatenate([b[1].numpy().reshape(-1, 3) for b in batches])
    p, n = p[(n != 0).any(1)], n[(n != 0).any(1)]
    cosine = (p * n).sum(1) / np.linalg.norm(p, axis=1) / np.linalg.norm(n, axis=1)
    errors = np.degrees(np.arccos(cosine.clip(-1, 1)))
    assert errors.min() < 1  # small and large ones
    assert errors.max() > 120
    assert values["mean"] == pytest.approx(errors.mean(), rel=1e-6)
    assert values["rmse"] == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-6)
    assert abs(values["median"] - np.median(errors)) < 0.0005 + 1e-5  # half a bin, and float32
    for limit in (11.25, 22.5, 30):
        assert values[f"within_{limit:g}"] == pytest.approx((errors < limit).mean(), rel=1e-6)


def test_normals_by_hand() -> None:
    up, right = [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]
    target = torch.tensor([up, up, up, up, [0.0, 0.0, 0.0]])
    prediction = torch.tensor([up, [5.0, 5.0, 0.0], right, [0.0, -0.1, 0.0], right])
    values = _values(NormalMetrics(), (prediction, target))  # 0, 45, 90 and 180 degrees
    assert values["mean"] == pytest.approx(315 / 4)
    assert values["median"] == pytest.approx(67.5, abs=0.0005)  # between the middle two
    assert values["rmse"] == pytest.approx(math.sqrt((45**2 + 90**2 + 180**2) / 4))
    assert values["within_11.25"] == values["within_22.5"] == values["within_30"] == 0.25


def test_small_angles_are_not_rounded_away() -> None:
    angle = 1e-3  # degrees; the arc cosine of float32 knows 0 and 0.02 and nothing between
    prediction = torch.tensor([[math.sin(math.radians(angle)), math.cos(math.radians(angle)), 0]])
    values = _values(NormalMetrics(), (prediction, torch.tensor([[0.0, 1.0, 0.0]])))
    assert values["mean"] == pytest.approx(angle, rel=1e-5)


def _random_depth(*shape: int) -> tuple[Tensor, Tensor]:
    target = torch.rand(shape, dtype=torch.float64) * 9 + 0.5
    prediction = target * torch.exp(torch.randn(shape, dtype=torch.float64) * 0.3 + 0.2)
    target[torch.rand(shape) < 0.2] = 0
    return prediction, target


def test_depth_agrees_with_numpy() -> None:
    batches = [_random_depth(2, 30, 41) for _ in range(2)]
    batches[0][1][1] = 0  # an image without any depth
    values = _values(DepthMetrics(), *batches)
    images = [(p.numpy(), z.numpy()) for batch in batches for p, z in zip(*batch, strict=True)]
    p = np.concatenate([p[z > 0] for p, z in images])
    z = np.concatenate([z[z > 0] for _, z in images])
    logs = [np.log(p[z > 0] / z[z > 0]) for p, z in images if (z > 0).any()]
    ratio = np.maximum(p / z, z / p)
    expected = {
        "abs_rel": np.mean(np.abs(p - z) / z),
        "sq_rel": np.mean((p - z) ** 2 / z),
        "rmse": np.sqrt(np.mean((p - z) ** 2)),
        "rmse_log": np.sqrt(np.mean(np.log(p / z) ** 2)),
        "log10": np.mean(np.abs(np.log10(p / z))),
        "scale_invariant": np.sqrt(np.mean(np.concatenate([d - d.mean() for d in logs]) ** 2)),
        "delta1": np.mean(ratio < 1.25),
        "delta2": np.mean(ratio < 1.25**2),
        "delta3": np.mean(ratio < 1.25**3),
    }
    assert values == pytest.approx(expected, rel=1e-6)


def test_depth_by_hand() -> None:
    target = torch.tensor([[1.0, 2.0, 0.0]])
    prediction = torch.tensor([[2.0, 2.0, -7.0]])  # the last has no ground truth
    values = _values(DepthMetrics(), (prediction, target))
    assert values["abs_rel"] == values["sq_rel"] == values["delta3"] == 0.5
    assert values["rmse"] == pytest.approx(math.sqrt(1 / 2))
    assert values["rmse_log"] == pytest.approx(math.log(2) / math.sqrt(2))
    assert values["log10"] == pytest.approx(math.log10(2) / 2)
    assert values["scale_invariant"] == pytest.approx(math.log(2) / 2)


def test_depth_takes_the_channel_of_a_network() -> None:
    prediction, target = _random_depth(2, 10, 12)
    expected = _values(DepthMetrics(), (prediction, target))
    assert _values(DepthMetrics(), (prediction[:, None], target)) == expected


def _segmentation_batch() -> tuple[Tensor, Tensor]:
    return torch.randint(0, 4, (2, 9, 9)), torch.randint(0, 4, (2, 9, 9))


METRICS: dict[str, tuple[Metric, Callable[[], tuple[Tensor, Tensor]]]] = {
    "segmentation": (SegmentationMetrics(4), _segmentation_batch),
    "normals": (NormalMetrics(), lambda: _random_normals(50)),
    "depth": (DepthMetrics(), lambda: _random_depth(2, 50)),
}


@pytest.mark.parametrize("name", METRICS)
def test_two_ranks_give_what_one_process_gives(name: str) -> None:
    """Ranks may see different numbers of batches."""
    metric, draw = METRICS[name]
    batches = [draw() for _ in range(3)]
    expected = _values(deepcopy(metric), *batches)
    first, second = deepcopy(metric), deepcopy(metric)
    first.update(*batches[0])
    second.update(*batches[1])
    second.update(*batches[2])
    others = iter([getattr(second, state) for state in second.metric_state])

    def all_gather(state: Tensor, group: object = None) -> list[Tensor]:
        return [state, next(others)]

    first.dist_sync_fn, first.distributed_available_fn = all_gather, lambda: True
    synchronised = {key: value.item() for key, value in first.compute().items()}
    assert synchronised == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", METRICS)
def test_reset_and_nothing_valid(name: str) -> None:
    metric, draw = deepcopy(METRICS[name][0]), METRICS[name][1]
    prediction, target = draw()
    assert all(math.isfinite(value) for value in _values(metric, (prediction, target)).values())
    metric.reset()
    nothing = torch.full_like(target, 255 if name == "segmentation" else 0)
    assert all(math.isnan(value) for value in _values(metric, (prediction, nothing)).values())


Z = torch.zeros
BAD: dict[str, tuple[Metric, Tensor, Tensor, type[Exception], str]] = {
    "sizes": (SegmentationMetrics(4), Z(1, 4, 8, 8), Z(1, 9, 9).long(), ValueError, "same pixels"),
    "scores": (SegmentationMetrics(4), Z(1, 8, 8), Z(1, 8, 8).long(), TypeError, "class ids"),
    "label": (SegmentationMetrics(4), Z(1, 8).long(), Z(1, 8).long() + 4, ValueError, "class 4"),
    "class": (SegmentationMetrics(4), Z(1, 8).long() - 1, Z(1, 8).long(), ValueError, "class -1"),
    "normals": (NormalMetrics(), Z(1, 4, 8, 8), Z(1, 4, 8, 8), ValueError, r"\(B, 3, H, W\)"),
    "zero normal": (NormalMetrics(), Z(8, 3), Z(8, 3) + 1, ValueError, "8 of 8"),
    "NaN normal": (NormalMetrics(), Z(8, 3) / 0, Z(8, 3) + 1, ValueError, "8 of 8"),
    "depths": (DepthMetrics(), Z(1, 8, 8), Z(1, 9, 9), ValueError, "same shape"),
    "one image": (DepthMetrics(), Z(8) + 1, Z(8) + 1, ValueError, "image first"),
    "no depth": (DepthMetrics(), Z(1, 8), Z(1, 8) + 1, ValueError, "clamp"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    metric, prediction, target, error, message = BAD[name]
    metric = deepcopy(metric)
    with pytest.raises(error, match=message):
        metric.update(prediction, target)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes=0"),
        ({"num_classes": 300}, "-100"),
        ({"num_classes": 3, "class_names": ["a"]}, "1 names"),
        ({"num_classes": 3, "class_names": ["a", "b", "a"]}, "class_names has 'a' several times"),
    ],
)
def test_bad_settings(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SegmentationMetrics(**arguments)


def test_without_torchmetrics_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)  # what imports as missing
    monkeypatch.delitem(sys.modules, "pixelnet_triton.metrics.base")
    with pytest.raises(ImportError, match=r"pip install 'pixelnet-triton\[metrics\]'"):
        importlib.import_module("pixelnet_triton.metrics.base")


def test_uint8_targets_have_no_negative_label() -> None:
    """156 is not -100, which is 156 in uint8."""
    metric = SegmentationMetrics(200, ignore_index=-100)
    target = torch.full((1, 4, 4), 156, dtype=torch.uint8)
    metric.update(target, target)
    assert metric.confusion[156, 156] == 16
