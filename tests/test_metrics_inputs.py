"""What metrics are given: score channels, axes of normals, values that mean "unknown"."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

pytest.importorskip("torchmetrics")

from torchmetrics import Metric

from pixelnet_triton.metrics import DepthMetrics, NormalMetrics, SegmentationMetrics


def _values(metric: Metric, prediction: Tensor, target: Tensor) -> dict[str, float]:
    metric.update(prediction, target)
    return {name: value.item() for name, value in metric.compute().items()}


class TestSegmentation:
    @pytest.mark.parametrize(
        ("classes", "shape", "target"),
        [
            (2, (1, 1, 4, 5), (1, 4, 5)),  # one sigmoid score: every pixel would be class 0
            (3, (2, 4, 5, 3), (2, 4, 5)),  # channels last: the height would be taken for them
            (21, (1, 20, 4, 5), (1, 4, 5)),
            (20, (1, 21, 4, 5), (1, 4, 5)),
            (3, (2, 3, 10), (2, 10)),
        ],
    )
    def test_scores_are_as_many_as_classes(
        self, classes: int, shape: tuple[int, ...], target: tuple[int, ...]
    ) -> None:
        metric = SegmentationMetrics(classes)
        remedy = r"\(scores > 0\)\.long\(\)\.squeeze\(1\)"
        with pytest.raises(ValueError, match=rf"expected num_classes={classes}, .*{remedy}"):
            metric.update(torch.rand(shape), torch.zeros(target, dtype=torch.int64))
        assert metric.confusion.sum() == 0

    def test_no_label_is_ignored(self) -> None:
        metric = SegmentationMetrics(300, ignore_index=None)
        metric.update(torch.tensor([255, 0]), torch.tensor([255, 1]))
        assert metric.confusion.sum() == 2
        assert metric.confusion[255, 255] == 1
        with pytest.raises(ValueError, match="target has the class 300"):
            metric.update(torch.tensor([0]), torch.tensor([300]))


def _normals(*shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, 3), dim=-1)


class TestNormals:
    def test_four_dimensions_with_the_components_last(self) -> None:
        prediction, target = _normals(2, 4, 5), _normals(2, 4, 5)
        expected = _values(NormalMetrics(), prediction.flatten(0, 2), target.flatten(0, 2))
        assert _values(NormalMetrics(), prediction, target) == expected
        first = prediction.movedim(-1, 1), target.movedim(-1, 1)
        assert _values(NormalMetrics(), *first) == expected

    def test_of_two_axes_of_3_the_first_is_meant(self) -> None:
        prediction, target = _normals(2, 5, 3), _normals(2, 5, 3)
        expected = _values(NormalMetrics(), prediction.flatten(0, 2), target.flatten(0, 2))
        first = prediction.movedim(-1, 1), target.movedim(-1, 1)
        assert first[0].shape == (2, 3, 5, 3)
        assert _values(NormalMetrics(), *first) == expected

    def test_other_shapes(self) -> None:
        for shape in ((2, 4, 5, 2), (3, 4, 5), (3,)):
            with pytest.raises(ValueError, match=r"\(B, 3, H, W\) or \(\.\.\., 3\)\. Move"):
                NormalMetrics().update(torch.ones(shape), torch.ones(shape))

    @pytest.mark.parametrize("unknown", [math.nan, math.inf, -math.inf])
    def test_what_is_not_finite_is_unknown(self, unknown: float) -> None:
        prediction, target = _normals(50), _normals(50)
        expected = _values(NormalMetrics(), prediction[:40], target[:40])
        target[40:45, 1] = unknown
        target[45:] = unknown
        assert _values(NormalMetrics(), prediction, target) == expected

    @pytest.mark.parametrize("length", [1e-42, 1e-30, 1e-15, 1.0, 1e19, 1e38])
    @pytest.mark.parametrize("which", ["prediction", "target"])
    def test_lengths_do_not_matter(self, which: str, length: float) -> None:
        """Squares of components would vanish, or overflow, in float32."""
        angle = math.radians(30)
        vectors = {
            "prediction": torch.tensor([[math.sin(angle), 0.0, math.cos(angle)]]),
            "target": torch.tensor([[0.0, 0.0, 1.0]]),
        }
        vectors[which] = vectors[which] * length
        # 1e-42 has ten bits
        tolerance = 0.05 if length < 1e-38 else 1e-4
        values = _values(NormalMetrics(), vectors["prediction"], vectors["target"])
        assert values["mean"] == pytest.approx(30, abs=tolerance)

    def test_float64_is_kept(self) -> None:
        """float32 would round the second component away."""
        angle = 1e-9
        prediction = torch.tensor([[1.0 + 1e-9, 1.0 - 1e-9, 0.0]], dtype=torch.float64)
        metric = NormalMetrics()
        metric.update(prediction, torch.tensor([[1.0, 1.0, 0.0]]))
        assert metric.total.item() == pytest.approx(math.degrees(angle), rel=1e-3)


@pytest.mark.parametrize("unknown", [math.nan, math.inf, -math.inf, -1.0])
def test_depths_that_are_no_depths_are_unknown(unknown: float) -> None:
    """One infinite depth made all errors infinite or NaN, of the whole set."""
    prediction, target = torch.rand(2, 4, 5) + 1, torch.rand(2, 4, 5) + 1
    target[:, 0] = 0
    expected = _values(DepthMetrics(), prediction, target)
    target[:, 0] = unknown
    assert _values(DepthMetrics(), prediction, target) == expected
    assert all(math.isfinite(value) for value in expected.values())
