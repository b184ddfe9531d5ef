"""Requests that cannot be met: a line that names the option and the remedy, before any work."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pixelnet_triton.data import RenderedScenes
from pixelnet_triton.recipes import PRESETS, find, finding, load, network, train
from pixelnet_triton.recipes import training as module
from pixelnet_triton.recipes.card import TaskCard
from pixelnet_triton.recipes.command import main
from tests.data_files import random_image, small_camvid, write_image

TINY = ["--preset", "small", "--width", "0.0625", "--hidden", "8", "--points", "50"]
TINY += ["--images", "2", "--steps", "1", "--accelerator", "cpu", "--devices", "1"]
SETUP = dataclasses.replace(PRESETS["small"], width=1 / 16, hidden=(8,), points=50, images=2)
Checkpoint = Callable[[str], Path]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A network for a task, as it begins."""

    @cache
    def made(task: str) -> Path:
        folder = tmp_path_factory.mktemp(task)
        named = {"classes": ("road", "sky"), "palette": ((0, 0, 0), (9, 9, 9))}
        card = TaskCard(task, "own", **(named if task == "segmentation" else {}))  # type: ignore
        network(SETUP, card).save(folder / "model.safetensors")
        return folder / "model.safetensors"

    return made


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says, whether it is argparse or the command that refuses."""
    try:
        status: Any = main(words)
    except SystemExit as ended:
        status = ended.code
    printed = capsys.readouterr().err
    assert status == 2, printed
    assert "Traceback" not in printed
    return printed.strip().splitlines()[-1]


TRAIN = ["train", "--task", "depth", "--out", "OUT", *TINY]
EVALUATE = ["evaluate", "--checkpoint", "MODEL", "--out", "OUT"]
PREDICT = ["predict", "IMAGE", "--checkpoint", "MODEL", "--out", "OUT"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*TRAIN, "--steps", "0"], "argument --steps: 0; expected an integer of at least 1"),
        ([*TRAIN, "--epochs", "nan"], "argument --epochs: nan; expected a positive, finite number"),
        ([*TRAIN, "--images", "0"], "argument --images: 0; expected an integer of at least 1"),
        ([*TRAIN, "--points", "x"], "argument --points: invalid int value: 'x'"),
        ([*TRAIN, "--hidden", "8", "0"], "argument --hidden: 0; expected an integer of at least 1"),
        ([*TRAIN, "--crop", "-1", "4"], "argument --crop: -1; expected an integer of at least 1"),
        ([*TRAIN, "--lr", "inf"], "argument --lr: inf; expected a finite number of at least 0"),
        ([*TRAIN, "--positives", "2"], "argument --positives: 2; expected a number in [0, 1]"),
        ([*TRAIN, "--scale", "0"], "argument --scale: 0; expected a positive, finite number"),
        ([*TRAIN, "--seed", "-1"], "argument --seed: -1; expected an integer of at least 0"),
        (
            [*TRAIN, "--seed", "9" * 20],
            f"--seed: {'9' * 20}; expected an integer of at least 0 and",
        ),
        ([*TRAIN, "--workers", "-1"], "argument --workers: -1; expected an integer of at least 0"),
        ([*TRAIN, "--checkpoint-every", "0"], "argument --checkpoint-every: 0; expected an int"),
        ([*TRAIN, "--test-images", "-1"], "argument --test-images: -1; expected an integer of at"),
        ([*TRAIN, "--scales", "nan"], "argument --scales: nan; expected a positive, finite number"),
        ([*TRAIN, "--accelerator", "foo"], "Lightning cannot train with accelerator='foo', devi"),
        ([*TRAIN, "--devices", "0"], "Lightning cannot train with accelerator='cpu', devices='0'"),
        ([*TRAIN, "--devices", "foo"], "devices='foo', strategy='auto', precision='32-true': "),
        ([*TRAIN, "--strategy", "foo"], "strategy='foo', precision='32-true': You selected an inv"),
        ([*TRAIN, "--precision", "foo"], "precision='foo': Precision 'foo' is invalid"),
        ([*TRAIN, "--pretrained", "FILE"], "cannot be read: it "),
        ([*TRAIN, "--fixed-statistics"], "give --no-fixed-statistics, or another --backbone"),
        ([*TRAIN, "--out", "FILE"], "file is a file; expected a folder, or a new name"),
        ([*EVALUATE, "--test-images", "0"], "argument --test-images: 0; expected an integer of at"),
        ([*EVALUATE, "--thresholds", "0"], "argument --thresholds: 0; expected an integer of at"),
        ([*EVALUATE, "--workers", "0"], "argument --workers: 0; expected an integer of at least 1"),
        ([*EVALUATE, "--out", "FILE"], "file is a file; expected a folder, or a new name"),
        ([*EVALUATE, "--device", "foo"], "--device foo is none that can be used here: Expected"),
        ([*PREDICT, "--scales", "0"], "argument --scales: 0; expected a positive, finite number"),
        ([*PREDICT, "--out", "FILE"], "file is a file; expected a folder, or a new name"),
        ([*PREDICT, "--out", "."], "image.png is one of the images, and the prediction would repl"),
        (["predict", "FILE", *PREDICT[2:]], "file cannot be read: cannot identify image file"),
        (["predict", "SPECK", *PREDICT[2:]], "has a stride of 16 and needs at least as many"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_refused_in_a_line_before_any_work(
    words: list[str],
    message: str,
    checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "image.png", random_image(40, 56))
    write_image(tmp_path / "speck.png", random_image(3, 3))
    (tmp_path / "file").write_text("no image, no folder, no checkpoint")
    places = {"OUT": "out", "MODEL": str(checkpoint("depth")), "FILE": "file"}
    places |= {"IMAGE": "image.png", "SPECK": "speck.png"}
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def fitted(*_: Any, **__: Any) -> None:
        raise AssertionError("a training began")

    monkeypatch.setattr(module, "fit", fitted)
    assert message in refusal([places.get(word, word) for word in words], capsys)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("option", [["--random-scales", "0.001"], ["--scale", "0.01"]])
def test_images_that_become_too_small_end_a_training_in_a_line(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--task", "depth", "--out", str(tmp_path / "out"), *TINY, *option]
    assert "has a stride of 16 and needs at least as many" in refusal(words, capsys)


def test_a_resumed_run_with_another_rate_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = small_camvid(tmp_path / "camvid")
    words = ["train", "--task", "segmentation", "--data", str(data), *TINY]
    words += ["--out", str(tmp_path / "out"), "--test-images", "0", "--resume"]
    assert main(words) == 0
    capsys.readouterr()
    assert "recipe.lr was 0.05 and is 0.01" in refusal([*words, "--lr", "0.01"], capsys)
    assert "task.sampler.n was 50 and is 60" in refusal([*words, "--points", "60"], capsys)


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_the_test_after_a_training_has_its_precision(precision: str, tmp_path: Path) -> None:
    words = ["train", "--task", "depth", *TINY, "--out", str(tmp_path), "--test-images", "1"]
    assert main([*words, "--precision", precision]) == 0
    model = load(tmp_path / "model.safetensors")
    assert str(model.head.first.weight.dtype) == {"bf16-true": "torch.bfloat16"}.get(
        precision, "torch.float64"
    )


def test_sigterm_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lightning ends the process by a SystemExit without a status, which is 0."""
    killed = dataclasses.replace(find("depth", None)[0], reader=_Killed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finding, "DATASETS", [killed])
        words = ["train", "--task", "depth", "--data", "rooms", *TINY, "--steps", "9"]
        words += ["--out", str(tmp_path), "--checkpoint-every", "1"]
        assert main(words) == 143
        patch.setattr(_Killed, "last", 0)
        assert main([*words, "--steps", "2", "--resume", "--test-images", "0"]) == 0
    message = capsys.readouterr().err
    assert "SIGTERM stopped it at step 1; the same command with --resume goes on fro" in message
    assert str(tmp_path) in message


