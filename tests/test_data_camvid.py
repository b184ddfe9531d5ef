"""CamVid in both public layouts, and the real files where they are."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from pixelnet_triton.data import CamVid, RandomHorizontalFlip
from tests.data_files import random_image, real_data, write_image

LAYOUTS = [
    ("images/{}", "labels/{}"),
    ("{}", "{}annot"),
    ("CamVid/{}", "CamVid/{}annot"),
]
SIZES = {"train": 3, "val": 1, "test": 2}


def labels_of(i: int) -> np.ndarray:
    return ((np.arange(6 * 8).reshape(6, 8) + i) % 12).astype(np.uint8)


@pytest.fixture(params=LAYOUTS, ids=["folders", "segnet", "nested"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    images, labels = request.param
    for split, count in SIZES.items():
        for i in range(count):
            write_image(tmp_path / images.format(split) / f"seq_{i}.png", random_image(6, 8, i))
            write_image(tmp_path / labels.format(split) / f"seq_{i}.png", labels_of(i))
    return tmp_path


def test_reads_images_and_labels(root: Path) -> None:
    for split, count in SIZES.items():
        data = CamVid(root, split)
        assert len(data) == count
        assert data.names == [f"seq_{i}" for i in range(count)]
        for i, sample in enumerate(data[j] for j in range(count)):
            expected = torch.from_numpy(random_image(6, 8, i)).permute(2, 0, 1) / 255
            assert torch.equal(sample["image"], expected)
            labels = torch.from_numpy(labels_of(i)).long()
            assert torch.equal(sample["target"], torch.where(labels == 11, 255, labels))
            assert sample["target"].dtype == torch.int64
            assert (sample["name"], sample["kind"]) == (f"seq_{i}", "labels")


def test_cache_survives_transforms_that_write(root: Path) -> None:
    def spoil(sample: dict) -> dict:
        sample["image"].zero_()
        sample["target"].zero_()
        return sample

    data = CamVid(root, "train", cache=True)
    before = data[1]
    data.transform = spoil
    assert data[1]["image"].sum() == 0
    data.transform = None
    # The files are gone: what comes now comes from memory.
    data.entries[1].image.unlink()
    after = data[1]
    assert torch.equal(after["image"], before["image"])
    assert torch.equal(after["target"], before["target"])
    assert torch.equal(data[torch.tensor(-2)]["image"], before["image"])


def test_transform_is_applied_and_data_set_is_picklable(root: Path) -> None:
    data = pickle.loads(pickle.dumps(CamVid(root, "train", RandomHorizontalFlip(1.0))))
    plain = CamVid(root, "train")
    assert torch.equal(data[2]["target"], plain[2]["target"].flip(-1))
    assert torch.equal(data[-1]["image"], data[2]["image"])


def test_says_what_is_missing(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"split='dev' is unknown; use one of \('train', 'val'"):
        CamVid(root, "dev")
    with pytest.raises(FileNotFoundError, match=r"does not exist.*images/train and.*SegNet"):
        CamVid(tmp_path / "nowhere", "train")
    data = CamVid(root, "train")
    with pytest.raises(IndexError, match="index 3 is out of range: there are 3 images"):
        data[3]
    data.entries[1].target.unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 3 images have no ground truth.*'seq_1'"):
        CamVid(root, "train")


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.full((6, 8), 12, np.uint8), "holds the value 12; expected class indices 0 to 10"),
        (random_image(6, 8), "mode RGB; expected one 8-bit channel"),
        (np.zeros((5, 8), np.uint8), r"\(6, 8\) but .* has \(5, 8\); expected equal sizes"),
    ],
)
def test_refuses_other_labels(root: Path, pixels: np.ndarray, message: str) -> None:
    data = CamVid(root, "val")
    write_image(data.entries[0].target, pixels)
    with pytest.raises(ValueError, match=message):
        data[0]


def test_classes_and_palette() -> None:
    assert len(CamVid.CLASSES) == len(CamVid.PALETTE) == len(set(CamVid.PALETTE)) == 11


@pytest.mark.parametrize(("split", "count"), [("train", 367), ("val", 101), ("test", 233)])
def test_real_files(split: str, count: int) -> None:
    data = CamVid(real_data("camvid"), split)
    assert len(data) == count
    sample = data[count // 2]
    assert sample["image"].shape == (3, 360, 480)
    assert 0.1 < sample["image"].mean() < 0.9
    present = set(sample["target"].unique().tolist())
    assert {1, 3} <= present <= {*range(11), 255}  # building and road are everywhere
    # Roads lie below the sky: rows are not upside down, and 0 and 3 are what the names say.
    rows = torch.arange(360.0)[:, None].expand(360, 480)
    assert rows[sample["target"] == 3].mean() > rows[sample["target"] == 1].mean()
