"""Image files of every kind as pixels, damaged ones by name, and none left out in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pixelnet_triton.data import BSDS500, CamVid, LabelledFolder, NYUDepth, NYUNormals
from pixelnet_triton.data.decoding import IMAGE_SUFFIXES, read_rgb
from tests.data_files import random_image, small_bsds, small_camvid, small_nyu, write_image

SIXTEEN = np.linspace(0, 65535, 48).round().astype(np.uint16).reshape(6, 8)


def own_images(folder: Path, *names: str) -> Path:
    """A labelled folder of one split, with a label image for each image."""
    for name in names:
        write_image(folder / "images" / "train" / name, random_image(6, 8))
        labels = np.zeros((6, 8), np.uint8)
        write_image(folder / "labels" / "train" / f"{Path(name).stem}.png", labels)
    (folder / "classes.txt").write_text("ground\n")
    return folder


class TestPixels:
    @pytest.mark.parametrize(
        ("pixels", "name", "mode"),
        [
            (SIXTEEN, "a.png", "I;16"),
            (SIXTEEN.astype(">u2"), "a.tif", "I;16B"),
            (SIXTEEN.astype(np.int32), "a.tif", "I"),
        ],
        ids=["png", "big-endian", "int32"],
    )
    def test_16_bits_are_scaled(
        self, pixels: np.ndarray, name: str, mode: str, tmp_path: Path
    ) -> None:
        path = write_image(tmp_path / name, pixels)
        with Image.open(path) as image:
            assert image.mode == mode
        scaled = read_rgb(path)
        assert scaled.dtype == torch.uint8
        expected = np.rint(SIXTEEN / 257.0)[..., None].repeat(3, axis=2)
        np.testing.assert_array_equal(scaled.numpy(), expected)

    @pytest.mark.parametrize(
        "pixels", [SIXTEEN.astype(np.float32), SIXTEEN.astype(np.int32) - 1], ids=["F", "I"]
    )
    def test_other_numbers_are_refused(self, pixels: np.ndarray, tmp_path: Path) -> None:
        path = write_image(tmp_path / "a.tif", pixels)
        with pytest.raises(ValueError, match=r"a\.tif is an image of mode [FI] .*save it with 8"):
            read_rgb(path)

    def test_8_bits_in_32_are_not_dark_unnoticed(self, tmp_path: Path) -> None:
        path = write_image(tmp_path / "a.tif", np.full((4, 4), 200, np.int32))
        with pytest.warns(UserWarning, match=r"a\.tif has integers of 32 bits up to 200, .*8 bits"):
            read_rgb(path)

    @pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
    def test_turned_as_exif_says(self, orientation: int, turns: int, tmp_path: Path) -> None:
        pixels = np.zeros((16, 24, 3), np.uint8)
        pixels[:8] = 255
        image = Image.fromarray(pixels)
        exif = image.getexif()
        exif[0x0112] = orientation
        image.save(tmp_path / "a.jpg", exif=exif, quality=100)
        upright = read_rgb(tmp_path / "a.jpg").numpy() > 128
        np.testing.assert_array_equal(upright, np.rot90(pixels, turns) > 0)


class TestDamage:
    """The error of a decoder names no file, and is of any type."""

    @pytest.mark.parametrize("kept", [0, 100, 400])
    @pytest.mark.parametrize("part", ["images", "labels"])
    def test_image_files(self, part: str, kept: int, tmp_path: Path) -> None:
        root = small_camvid(tmp_path)
        path = root / part / "val" / "0001TP_1.png"
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(OSError, match=rf"{part}/val/0001TP_1\.png cannot be read: .*again"):
            CamVid(root, "val")[1]

    @pytest.mark.parametrize("kept", [0, 150, 300])
    def test_mat_files(self, kept: int, tmp_path: Path) -> None:
        data = BSDS500(small_bsds(tmp_path), "val")
        path = data.entries[0].target
        path.write_bytes(path.read_bytes()[:kept])
        for read in (data.__getitem__, data.annotations):
            with pytest.raises(OSError, match=r"val/1\.mat cannot be read: .*download it again"):
                read(0)

    def test_arrays(self, tmp_path: Path) -> None:
        data = NYUDepth(small_nyu(tmp_path), "train")
        data.entries[0].target.write_bytes(b"no array")
        with pytest.raises(OSError, match=r"train/0\.npy cannot be read: .*download it again"):
            data[0]

    def test_a_file_that_is_gone_keeps_its_error(self, tmp_path: Path) -> None:
        data = CamVid(small_camvid(tmp_path), "val")
        data.entries[0].image.unlink()
        with pytest.raises(FileNotFoundError, match=r"No such file.*val/0001TP_0\.png"):
            data[0]


class TestNothingIsLeftOut:
    def test_every_suffix_is_read(self, tmp_path: Path) -> None:
        names = [f"{suffix[1:]}{suffix}" for suffix in IMAGE_SUFFIXES] + ["upper.TIF"]
        data = LabelledFolder(own_images(tmp_path, *names))
        assert {"bmp", "tif", "tiff", "webp", "png", "jpg", "jpeg", "upper"} == set(data.names)
        assert all(sample["image"].shape == (3, 6, 8) for sample in data)

    def test_a_label_without_image_is_named(self, tmp_path: Path) -> None:
        root = own_images(tmp_path, "a.png", "b.gif")
        with pytest.raises(
            FileNotFoundError, match=r"1 of 2 ground truths have no image, .*train/b\.png; expected"
        ):
            LabelledFolder(root)

    @pytest.mark.parametrize("data_set", [CamVid, BSDS500, NYUNormals])
    def test_so_in_public_sets(self, data_set: type, tmp_path: Path) -> None:
        make = {CamVid: small_camvid, BSDS500: small_bsds, NYUNormals: small_nyu}[data_set]
        data = data_set(make(tmp_path), "train")
        write_image(data.entries[0].image.with_name("other.png"), random_image(6, 8))
        with pytest.raises(FileNotFoundError, match=r"images have no ground truth, .* 'other'"):
            data_set(tmp_path, "train")
        data.entries[0].image.with_name("other.png").unlink()
        data.entries[0].image.unlink()
        with pytest.raises(FileNotFoundError, match=r"ground truths have no image, the first is"):
            data_set(tmp_path, "train")

    def test_two_files_of_one_name(self, tmp_path: Path) -> None:
        root = own_images(tmp_path, "a.png", "a.jpg")
        with pytest.raises(ValueError, match=r"images/train holds a\.jpg and a\.png; expected one"):
            LabelledFolder(root)