class _Killed(RenderedScenes):
    """Rooms whose image of this number among those asked for is the last."""

    last = 2

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__(8, "depth", size=(32, 32), seed=1)
        self._asked = 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        self._asked += 1
        if self._asked == self.last:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().__getitem__(index)


def test_paths_may_be_strings(tmp_path: Path) -> None:
    data = find("depth", None)[0]
    scenes = RenderedScenes(4, "depth", size=(32, 32), seed=1)
    row = dataclasses.replace(data, reader=lambda *_, **__: scenes)
    setup = dataclasses.replace(SETUP, steps=1)
    out, machine = str(tmp_path / "out"), {"accelerator": "cpu", "devices": 1}
    train(row, None, setup, out, **machine)
    train(row, None, setup, f"{out}/2", init_from=f"{out}/model.safetensors", **machine)
    assert load(f"{out}/2/model.safetensors").output == "depth"


class TestLength:
    @pytest.mark.parametrize(
        ("options", "steps"), [({}, 12), ({"devices": 2}, 6), ({"num_nodes": 2, "devices": 2}, 3)]
    )
    def test_epochs_are_passes_of_all_ranks_together(
        self, options: dict[str, Any], steps: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        assert self.asked(monkeypatch, tmp_path, epochs=1.5, **options) == steps

    def test_torchruns_processes_are_its_ranks(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Whatever number of devices the machine has; but for devices that are given."""
        variables = {"WORLD_SIZE": "4", "RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0"}
        variables |= {"LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "1"}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        asked: list[dict[str, Any]] = []
        for devices, found in (("auto", (2, 2)), (3, (3, None))):
            asked.clear()
            machine = {"epochs": 1.5, "devices": devices}
            assert self.asked(monkeypatch, tmp_path, options=asked, **machine) == 3
            assert (asked[0]["devices"], asked[0].get("num_nodes")) == found

    def test_is_never_taken_from_elsewhere(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """0 steps were those of the preset's epochs."""
        with pytest.raises(ValueError, match="steps=0; expected an integer of at least 1"):
            self.asked(monkeypatch, tmp_path, steps=0)
        with pytest.raises(ValueError, match=r"epochs=0.01 of 16 images are no step of 2 images o"):
            self.asked(monkeypatch, tmp_path, epochs=0.01)
        with pytest.raises(ValueError, match=r"images=0; expected an integer"):
            self.asked(monkeypatch, tmp_path, images=0)

    def asked(
        self,
        monkeypatch: pytest.MonkeyPatch,
        out: Path,
        options: list[dict[str, Any]] | None = None,
        **given: Any,
    ) -> int:
        """The steps that are asked of `fit`, of 16 images in mini-batches of two."""

        class Asked(Exception):
            pass

        def fit(*_: Any, **named: Any) -> None:
            if options is not None:
                options.append(named)
            raise Asked(named["steps"])

        monkeypatch.setattr(module, "fit", fit)
        scenes = RenderedScenes(16, "depth", size=(32, 32), seed=1)
        row = dataclasses.replace(find("depth", None)[0], reader=lambda *_, **__: scenes)
        machine = {name: given.pop(name) for name in ("devices", "num_nodes") if name in given}
        setup = dataclasses.replace(SETUP, **{"steps": None, **given})
        try:
            train(row, None, setup, out, **{"accelerator": "cpu", "devices": 1, **machine})
        except Asked as asked:
            return int(asked.args[0])
        raise AssertionError("fit was not called")


class TestNetworksSavedByHand:
    """`PixelNet.save` knows no task: the command line says it."""

    def by_hand(self, path: Path, folder: Path) -> Path:
        model = load(path)
        assert model.config is not None
        model.config = dataclasses.replace(model.config, task=None)
        model.save(folder / "by-hand.safetensors")
        write_image(folder / "a.png", random_image(40, 56))
        return folder / "by-hand.safetensors"

    @pytest.mark.parametrize("task", ["edges", "normals", "depth"])
    def test_are_asked_for_the_task_that_is_named(
        self, task: str, checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = self.by_hand(checkpoint(task), tmp_path)
        words = ["predict", str(tmp_path / "a.png"), "--checkpoint", str(path)]
        words += ["--out", str(tmp_path / "out")]
        assert "does not say what its task is; give --task" in refusal(words, capsys)
        assert main([*words, "--task", task]) == 0
        assert (tmp_path / "out" / "a.png").exists()

    def test_are_refused_for_another(
        self, checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = self.by_hand(checkpoint("depth"), tmp_path)
        words = ["predict", str(tmp_path / "a.png"), "--checkpoint", str(path)]
        words += ["--out", str(tmp_path / "out"), "--task"]
        assert "needs a network with output='sigmoid' and 1 values" in refusal(
            [*words, "edges"], capsys
        )
        assert "does not name the classes" in refusal([*words, "segmentation"], capsys)


def test_in_dev_mode_the_traceback_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "flags", SimpleNamespace(dev_mode=True))
    with pytest.raises(FileNotFoundError):
        main(["evaluate", "--checkpoint", str(tmp_path / "nothing")])
