"""The command that draws images, ground truth and predictions beside each other."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from examples import figures
from pixelnet_triton.data import CamVid
from pixelnet_triton.recipes import PRESETS, TaskCard, View, network
from tests.data_files import small_bsds, small_camvid

TINY = dataclasses.replace(PRESETS["small"], width=1 / 16, hidden=(8,))
CARDS = {
    "camvid": TaskCard("segmentation", "camvid", View(), CamVid.CLASSES, CamVid.PALETTE),
    "bsds500": TaskCard("edges", "bsds500"),
    "rooms": TaskCard("depth", "rooms", View(size=(32, 48))),
}


def saved(name: str, folder: Path, seed: int = 0) -> Path:
    path = folder / f"{name}{seed}.safetensors"
    network(dataclasses.replace(TINY, seed=seed), CARDS[name]).save(path)
    return path


def test_a_picture_for_each_task_with_a_column_for_each_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    camvid, bsds = small_camvid(tmp_path / "camvid"), small_bsds(tmp_path / "bsds")
    one, other = saved("bsds500", tmp_path), saved("bsds500", tmp_path, seed=1)
    words = ["--data", f"camvid={camvid}", f"bsds500={bsds}", "--out", str(tmp_path / "drawn")]
    words += ["--checkpoints", str(saved("camvid", tmp_path)), f"one={one}", f"other={other}"]
    assert figures.main(words) == 0
    drawn = sorted((tmp_path / "drawn").iterdir())
    assert [path.name for path in drawn] == [
        "prediction-edges-bsds500.jpg",
        "prediction-segmentation-camvid.jpg",
    ]
    assert all(path.stat().st_size <= figures.LARGEST for path in drawn)
    with Image.open(drawn[0]) as edges, Image.open(drawn[1]) as classes:
        assert edges.width * 3 == pytest.approx(classes.width * 4, abs=4)
    assert capsys.readouterr().out.count("kB") == 2


def test_depths_of_truth_and_prediction_share_their_colours() -> None:
    target = torch.tensor([[1.0, 2.0, 0.0]])
    truth, same = figures._pictures(CARDS["rooms"], target, [target[None] + 0])
    assert np.array_equal(truth, same)
    assert truth[0, 2].tolist() == [0, 0, 0]


def test_too_large_a_picture_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(figures, "LARGEST", 1000)
    words = ["--images", "1", "--out", str(tmp_path), "--checkpoints"]
    assert figures.main([*words, str(saved("rooms", tmp_path))]) == 2
    assert "is larger than 1000 bytes; draw fewer images" in capsys.readouterr().err
    assert figures.main([*words, str(tmp_path / "nothing")]) == 2
    assert "is missing; expected model.safetensors" in capsys.readouterr().err
