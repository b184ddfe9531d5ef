"""A script under torchrun: ranks share the test images, and one prints the metrics of all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ..data_files import small_camvid
from .launch import torchrun

pytest.importorskip("lightning")

from pixelnet_triton.recipes import card_of, evaluate, find, load

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="this build of torch has no torch.distributed"
)
TINY = ["--small", "--accelerator", "cpu", "--width", "0.0625", "--points", "50", "--images", "1"]


def test_metrics_are_printed_once_and_are_those_of_all_images(tmp_path: Path) -> None:
    data, out = small_camvid(tmp_path / "camvid"), tmp_path / "out"
    options = ["--data", str(data), "--out", str(out), "--epochs", "1"]
    ranks = ["--strategy", "ddp", "--devices", "2"]
    printed = torchrun("-m", "examples.train_segmentation", *TINY, *options, *ranks)
    assert printed.count("IU, mean") == 1
    assert printed.count("segmentation on camvid: 2 images, 1 steps") == 1, "the header"
    metrics = json.loads((out / "evaluation.json").read_text())["metrics"]

    # One process with the same weights and all images.
    state = torch.load(out / "last.ckpt", weights_only=True)
    assert state["global_step"] == 1, "an epoch is a pass of both ranks: an image on each"
    model = load(out / "model.safetensors")
    row, root = find("segmentation", str(data))
    test = row.read(root, "test")
    assert len(test) == 2
    expected = evaluate(model, card_of(model), test, progress=False).metrics
    assert metrics == pytest.approx(expected, abs=1e-5, nan_ok=True)
    # One image alone gives other numbers: a rank that saw its share only would be seen.
    alone = evaluate(model, card_of(model), [test[0]], progress=False).metrics
    assert alone["pixel_accuracy"] != pytest.approx(expected["pixel_accuracy"], abs=1e-5)
