"""What each data set's row trains, validates and tests on, and with which numbers of the paper."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pixelnet_triton.data import (
    ColourScale,
    RandomCrop,
    RandomHorizontalFlip,
    RandomScale,
    RenderedScenes,
    Resize,
)
from pixelnet_triton.recipes import DATASETS, PRESETS, DataSet, TaskCard, View, find, finding
from pixelnet_triton.sampling import BiasedSampler, UniformSampler
from pixelnet_triton.training import EDGE_RECIPE, Depth, Edges, Normals, Recipe, Segmentation
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

PAPER, SMALL = PRESETS["paper"], PRESETS["small"]


class Split:
    """Stands for a data set: knows which split of it was asked for."""

    kind = "edges"
    SPLITS: tuple[str, ...] = ("train", "val", "test", "trainval")
    CLASSES = ("road", "sky")

    def __init__(self, root: Any, split: str, transform: Any = None, *, cache: bool = False):
        if split not in self.SPLITS:
            raise ValueError(f"split={split!r} is unknown")
        self.root, self.split, self.transform, self.cache = root, split, transform, cache

    def __len__(self) -> int:
        return {"train": 367, "val": 101, "test": 233, "trainval": 300}[self.split]


def row(task: str, name: str, **changes: Any) -> DataSet:
    return dataclasses.replace(find(task, f"{name}=folder")[0], **changes)


class NYU(Split):
    SPLITS = ("train", "test")


CAMVID = row("segmentation", "camvid", reader=Split)
BSDS = row("edges", "bsds500", reader=Split)
ROOT = Path("folder")


@pytest.mark.parametrize("preset", ["paper", "small"])
def test_segmentation_trains_validates_and_tests_on_its_splits(preset: str) -> None:
    setup = CAMVID.setup(preset)
    data, transform = CAMVID.training(ROOT, setup)
    validation = CAMVID.validation(ROOT, setup)
    resize = Resize((120, 160)) if preset == "small" else None
    assert isinstance(data, Split)
    assert isinstance(validation, Split)
    assert (data.split, validation.split) == ("train", "val")
    assert data.transform == validation.transform == resize
    assert CAMVID.read(ROOT, "test").split == "test"  # type: ignore[attr-defined]
    assert transform.transforms == [RandomHorizontalFlip(), ColourScale()]  # type: ignore[attr-defined]


def test_edges_train_on_trainval_and_validate_on_test() -> None:
    """Section 4.3: trainval turned and mirrored, scales 0.5 and 1, half of the pixels edges."""
    setup = BSDS.setup("paper")
    data, transform = BSDS.training(ROOT, setup)
    assert (data.dataset.split, len(data)) == ("trainval", 9600)  # type: ignore[attr-defined]
    assert transform.transforms == [RandomScale((0.5, 1.0))]  # type: ignore[attr-defined]
    validation: Any = BSDS.validation(ROOT, setup)
    assert (validation.dataset.split, len(validation)) == ("test", 20)
    assert (setup.epochs, setup.decay_at) == (25, EDGE_RECIPE.decay_at)
    few, transform = BSDS.training(ROOT, BSDS.setup("small"))
    assert few.split == "trainval"  # type: ignore[attr-defined]
    assert few.transform == RandomScale((0.5,))  # type: ignore[attr-defined]
    assert [type(t) for t in transform.transforms] == [  # type: ignore[attr-defined]
        RandomCrop, RandomHorizontalFlip,
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["normals", "depth"])
def test_nyu_is_seen_at_224(name: str) -> None:
    nyu = row(name, "nyu", reader=NYU)
    data, _ = nyu.training(ROOT, nyu.setup("paper"))
    assert (data.split, data.transform) == ("train", Resize((224, 224)))  # type: ignore[attr-defined]
    assert nyu.validation(ROOT, PAPER) is None
    assert nyu.read(ROOT, "test").split == "test"  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="nyu has no split 'val'; use 'train' or 'test'"):
        nyu.read(ROOT, "val")


def test_a_split_of_the_readers_own_is_read_by_its_word(tmp_path: Path) -> None:
    """What BSDS500 trains on is trainval, but it has a train and a val."""
    for split in ("train", "val", "test", "trainval"):
        assert BSDS.split_of(ROOT, split) == split
        assert BSDS.read(ROOT, split).split == split  # type: ignore[attr-defined]
    voc, root = find("segmentation", f"voc2012={small_voc(tmp_path)}")
    assert [voc.split_of(root, split) for split in ("train", "val", "test")] == [
        "train", "val", "val",
    ]  # fmt: skip
    with pytest.raises(FileNotFoundError, match="BSDS500's split 'val'"):  # the reader knows it
        find("edges", f"bsds500={tmp_path}")[0].read(tmp_path, "val")


def test_own_test_images_are_the_test(tmp_path: Path) -> None:
    """Without them the validation images are, and nothing is watched."""
    own = find("segmentation", f"own={tmp_path}")[0]
    write_lines(tmp_path / "classes.txt", ["soil"])
    for split in ("train", "val"):
        write_image(tmp_path / "images" / split / f"{split}.png", random_image(4, 4))
        write_image(tmp_path / "labels" / split / f"{split}.png", np.zeros((4, 4), np.uint8))
    assert own.split_of(tmp_path, "test") == "val"
    assert own.validation(tmp_path, PAPER) is None
    for kind, pixels in (("images", random_image(4, 4)), ("labels", np.zeros((4, 4), np.uint8))):
        assert own.split_of(tmp_path, "test") == "val"
        write_image(tmp_path / kind / "test" / "test.png", pixels)
    assert own.split_of(tmp_path, "test") == "test"
    assert own.read(tmp_path, "test")[0]["name"] == "test"
    watched: Any = own.validation(tmp_path, PAPER)
    assert watched.names == ["val"]
    (tmp_path / "images" / "test" / "test.png").unlink()
    with pytest.raises(FileNotFoundError, match="1 of 1 ground truths have no image"):
        own.read(tmp_path, "test")  # damaged, and not replaced by another


@pytest.mark.parametrize("name", ["normals", "depth"])
def test_rendered_rooms_of_the_test_are_others(name: str) -> None:
    rooms, root = find(name, None)
    data, _ = rooms.training(root, rooms.setup("small"))
    test = rooms.read(root, "test")
    assert isinstance(data, RenderedScenes)
    assert isinstance(test, RenderedScenes)
    assert (data.kind, test.kind) == (name, name)
    assert (data.size, test.size) == ((120, 160), (240, 320))
    assert data.seed != test.seed


def test_vocs_validation_images_are_kept_for_the_test(tmp_path: Path) -> None:
    voc, root = find("segmentation", f"voc2012={small_voc(tmp_path)}")
    data, _ = voc.training(root, PAPER)
    assert voc.validation(root, PAPER) is None
    names = {sample["name"] for sample in (data[0], data[1])}
    assert names.isdisjoint({voc.read(root, "test")[i]["name"] for i in range(2)})


@pytest.mark.parametrize(
    ("task", "name", "changed"),
    [
        ("segmentation", "camvid", {}),
        ("normals", "nyu", {"init": "normals"}),  # the authors' nets
        ("depth", "nyu", {}),
        (
            "edges",
            "bsds500",
            {
                "epochs": 25.0,
                "decay_at": (15 / 25, 20 / 25),
                "random_scales": (0.5, 1.0),
                "turned": True,
                "mirror": False,
                "colours": False,
            },
        ),
    ],
)
def test_what_a_data_set_changes_in_the_papers_preset(
    task: str, name: str, changed: dict[str, Any]
) -> None:
    assert vars(row(task, name).setup("paper")) == {**vars(PAPER), **changed}


@pytest.mark.parametrize(
    ("task", "changed"),
    [
        ("segmentation", {}),
        ("edges", {"decay_at": (15 / 25, 20 / 25), "crop": (144, 144), "colours": False}),
        ("normals", {}),
        ("depth", {"lr": 0.02}),
    ],
)
def test_what_a_data_set_changes_in_the_small_one(task: str, changed: dict[str, Any]) -> None:
    names = {"segmentation": "camvid", "edges": "bsds500"}
    assert vars(row(task, names.get(task, "nyu")).setup("small")) == {**vars(SMALL), **changed}


def test_context_is_trained_at_two_scales_and_seen_at_half() -> None:
    """Table 3, the row of conv-7: trained at 0.25 and 0.5, tested at 0.5."""
    context = row("segmentation", "context59", reader=Split)
    setup = context.setup("paper-conv7")
    assert setup.layers == ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3", "conv7")
    assert setup.random_scales == (0.25, 0.5)
    assert context.seen(setup) == View(scale=0.5)


def test_a_scale_replaces_the_data_sets_size() -> None:
    half = dataclasses.replace(SMALL, scale=0.5)
    assert CAMVID.seen(half) == View(scale=0.5)
    assert CAMVID.training(ROOT, half)[0].transform == RandomScale((0.5,))  # type: ignore[attr-defined]


def test_crops_have_a_height_and_a_width() -> None:
    with pytest.raises(ValueError, match=r"crop=\(3,\); expected a height and a width"):
        CAMVID.training(ROOT, dataclasses.replace(PAPER, crop=(3,)))


def test_multi_scale_fine_tuning_is_the_papers_everywhere() -> None:
    """Section 4.1, Analysis-4: rate 1e-3, a tenth of it every 8 epochs, 24 epochs in all."""
    setup = PRESETS["multi-scale"]
    assert (setup.lr, setup.epochs, setup.decay_at) == (1e-3, 24, (8 / 24, 16 / 24))
    assert setup.random_scales == (0.25, 0.5, 1.0)
    assert BSDS.setup("multi-scale") == CAMVID.setup("multi-scale") == setup
    data, transform = CAMVID.training(ROOT, setup)
    assert data.transform is None  # type: ignore[attr-defined]
    assert transform.transforms[0] == RandomScale((0.25, 0.5, 1.0))  # type: ignore[attr-defined]


def test_tasks_are_the_papers() -> None:
    def task(name: str) -> Any:
        return TaskCard.of(name, "camvid", View(), Split(ROOT, "train")).task(PAPER)  # type: ignore[arg-type]

    assert task("segmentation") == Segmentation(2, UniformSampler(2000))
    assert task("edges") == Edges(BiasedSampler(2000, positive_fraction=0.5))
    assert task("normals") == Normals(UniformSampler(2000))
    assert task("depth") == Depth(UniformSampler(2000))
    assert PAPER.recipe() == Recipe()


class TestFind:
    @pytest.mark.parametrize(
        ("task", "name", "make"),
        [
            ("segmentation", "camvid", small_camvid),
            ("segmentation", "voc2012", small_voc),
            ("segmentation", "context33", small_context),
            ("edges", "bsds500", small_bsds),
            ("normals", "nyu", small_nyu),
            ("depth", "nyu", small_nyu),
        ],
    )
    def test_a_folder_is_known_by_its_layout(
        self, task: str, name: str, make: Any, tmp_path: Path
    ) -> None:
        data, root = find(task, str(make(tmp_path)))
        assert (data.name, root) == (name, tmp_path)

    def test_a_folder_of_two_data_sets_needs_a_name(self, tmp_path: Path) -> None:
        small_context(small_voc(tmp_path))
        with pytest.raises(ValueError, match=r"as voc2012 and as context33; say which: voc2012="):
            find("segmentation", str(tmp_path))
        assert find("segmentation", f"context33={tmp_path}")[0].name == "context33"
        assert find("segmentation", str(tmp_path), "context33")[0].name == "context33"

    def test_usual_folders(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("PIXELNET_DATA", raising=False)
        with pytest.raises(FileNotFoundError, match="give camvid=FOLDER, or set the environment"):
            find("segmentation", "camvid")
        monkeypatch.setenv("PIXELNET_DATA", str(tmp_path))
        with pytest.raises(FileNotFoundError, match=r"has no folder camvid/: give camvid=FOLDER"):
            find("segmentation", "camvid")
        (tmp_path / "camvid").mkdir()
        assert find("segmentation", "camvid")[1] == tmp_path / "camvid"

    def test_a_folder_may_have_an_equals_sign_in_its_name(self, tmp_path: Path) -> None:
        folder = small_camvid(tmp_path / "lr=1" / "camvid")
        assert find("segmentation", str(folder)) == find("segmentation", f"camvid={folder}")

    def test_says_what_is_known(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"data is missing; expected one of .*'bsds500'"):
            find("edges", None)
        with pytest.raises(ValueError, match="'camvid' is neither a folder nor a data set for ed"):
            find("edges", "camvid")
        with pytest.raises(ValueError, match="task='poses' is unknown; use one of"):
            find("poses", None)
        with pytest.raises(FileNotFoundError, match=r"the layout of no data set .*\n  bsds500: ro"):
            find("edges", str(tmp_path))

    def test_own_images_need_a_list_of_classes(self, tmp_path: Path) -> None:
        for kind, pixels in (("images", random_image(4, 4)), ("labels", np.full((4, 4), 12))):
            for split in ("train", "val"):
                write_image(tmp_path / kind / split / "a.png", pixels.astype(np.uint8))
        with pytest.raises(FileNotFoundError, match=r"For images of your own, add classes\.txt"):
            find("segmentation", str(tmp_path))
        for kind in ("images", "labels"):  # CamVid's layout, but not its names
            (tmp_path / kind / "val").rename(tmp_path / kind / "test")
        with pytest.raises(FileNotFoundError, match=r"(?s)add classes\.txt.*say camvid=/"):
            find("segmentation", str(tmp_path))
        camvid, root = find("segmentation", f"camvid={tmp_path}")
        with pytest.raises(ValueError, match=r"value 12; .* your own need a classes\.txt bes"):
            camvid.read(root, "test")[0]


def test_a_new_row_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the module's docstring promises."""
    mine = DataSet("mine", "segmentation", Split, "mine")
    monkeypatch.setattr(finding, "DATASETS", [*DATASETS, mine])
    assert find("segmentation", "mine=folder") == (mine, ROOT)


def test_a_segmentation_needs_names_of_classes() -> None:
    nameless: Any = [{"image": torch.zeros(3, 1, 1)}]
    with pytest.raises(ValueError, match="list does not name its classes; give it an attribute CL"):
        TaskCard.of("segmentation", "mine", View(), nameless)
