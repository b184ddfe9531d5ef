"""Small data sets in the public layouts, and the folder with real ones where there is one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

__all__ = [
    "random_image", "real_data", "small_bsds", "small_camvid", "small_context", "small_nyu",
    "small_voc", "write_image", "write_lines",
]  # fmt: skip


def real_data(name: str) -> Path:
    """The folder of a real data set, below PIXELNET_DATA or, without it, below ../shared/data.

    Seen from the checkout; a test is skipped where there is none.
    """
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("PIXELNET_DATA", beside)) / name
    if not folder.is_dir():
        pytest.skip(f"no real {name}: set PIXELNET_DATA to the folder that holds {name}/")
    return folder


def write_image(path: Path, pixels: np.ndarray, palette: Sequence[int] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette is not None:
        image.putpalette(list(palette))
    image.save(path)
    return path


def write_lines(path: Path, lines: Sequence[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def random_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def small_camvid(folder: Path) -> Path:
    """Two images a split, 36 x 48, of labels at random."""
    random = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for i in range(2):
            name = f"0001TP_{i}.png"
            write_image(folder / "images" / split / name, random_image(36, 48, i))
            labels = random.integers(12, size=(36, 48), dtype=np.uint8)
            write_image(folder / "labels" / split / name, labels)
    return folder


def small_bsds(folder: Path) -> Path:
    """One image a split, 64 x 96, in which three people drew the same line."""
    for split in ("train", "val", "test"):
        write_image(folder / "images" / split / "1.jpg", random_image(64, 96))
        edges = np.zeros((64, 96), bool)
        edges[32] = True
        person = {"Segmentation": edges.astype(np.uint16), "Boundaries": edges}
        people = np.empty((1, 3), object)
        people[0, :] = [person] * 3
        (folder / "groundTruth" / split).mkdir(parents=True)
        savemat(folder / "groundTruth" / split / "1.mat", {"groundTruth": people})
    return folder


def small_voc(folder: Path) -> Path:
    """Two images a split, 64 x 96, in the layout of VOC 2012."""
    random, names = np.random.default_rng(0), [f"2007_00000{i}" for i in range(4)]
    for i, name in enumerate(names):
        write_image(folder / "JPEGImages" / f"{name}.jpg", random_image(64, 96, i))
        labels = random.integers(21, size=(64, 96), dtype=np.uint8)
        labels[0] = 255
        write_image(folder / "SegmentationClass" / f"{name}.png", labels)
    lists = folder / "ImageSets" / "Segmentation"
    write_lines(lists / "train.txt", names[:2])
    write_lines(lists / "val.txt", names[2:])
    return folder


def small_context(folder: Path, classes: int = 33) -> Path:
    """Two images a split, 64 x 96, in the layout of PASCAL-Context with merged labels."""
    random, names = np.random.default_rng(0), [f"2008_00000{i}" for i in range(4)]
    for i, name in enumerate(names):
        write_image(folder / "JPEGImages" / f"{name}.jpg", random_image(64, 96, i))
        labels = random.integers(classes + 1, size=(64, 96), dtype=np.uint8)
        write_image(folder / f"{classes}_context_labels" / f"{name}.png", labels)
    write_lines(folder / f"{classes}_labels.txt", [f"{i + 1}: c{i}" for i in range(classes)])
    write_lines(folder / "ImageSets" / "Main" / "train.txt", names[:2])
    write_lines(folder / "ImageSets" / "Main" / "val.txt", names[2:])
    return folder


def small_nyu(folder: Path) -> Path:
    """Two images a split, 48 x 64, with normals and depths, in folders."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for i in range(2):
            write_image(folder / "images" / split / f"{i}.png", random_image(48, 64, i))
            normals = random.standard_normal((48, 64, 3)).astype(np.float32)
            normals /= np.linalg.norm(normals, axis=2, keepdims=True)
            depths = random.uniform(1, 5, (48, 64)).astype(np.float32)
            for kind, values in (("normals", normals), ("depths", depths)):
                path = folder / kind / split / f"{i}.npy"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, values)
    return folder
