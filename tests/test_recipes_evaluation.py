"""Evaluations: at the images' own size, thin edges, several ranks; what is printed and drawn."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pixelnet_triton.models import VGG16, PixelMLP, PixelNet
from pixelnet_triton.recipes import (
    Evaluation,
    TaskCard,
    View,
    draw_curves,
    evaluate,
    evaluate_boundaries,
    evaluation,
    predict_image,
)
from pixelnet_triton.recipes.curves import HUMAN
from pixelnet_triton.recipes.tables import as_json, as_text

WHOLE = View()
ROAD_AND_SKY = TaskCard("segmentation", "camvid", classes=("road", "sky"))


def tiny(outputs: int = 2, output: str = "softmax") -> PixelNet:
    backbone = VGG16(("conv1_1",), width=1 / 16)
    return PixelNet(backbone, PixelMLP(backbone.channels, (), out_features=outputs), output=output)


class Blurred(nn.Module):
    """Predicts a blurred vertical line in the middle of any image."""

    output = "sigmoid"

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(()))
        self.sizes: list[tuple[int, int]] = []

    def predict(self, images: Tensor, **views: Any) -> Tensor:
        height, width = images.shape[2:]
        self.sizes.append((height, width))
        x = torch.arange(width) - width // 2
        return 0.9 * torch.exp(-((x / 4.0) ** 2)).expand(len(images), 1, height, width)


class Drawn:
    """Three images of 60 x 80 whose annotators drew nothing in particular."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": torch.rand(3, 60, 80), "name": f"image{index}"}

    def annotations(self, index: int) -> list[str]:
        return [f"annotators of {index}"]


