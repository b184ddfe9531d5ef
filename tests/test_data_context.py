"""PASCAL-Context: 59 and 33 classes, from merged labels and from the 459 categories."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from pixelnet_triton.data import PascalContext
from tests.data_files import random_image, write_image, write_lines

NAMES = ["2008_000002", "2008_000003"]


def class_list(count: int) -> list[str]:
    """The task's own spellings among invented names."""
    return ["diningtable", "bedcloth", "clothes", "tv monitor"] + [
        f"thing{i}" for i in range(count - 4)
    ]


def numbered(names: list[str]) -> list[str]:
    return [f"{i}: {name}" for i, name in enumerate(names, start=1)]


# 459 categories: the classes in another order, under the general spelling, among others.
CATEGORIES = ["cloth", "accordion", "table", "bedclothes", "tvmonitor"] + [
    f"thing{i}" for i in reversed(range(454))
]


@pytest.fixture(params=["", "VOCdevkit/VOC2010"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    top = tmp_path / request.param
    for i, name in enumerate(NAMES):
        write_image(top / "JPEGImages" / f"{name}.jpg", random_image(12, 10, i))
    for split, names in (("train", NAMES[:1]), ("val", NAMES[1:]), ("trainval", NAMES)):
        write_lines(top / "ImageSets" / "Main" / f"{split}.txt", names)
    for count in (33, 59):
        write_lines(tmp_path / f"{count}_labels.txt", [*numbered(class_list(count)), ""])
    return tmp_path


def add_merged(root: Path, count: int) -> np.ndarray:
    labels = (np.arange(120).reshape(12, 10) % (count + 1)).astype(np.uint8)
    for name in NAMES:
        write_image(root / f"{count}_context_labels" / f"{name}.png", labels)
    return labels


def add_categories(root: Path) -> np.ndarray:
    labels = np.resize(np.arange(460), 600)[340:460].reshape(12, 10).astype(np.uint16)
    labels[0, :6] = [0, 1, 2, 3, 4, 5]
    (root / "trainval").mkdir()
    for name in NAMES:
        savemat(root / "trainval" / f"{name}.mat", {"LabelMap": labels})
    write_lines(root / "labels.txt", numbered(CATEGORIES))
    return labels


@pytest.mark.parametrize("count", [59, 33])
def test_merged_labels(root: Path, count: int) -> None:
    labels = add_merged(root, count).astype(np.int64)
    data = PascalContext(root, "val", classes=count)
    assert data.names == NAMES[1:]
    assert tuple(name.replace(" ", "") for name in class_list(count)) == data.CLASSES
    expected = torch.from_numpy(np.where(labels == 0, 255, labels - 1))
    assert torch.equal(data[0]["target"], expected)
    assert set(range(count)) < set(expected.unique().tolist())


@pytest.mark.parametrize("count", [59, 33])
def test_categories_are_mapped_by_name(root: Path, count: int) -> None:
    labels = add_categories(root)
    data = PascalContext(root, "trainval", classes=count)
    target = data[0]["target"]
    assert target[0, :6].tolist() == [255, 2, 255, 0, 1, 3]
    for category, actual in zip(labels.flat, target.flatten().tolist(), strict=True):
        name = CATEGORIES[category - 1] if category else "none"
        if name.startswith("thing"):
            assert actual == (data.CLASSES.index(name) if name in data.CLASSES else 255)
    assert (target < 255).sum() > 20


def test_merged_labels_are_preferred(root: Path) -> None:
    add_categories(root)
    add_merged(root, 33)
    assert PascalContext(root, classes=33).entries[0].target.suffix == ".png"
    assert PascalContext(root, classes=59).entries[0].target.suffix == ".mat"


def test_says_what_is_missing(root: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"59_context_labels and 59_labels\.txt; or .*roozb"
    ):
        PascalContext(root)
    with pytest.raises(FileNotFoundError, match=r"ImageSets/Main/val\.txt"):
        PascalContext(root / "nowhere", "val")
    with pytest.raises(ValueError, match="classes=60; PASCAL-Context has tasks of 59 and 33"):
        PascalContext(root, classes=60)
    add_categories(root)
    names = class_list(33)
    write_lines(root / "33_labels.txt", numbered(names[:-1]))
    with pytest.raises(ValueError, match="lists 32 classes; expected 33"):
        PascalContext(root, classes=33)
    write_lines(root / "33_labels.txt", numbered([*names[:-1], "unheard of"]))
    with pytest.raises(ValueError, match=r"the class 'unheardof'.*N_context_labels"):
        PascalContext(root, classes=33)
    write_lines(root / "33_labels.txt", ["1: a", "3: c"])
    with pytest.raises(ValueError, match="line '3: c'; expected '2: NAME'"):
        PascalContext(root, classes=33)


def test_lines_without_a_number_are_named(root: Path) -> None:
    add_merged(root, 33)
    write_lines(root / "33_labels.txt", ["class: x"])
    with pytest.raises(ValueError, match="line 'class: x'; expected '1: NAME'"):
        PascalContext(root, classes=33)


def test_category_maps_of_other_values(root: Path) -> None:
    """MATLAB's own numbers are float64; a negative one would count from the end of the list."""
    labels = add_categories(root)
    data = PascalContext(root, classes=33)
    before = data[0]["target"]
    savemat(data.entries[0].target, {"LabelMap": labels.astype(np.float64)})
    assert torch.equal(data[0]["target"], before)
    savemat(data.entries[0].target, {"LabelMap": labels.astype(np.int16) - 1})
    with pytest.raises(ValueError, match="holds the value -1; expected 0 to 459"):
        data[0]
    savemat(data.entries[0].target, {"Labels": labels})
    with pytest.raises(ValueError, match="has no variable 'LabelMap'"):
        data[0]


def test_refuses_labels_of_another_task(root: Path) -> None:
    add_merged(root, 33)
    entry = PascalContext(root, classes=33).entries[0]
    write_image(entry.target, np.full((12, 10), 34, np.uint8))
    with pytest.raises(ValueError, match="holds the value 34; expected 0 to 33"):
        PascalContext(root, classes=33)[0]
