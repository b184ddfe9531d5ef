"""NYUv2: normals and depths in folders, and as they were released."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.io import savemat

from pixelnet_triton.data import NYUDepth, NYUNormals, RandomHorizontalFlip
from tests.data_files import random_image, write_image

HEIGHT, WIDTH = 6, 8


def vectors(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed).standard_normal((HEIGHT, WIDTH, 3))
    return (random / np.linalg.norm(random, axis=2, keepdims=True)).astype(np.float32)


def as_png(normals: np.ndarray) -> np.ndarray:
    return ((normals + 1) / 2 * 255).round().astype(np.uint8)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for split, names in (("train", ["a", "b"]), ("test", ["c"])):
        for folder in ("normals", "depths"):
            (tmp_path / folder / split).mkdir(parents=True)
        for i, name in enumerate(names):
            write_image(tmp_path / "images" / split / f"{name}.jpg", random_image(HEIGHT, WIDTH))
            if name == "a":
                normals = vectors(i)
                normals[0, :3] = [[0, 0, 0], [np.nan, 0, 1], [0.1, 0.2, 0.1]]
                np.save(tmp_path / "normals" / split / "a.npy", normals)
                metres = np.linspace(1, 5, HEIGHT * WIDTH, dtype=np.float64).reshape(HEIGHT, WIDTH)
                metres[0, :3] = [0, np.inf, np.nan]
                np.save(tmp_path / "depths" / split / "a.npy", metres)
            else:
                write_image(tmp_path / "normals" / split / f"{name}.png", as_png(vectors(i)))
                millimetres = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH)
                write_image(tmp_path / "depths" / split / f"{name}.png", millimetres * 200)
    return tmp_path


def test_normals_in_folders(folders: Path) -> None:
    data = NYUNormals(folders, "train")
    assert data.names == ["a", "b"]
    exact, rounded = data[0]["target"], data[1]["target"]
    assert exact.shape == (3, HEIGHT, WIDTH)
    assert exact.dtype == torch.float32
    assert (exact[:, 0, :3] == 0).all()
    assert torch.allclose(exact[:, 1:], torch.from_numpy(vectors(0)).permute(2, 0, 1)[:, 1:])
    truth = torch.from_numpy(vectors(1)).permute(2, 0, 1)
    assert torch.allclose(rounded.norm(dim=0), torch.ones(HEIGHT, WIDTH))
    assert F.cosine_similarity(rounded, truth, dim=0).min() > 0.9999  # half of 1/255 is 0.2 degrees
    assert data[0]["kind"] == "normals"


def test_depths_in_folders(folders: Path) -> None:
    data = NYUDepth(folders, "train")
    metres, millimetres = data[0]["target"], data[1]["target"]
    assert metres.dtype == torch.float32
    assert metres[0, :3].tolist() == [0, 0, 0]
    assert metres[-1, -1] == 5
    assert torch.allclose(millimetres.flatten(), torch.arange(HEIGHT * WIDTH) * 0.2)
    assert data[0]["kind"] == "depth"


def test_masks_make_pixels_unknown(folders: Path) -> None:
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    mask[2] = 0
    write_image(folders / "masks" / "train" / "a.png", mask)
    with pytest.raises(FileNotFoundError, match="no mask for the image 'b'; expected one for each"):
        NYUNormals(folders, "train")
    write_image(folders / "masks" / "train" / "b.png", mask)
    for sample in (NYUNormals(folders, "train")[1], NYUDepth(folders, "train")[1]):
        assert (sample["target"][..., 2, :] == 0).all()
        assert (sample["target"][..., 3, :] != 0).all()
    assert (NYUNormals(folders, "test")[0]["target"].norm(dim=0) > 0.9).all()


def test_a_mask_of_another_size_is_refused(folders: Path) -> None:
    """One row, or one column, would be broadcast."""
    for size in ((HEIGHT - 1, WIDTH), (1, WIDTH)):
        for name in "ab":
            mask = np.full(size, 255, np.uint8)
            write_image(folders / "masks" / "train" / f"{name}.png", mask)
        for data in (NYUDepth(folders, "train"), NYUNormals(folders, "train")):
            with pytest.raises(
                ValueError, match=r"a\.png has \(height, width\) \(\d, 8\) but .* \(6, 8"
            ):
                data[0]


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.float16, np.float32])
def test_arrays_are_metres_whatever_their_type(folders: Path, dtype: type) -> None:
    np.save(folders / "depths" / "train" / "a.npy", np.full((HEIGHT, WIDTH), 2, dtype))
    assert (NYUDepth(folders, "train")[0]["target"] == 2).all()


def test_normals_of_half_precision_are_unit_in_float32(folders: Path) -> None:
    for length in (1, 300):  # 300^2 is beyond float16
        np.save(folders / "normals" / "train" / "a.npy", (length * vectors(0)).astype(np.float16))
        norm = NYUNormals(folders, "train")[0]["target"].norm(dim=0)
        assert (norm - 1).abs().max() < 1e-6


def test_mirrored_twice_is_the_same(folders: Path) -> None:
    flip = RandomHorizontalFlip(1.0)
    sample = NYUNormals(folders, "test")[0]
    assert torch.equal(flip(flip(sample))["target"], sample["target"])
    assert torch.equal(flip(sample)["target"][0], -sample["target"][0].flip(-1))


def test_says_what_is_missing(folders: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nyu_normals_gt/test; or images/test.*Ladicky"):
        NYUNormals(folders / "nowhere", "test")
    with pytest.raises(ValueError, match=r"split='val' is unknown; use one of \('train', 'test'\)"):
        NYUDepth(folders, "val")
    np.save(folders / "normals" / "train" / "a.npy", np.zeros((3, HEIGHT, WIDTH)))
    with pytest.raises(ValueError, match=r"shape \(3, 6, 8\); expected \(H, W, 3\)"):
        NYUNormals(folders, "train")[0]
    (folders / "depths" / "train" / "a.npy").unlink()
    write_image(folders / "depths" / "train" / "a.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    with pytest.raises(ValueError, match=r"type uint8; expected .*16 bits in millimetres"):
        NYUDepth(folders, "train")[0]


@pytest.fixture
def released(tmp_path: Path) -> Path:
    h5py = pytest.importorskip("h5py")
    count = 4
    images = np.stack([random_image(HEIGHT, WIDTH, i) for i in range(count)])
    depth = np.random.default_rng(0).uniform(1, 9, (count, HEIGHT, WIDTH)).astype(np.float32)
    raw = depth.copy()
    raw[:, 1, 2] = 0
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = images.transpose(0, 3, 2, 1)  # MATLAB's (H, W, 3, N), reversed
        file["depths"] = depth.transpose(0, 2, 1)
        file["rawDepths"] = raw.transpose(0, 2, 1)
    numbers = {"train": [2, 4], "test": [1, 3]}
    savemat(
        tmp_path / "splits.mat",
        {f"{split}Ndxs": np.array(n, np.uint16)[:, None] for split, n in numbers.items()},
    )
    for split, of_split in numbers.items():
        for n in of_split:
            path = tmp_path / "nyu_normals_gt" / split / f"{n:05d}.png"
            write_image(path, as_png(vectors(n)))
    np.save(tmp_path / "depth.npy", depth)
    return tmp_path


def test_as_released(released: Path) -> None:
    data = NYUNormals(released, "train")
    assert data.names == ["00002", "00004"]
    sample = data[1]  # number 4, the fourth of the file
    image = torch.from_numpy(random_image(HEIGHT, WIDTH, 3)).permute(2, 0, 1) / 255
    assert torch.equal(sample["image"], image)
    assert (sample["target"][:, 1, 2] == 0).all()
    truth = torch.from_numpy(vectors(4)).permute(2, 0, 1)
    cosine = F.cosine_similarity(sample["target"], truth, dim=0)
    assert (cosine > 0.9999).sum() == HEIGHT * WIDTH - 1
    depth = NYUDepth(released, "test")[1]["target"]
    expected = torch.from_numpy(np.load(released / "depth.npy")[2])
    expected[1, 2] = 0
    assert torch.equal(depth, expected)


def test_released_set_without_h5py(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "h5py", None)
    (folders / "nyu_depth_v2_labeled.mat").touch()
    savemat(folders / "splits.mat", {"trainNdxs": np.array([[1]])})
    with pytest.raises(ImportError, match=r"labeled\.mat needs h5py; install it with: pip install"):
        NYUDepth(folders, "train")[0]
    with pytest.raises(ValueError, match="has no variable 'testNdxs'"):
        NYUDepth(folders, "test")
