"""PASCAL VOC 2012 in its public layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pixelnet_triton.data import PascalVOC
from tests.data_files import random_image, write_image, write_lines

NAMES = ["2007_000032", "2007_000039", "2008_000008"]


def labels_of(i: int) -> np.ndarray:
    labels = ((np.arange(6 * 8).reshape(6, 8) + i) % 21).astype(np.uint8)
    labels[0] = 255
    return labels


@pytest.fixture(params=["", "VOC2012", "VOCdevkit/VOC2012"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    top = tmp_path / request.param
    palette = [value for colour in PascalVOC.PALETTE for value in colour]
    for i, name in enumerate([*NAMES, "not_segmented"]):
        write_image(top / "JPEGImages" / f"{name}.jpg", random_image(6, 8, i))
    for i, name in enumerate(NAMES):
        write_image(top / "SegmentationClass" / f"{name}.png", labels_of(i), palette)
    lists = top / "ImageSets" / "Segmentation"
    for split, names in (("train", NAMES[:2]), ("val", NAMES[2:]), ("trainval", NAMES)):
        write_lines(lists / f"{split}.txt", names)
    return tmp_path


def test_reads_the_lists_and_the_indices_under_the_palette(root: Path) -> None:
    assert PascalVOC(root, "train").names == NAMES[:2]
    assert PascalVOC(root, "trainval").names == NAMES
    val = PascalVOC(root, "val")
    assert len(val) == 1
    assert val[0]["name"] == NAMES[2]
    assert torch.equal(val[0]["target"], torch.from_numpy(labels_of(2)).long())


@pytest.mark.parametrize("paths", [False, True])
def test_augmented_split_has_its_own_labels(root: Path, paths: bool) -> None:
    with pytest.raises(FileNotFoundError, match=r"SegmentationClassAug.*Semantic Boundaries"):
        PascalVOC(root, "train_aug")
    top = next(root.rglob("JPEGImages")).parent
    write_image(top / "SegmentationClassAug" / "not_segmented.png", labels_of(7))
    line, name = "not_segmented", "train_aug"
    if paths:
        line = "/JPEGImages/not_segmented.jpg /SegmentationClassAug/not_segmented.png"
        name = "trainaug"
    write_lines(top / "ImageSets" / "Segmentation" / f"{name}.txt", [line])
    data = PascalVOC(root, "train_aug")
    assert data.names == ["not_segmented"]
    assert torch.equal(data[0]["target"], torch.from_numpy(labels_of(7)).long())


def test_says_what_is_missing(root: Path) -> None:
    with pytest.raises(ValueError, match="split='test' is unknown"):
        PascalVOC(root, "test")  # its ground truth is not public
    with pytest.raises(FileNotFoundError, match=r"SegmentationClass and .*VOCtrainval_11-May"):
        PascalVOC(root / "nowhere")
    write_image(PascalVOC(root, "val").entries[0].target, np.full((6, 8), 21, np.uint8))
    with pytest.raises(ValueError, match="holds the value 21; expected class indices 0 to 20"):
        PascalVOC(root, "val")[0]
    PascalVOC(root, "val").entries[0].image.unlink()
    with pytest.raises(FileNotFoundError, match="1 of 1 images have no image, the first is '2008"):
        PascalVOC(root, "val")


def test_palette_is_the_devkits() -> None:
    colours = dict(zip(PascalVOC.CLASSES, PascalVOC.PALETTE, strict=True))
    assert colours["background"] == (0, 0, 0)
    assert colours["aeroplane"] == (128, 0, 0)
    assert colours["chair"] == (192, 0, 0)
    assert colours["tvmonitor"] == (0, 64, 128)