class TestBoundaries:
    def scored(
        self, monkeypatch: pytest.MonkeyPatch, view: View = WHOLE, **options: Any
    ) -> SimpleNamespace:
        seen = SimpleNamespace(model=Blurred(), kept=[])

        def counted(maps: Any, annotations: Any, **named: Any) -> dict[str, Tensor]:
            seen.maps, seen.annotations, seen.named = maps, annotations, named
            names = ("ods", "ois", "ap", "ods_threshold")
            curve = {name: torch.rand(4) for name in ("thresholds", "recall", "precision")}
            return {name: torch.tensor(0.5) for name in names} | curve

        monkeypatch.setattr(evaluation, "counted_boundaries", counted)
        seen.outcome = evaluate_boundaries(
            seen.model,
            TaskCard("edges", "bsds500", view),
            Drawn(),
            keep=lambda name, edges: seen.kept.append((name, edges)),
            progress=False,
            **options,
        )
        return seen

    def test_maps_are_thin_before_they_are_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Section 4.3: non-maximum suppression. One or two of nine pixels remain."""
        seen = self.scored(monkeypatch)
        blurry = seen.model.predict(torch.zeros(1, 3, 60, 80))[0, 0]
        assert (blurry[30] > 0.3).sum() == 9
        for edges in seen.maps:
            assert edges.shape == (60, 80)
            assert 1 <= (edges[30] > 0.3).sum() <= 2
            assert edges[30].argmax() == 40
        assert torch.equal(seen.kept[1][1][0], seen.maps[1])

    def test_each_image_meets_its_own_annotators(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen = self.scored(monkeypatch, images=2, workers=1)
        assert seen.annotations == [["annotators of 0"], ["annotators of 1"]]
        assert [name for name, _ in seen.kept] == ["image0", "image1"]
        # 99 thresholds; distance and thinning are the metric's own defaults
        assert seen.named == {"thresholds": 99, "workers": 1, "progress": False}
        assert seen.outcome.images == 2
        assert set(seen.outcome.metrics) == {"ods", "ois", "ap", "ods_threshold"}
        assert len(seen.outcome.curve["recall"]) == 4

    def test_predicts_at_the_view_and_counts_at_full_size(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = self.scored(monkeypatch, View(scale=0.5), images=1)
        assert seen.model.sizes == [(30, 40)]
        assert seen.maps[0].shape == (60, 80)


class TestTooSmall:
    """What is said of an image says which it is."""

    def model(self, outputs: int, output: str) -> PixelNet:
        backbone = VGG16(("conv5_3",), width=1 / 16)
        head = PixelMLP(backbone.channels, (), out_features=outputs)
        return PixelNet(backbone, head, output=output)

    def test_in_an_evaluation(self) -> None:
        sample = {"image": torch.rand(3, 1, 2), "target": torch.zeros(1, 2).long(), "name": "speck"}
        with pytest.raises(ValueError, match=r"^speck: images is 1 x 2 pixels"):
            evaluate(self.model(2, "softmax"), ROAD_AND_SKY, [sample], progress=False)

    def test_in_the_boundary_benchmark(self) -> None:
        card = TaskCard("edges", "bsds500", View(scale=0.1))
        with pytest.raises(ValueError, match=r"^image0: images is 6 x 8 pixels"):
            evaluate_boundaries(self.model(1, "sigmoid"), card, Drawn(), progress=False)


class TestViews:
    def test_one_that_leaves_the_size_changes_nothing(self) -> None:
        model, image = tiny(), torch.rand(3, 20, 30)
        expected = model.predict(image[None], scales=(0.5, 1.0), flip=True)[0]
        assert torch.equal(predict_image(model, image, scales=(0.5, 1.0), flip=True), expected)

    def test_normals_are_unit_at_the_images_size(self) -> None:
        normals = predict_image(tiny(3, "normals"), torch.rand(3, 48, 64), View(size=(17, 19)))
        assert normals.shape == (3, 48, 64)
        assert (normals.norm(dim=0) - 1).abs().max() < 1e-5

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
    def test_networks_of_every_precision_are_asked_in_their_own(self, dtype: torch.dtype) -> None:
        """As training in bf16-true, 16-true and 64-true leaves them."""
        model, image = tiny(), torch.rand(3, 20, 30)
        expected = predict_image(model, image, View(scale=0.5))
        outputs = predict_image(model.to(dtype), image, View(scale=0.5))
        assert outputs.dtype == torch.float32
        torch.testing.assert_close(outputs, expected, atol=0.02, rtol=0)

    def test_probabilities_stay_so(self) -> None:
        probabilities = predict_image(tiny(), torch.rand(3, 48, 64), View(scale=0.3))
        assert (probabilities.sum(0) - 1).abs().max() < 1e-5

    def test_refuses(self) -> None:
        with pytest.raises(ValueError, match=r"scale=0; expected a positive factor"):
            View(scale=0)
        with pytest.raises(ValueError, match=r"size=\(2, 3\) and scale=0.5; give one of them"):
            View((2, 3), 0.5)


class TestSegmentation:
    def data(self) -> list[dict[str, Any]]:
        target = torch.tensor([[0, 1, 255]] * 16).repeat(1, 6)
        return [
            {"image": torch.rand(3, 16, 18), "target": target, "kind": "labels"} for _ in range(3)
        ]

    def test_confusion_and_metrics_are_of_the_same_pixels(self) -> None:
        outcome = evaluate(tiny(), ROAD_AND_SKY, self.data(), progress=False)
        confusion = torch.tensor(outcome.confusion)
        assert confusion.sum(1).tolist() == [3 * 16 * 6] * 2
        accuracy = confusion.diagonal().sum() / confusion.sum()
        assert outcome.metrics["pixel_accuracy"] == pytest.approx(float(accuracy))
        assert outcome.images == 3

    def test_every_output_is_kept_by_name(self) -> None:
        kept: dict[str, Tensor] = {}
        evaluate(tiny(), ROAD_AND_SKY, self.data(), keep=kept.__setitem__, progress=False)
        assert {name: tuple(value.shape) for name, value in kept.items()} == dict.fromkeys(
            ("0", "1", "2"), (2, 16, 18)
        )

    def test_table_and_json(self) -> None:
        metrics = {"mean_iu": 0.25, "class_accuracy/road": 0.75, "iu/road": 0.5}
        metrics |= {"class_accuracy/sky": float("nan"), "iu/sky": 0.0}
        outcome = Evaluation(metrics, 2, [[3, 1], [0, 0]])
        lines = as_text(ROAD_AND_SKY, outcome).splitlines()
        assert lines[0] == "segmentation, camvid, 2 images"
        assert "  IU, mean                    0.2500" in lines
        assert "  road     0.7500  0.5000" in lines
        assert "   0 road    75  25" in lines  # of the confusion matrix
        assert "   1 sky      -   -" in lines
        content = json.loads(as_json(ROAD_AND_SKY, outcome, split="test"))
        assert content["confusion"] == [[3, 1], [0, 0]]
        assert content["metrics"]["class_accuracy/sky"] is None
        assert content["split"] == "test"


def test_json_has_finite_numbers_alone() -> None:
    """What JSON has no numbers for: null where there was nothing, and "inf" for infinity."""
    metrics = {"rmse": float("inf"), "abs_rel": float("nan"), "delta1": 1 / 3}
    outcome = Evaluation(metrics, 1, curve={"precision": [1 / 3, float("nan")]})

    def refused(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    content = json.loads(as_json(TaskCard("depth", "nyu"), outcome), parse_constant=refused)
    assert content["metrics"] == {"rmse": "inf", "abs_rel": None, "delta1": 0.333333}
    assert content["precision"] == [1 / 3, None]


def test_the_human_point_is_the_papers() -> None:
    """Table 7 and Figure 4: F = 0.80."""
    recall, precision = HUMAN
    assert round(2 * recall * precision / (recall + precision), 2) == 0.80


def test_a_curve_is_drawn(tmp_path: Path) -> None:
    curves = {"recall": [0.9, 0.5, 0.0], "precision": [0.3, 0.8, 0.0], "ods": 0.62}
    draw_curves(tmp_path / "new" / "with.png", {"PixelNet": curves})
    draw_curves(tmp_path / "without.png", {})
    with (
        Image.open(tmp_path / "new" / "with.png") as one,
        Image.open(tmp_path / "without.png") as other,
    ):
        assert one.size == other.size
        assert (np.array(one) != np.array(other)).any()
