"""BSDS500: consensus, annotators' own maps, HED's rotations; the real files where they are."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from pixelnet_triton.data import BSDS500, CamVid, RandomCrop, RotatedBSDS500, collate
from pixelnet_triton.data.bsds import inscribed_rectangle
from tests.data_files import random_image, real_data, write_image

HEIGHT, WIDTH = 20, 30
SIZES = {"train": 2, "val": 1, "test": 2}


def drawn(people: int, seed: int) -> list[np.ndarray]:
    """Person k draws the first k + 1 columns, so column c has people - c votes."""
    maps = [np.zeros((HEIGHT, WIDTH), np.uint8) for _ in range(people)]
    for k, edges in enumerate(maps):
        edges[:, : k + 1] = 1
    maps[0][seed % HEIGHT, WIDTH - 1] = 1
    return maps


def write_truth(path: Path, maps: list[np.ndarray], *, column: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = np.empty((1, len(maps)), dtype=object)
    for i, edges in enumerate(maps):
        cells[0, i] = {"Segmentation": edges.astype(np.uint16) + 1, "Boundaries": edges}
    savemat(path, {"groundTruth": cells.T if column else cells})


@pytest.fixture(params=["", "data", "BSDS500/data", "BSR/BSDS500/data"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    for split, count in SIZES.items():
        for i in range(count):
            above, name = tmp_path / request.param, f"{split}{i}"
            write_image(above / "images" / split / f"{name}.jpg", random_image(HEIGHT, WIDTH, i))
            write_truth(above / "groundTruth" / split / f"{name}.mat", drawn(4 + i, i))
    (tmp_path / request.param / "images" / "train" / "Thumbs.db").write_bytes(b"as in the archive")
    return tmp_path


def test_target_is_the_consensus(root: Path) -> None:
    data = BSDS500(root, "train")
    assert data.names == ["train0", "train1"]
    sample = data[1]  # five people: columns 0 to 4 have 5, 4, 3, 2, 1 votes
    target = sample["target"]
    assert sample["kind"] == "edges"
    assert target.dtype == torch.int64
    assert target[5].tolist() == [1, 1, 1, 255, 255] + [0] * (WIDTH - 5)
    assert target[1].tolist() == [1, 1, 1, 255, 255] + [0] * (WIDTH - 6) + [255]
    strict = BSDS500(root, "train", min_annotators=5)[1]["target"]
    assert strict[5].tolist() == [1] + [255] * 4 + [0] * (WIDTH - 5)
    anyone = BSDS500(root, "train", min_annotators=1)[1]["target"]
    assert set(anyone.unique().tolist()) == {0, 1}
    assert (anyone[5] == 1).sum() == 5


def test_annotations_are_each_persons_own(root: Path) -> None:
    maps = BSDS500(root, "test").annotations(1)
    assert len(maps) == 5
    for actual, expected in zip(maps, drawn(5, 1), strict=True):
        assert actual.dtype == torch.bool
        assert torch.equal(actual, torch.from_numpy(expected).bool())


def test_a_column_of_annotators_is_read_whole(root: Path) -> None:
    data = BSDS500(root, "test")
    before = data[1]["target"]
    write_truth(data.entries[1].target, drawn(5, 1), column=True)
    assert len(data.annotations(1)) == 5
    assert torch.equal(data[1]["target"], before)
    with pytest.raises(IndexError, match="index 5 is out of range: there are 2 images"):
        data.annotations(5)


def test_trainval_is_both(root: Path) -> None:
    assert BSDS500(root, "trainval").names == ["train0", "train1", "val0"]


def test_says_what_is_missing(root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"groundTruth/test.*Berkeley"):
        BSDS500(tmp_path / "elsewhere", "test")
    with pytest.raises(ValueError, match="min_annotators=0; expected at least 1"):
        BSDS500(root, "test", min_annotators=0)
    data = BSDS500(root, "test")
    savemat(data.entries[0].target, {"other": np.zeros(3)})
    with pytest.raises(ValueError, match="no variable 'groundTruth'"):
        data[0]


def test_rotations_are_16_angles_and_their_mirror_images(root: Path) -> None:
    data = BSDS500(root, "trainval")
    rotated = RotatedBSDS500(data)
    assert len(rotated) == 3 * 32
    names = [rotated[i]["name"] for i in range(32, 64)]
    assert names[:3] == ["train1_0_0", "train1_0_1", "train1_22.5_0"]
    assert names[-1] == "train1_337.5_1"
    assert len(set(names)) == 32
    sample = data[1]
    for quarter in range(4):
        turned, mirrored = (rotated[32 + 8 * quarter + flip] for flip in (0, 1))
        for key in ("image", "target"):
            assert torch.equal(turned[key], torch.rot90(sample[key], quarter, dims=(-2, -1)))
            assert torch.equal(mirrored[key], turned[key].flip(-1))


def test_rotation_moves_a_blob_where_it_should(root: Path) -> None:
    """A dot at angle phi from the centre stands at phi + 22.5 k degrees, in image and in target."""
    image = np.zeros((HEIGHT * 4, WIDTH * 4, 3), np.uint8)
    y, x = np.mgrid[: HEIGHT * 4, : WIDTH * 4]
    centre_y, centre_x = (HEIGHT * 4 - 1) / 2, (WIDTH * 4 - 1) / 2
    image[np.hypot(x - centre_x - 9, y - centre_y) <= 2.5] = 255  # to the right: phi = 0
    dot = (image[..., 0] > 0).astype(np.uint8)
    data = BSDS500(root, "val")
    write_image(data.entries[0].image.with_suffix(".png"), image)
    write_truth(data.entries[0].target, [dot] * 3)
    data.entries[0] = data.entries[0]._replace(image=data.entries[0].image.with_suffix(".png"))
    rotated = RotatedBSDS500(data)
    for k in range(16):
        sample = rotated[2 * k]
        for weight in (sample["image"][0], sample["target"].float()):
            height, width = weight.shape
            rows, columns = torch.meshgrid(
                torch.arange(height) - (height - 1) / 2,
                torch.arange(width) - (width - 1) / 2,
                indexing="ij",
            )
            at_x = float((weight * columns).sum() / weight.sum())
            at_y = float((weight * rows).sum() / weight.sum())
            angle = math.radians(22.5 * k)
            assert math.isclose(at_x, 9 * math.cos(angle), abs_tol=0.3), k
            assert math.isclose(at_y, -9 * math.sin(angle), abs_tol=0.3), k  # y points down


def test_rotated_crops_hold_no_outside() -> None:
    """A picture of ones stays ones: nothing from beyond its border is cut out."""
    for height, width in ((321, 481), (481, 321), (100, 400), (50, 50)):
        for degrees in (5, 22.5, 45, 67.5, 88):
            h, w = inscribed_rectangle(height, width, math.radians(degrees))
            sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
            # The rectangle's corners, turned back, lie inside of the picture, and it is not small.
            assert w * cosine + h * sine <= width + 1e-6
            assert w * sine + h * cosine <= height + 1e-6
            grown = 1.03
            assert (
                grown * (w + 1) * cosine + grown * (h + 1) * sine > width
                or grown * (w + 1) * sine + grown * (h + 1) * cosine > height
            )


def test_rotations_take_a_transform_and_batch(root: Path) -> None:
    rotated = RotatedBSDS500(BSDS500(root, "train"), RandomCrop((16, 16)))
    batch = collate([rotated[i] for i in range(8)])
    assert batch["image"].shape == (8, 3, 16, 16)
    assert batch["target"].shape == (8, 16, 16)
    ragged = RotatedBSDS500(BSDS500(root, "train"))
    batch = collate([ragged[i] for i in range(16)])
    assert batch["target"].shape == (16, 30, 30)
    with pytest.raises(IndexError, match="there are 64 images"):
        ragged[64]


def test_rotation_refuses_vectors(root: Path) -> None:
    data = BSDS500(root, "train")
    data.kind = "normals"
    with pytest.raises(ValueError, match="vectors would have to be turned"):
        RotatedBSDS500(data)
    assert CamVid.kind == "labels"


def test_real_files() -> None:
    root = real_data("bsds500")
    assert [len(BSDS500(root, split)) for split in ("train", "val", "test")] == [200, 100, 200]
    data = BSDS500(root, "trainval")
    assert len(RotatedBSDS500(data)) == 9600  # section 4.3
    for index in (0, 150, 299):
        sample, maps = data[index], data.annotations(index)
        assert sorted(sample["image"].shape) == [3, 321, 481]
        assert 4 <= len(maps) <= 9
        votes = torch.stack(maps).sum(0)
        assert torch.equal(sample["target"] == 1, votes >= 3)
        assert torch.equal(sample["target"] == 0, votes == 0)
        assert 0.001 < (votes >= 3).float().mean() < 0.1
