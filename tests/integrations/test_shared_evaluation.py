"""A script under torchrun: ranks share the test images, and one prints the metrics of all."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch

from ..test_examples import TINY, _camvid
from .launch import torchrun

pytest.importorskip("lightning")

from examples.training import SMALL, evaluate, network
from pixelnet_triton.data import CamVid, Resize
from pixelnet_triton.training import Segmentation

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="this build of torch has no torch.distributed"
)


def test_metrics_are_printed_once_and_are_those_of_all_images(tmp_path: Path) -> None:
    data, out = _camvid(tmp_path / "camvid"), tmp_path / "out"
    options = ["--data", str(data), "--out", str(out), "--steps", "1", "--images", "1"]
    ranks = ["--strategy", "ddp", "--devices", "2"]
    printed = torchrun("-m", "examples.train_segmentation", *TINY, *options, *ranks)
    metrics = re.findall(r"^  (\w+) +(\d\.\d{4})$", printed, re.MULTILINE)
    assert [name for name, _ in metrics] == ["pixel_accuracy", "mean_class_accuracy", "mean_iu"]

    # One process with the same weights and all images.
    task = Segmentation(11)
    model = network(dataclasses.replace(SMALL, width=0.0625), task)
    state = torch.load(out / "last.ckpt", weights_only=False)["state_dict"]
    model.load_state_dict(
        {name.removeprefix("model."): value for name, value in state.items() if "model." in name}
    )
    test = CamVid(data, "test", Resize((120, 160)))
    assert len(test) == 2
    expected = evaluate(model, task, test, progress=False)
    assert {name: float(value) for name, value in metrics} == pytest.approx(expected, abs=6e-5)
    # One image alone gives other numbers: a rank that saw its share only would be seen.
    assert evaluate(model, task, [test[0]], progress=False) != pytest.approx(expected, abs=6e-5)
