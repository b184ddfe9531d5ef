"""One's own labelled images: their classes from a file, and the commands on them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from pixelnet_triton.data import LabelledFolder
from pixelnet_triton.data.decoding import read_indices
from pixelnet_triton.recipes import TaskCard, View, find
from tests.data_files import random_image, write_image, write_lines

LABELS = np.array([[0, 1, 255, 2]] * 3, np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        write_image(tmp_path / "images" / split / "a.jpg", random_image(3, 4))
        write_image(tmp_path / "labels" / split / "a.png", LABELS)
    write_lines(tmp_path / "classes.txt", ["soil 1 2 3", "leaf 0 255 0", "stem 9 9 9"])
    return tmp_path


def test_classes_and_labels(root: Path) -> None:
    data = LabelledFolder(root, "train")
    assert data.CLASSES == ("soil", "leaf", "stem")
    assert data.PALETTE == ((1, 2, 3), (0, 255, 0), (9, 9, 9))
    assert torch.equal(data[0]["target"], torch.from_numpy(LABELS).long())
    write_lines(root / "classes.txt", ["soil 1 2 3", "leaf", "stem"])
    assert LabelledFolder(root, "val").PALETTE == ()


def test_editors_marks_and_empty_lines_are_no_classes(root: Path) -> None:
    (root / "classes.txt").write_bytes("\ufeffsoil\r\n\r\nleaf\r\nstem\r\n\r\n".encode())
    assert LabelledFolder(root, "train").CLASSES == ("soil", "leaf", "stem")


def test_commands_know_the_folder_by_its_classes(root: Path) -> None:
    """CamVid's layout would fit too, but for that file."""
    row, folder = find("segmentation", str(root))
    assert (row.name, folder) == ("own", root)
    card = TaskCard.of("segmentation", "own", View(), row.read(folder, "test"))
    assert (card.classes, card.palette[1]) == (("soil", "leaf", "stem"), (0, 255, 0))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("grey", [True, False], ids=["grey", "palette"])
def test_indices_of_few_bits_are_not_stretched(bits: int, grey: bool, root: Path) -> None:
    """Pillow reads grey of 2 bits as 0, 85, 170 and 255: the last class would be ignored."""
    labels = np.array([[0, 1, 2, 3]] * 3, np.uint8)
    path = root / "labels" / "train" / "a.png"
    _write_png(path, labels, bits, grey)
    if grey and bits < 8:
        with pytest.raises(ValueError, match=rf"is a grey image of {bits} bits, .*with 8 bits, or"):
            read_indices(path)
    else:
        assert torch.equal(read_indices(path), torch.from_numpy(labels))


def _write_png(path: Path, indices: np.ndarray, bits: int, grey: bool) -> None:
    """Pillow writes no grey image of few bits."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    height, width = indices.shape
    spread = np.unpackbits(indices[..., None], axis=2)[..., 8 - bits :]
    rows = np.packbits(spread.reshape(height, -1), axis=1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    palette = b"" if grey else chunk(b"PLTE", bytes(range(12)))
    header = struct.pack(">IIBBBBB", width, height, bits, 0 if grey else 3, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + palette
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def test_says_what_is_wrong(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"images/test and labels/test and classes\.txt"):
        LabelledFolder(root, "test")
    for line in ("leaf 1 2", "leaf 1 2 256", "leaf red 2 3"):
        write_lines(root / "classes.txt", ["soil", line])
        with pytest.raises(ValueError, match=rf"has the line '{line}'; expected NAME, or NAME R"):
            LabelledFolder(root, "train")
    write_lines(root / "classes.txt", ["soil", "leaf"])
    with pytest.raises(ValueError, match=r"holds the value 2, but classes\.txt has 2 classes"):
        LabelledFolder(root, "train")[0]
    write_lines(root / "classes.txt", ["soil", "leaf", "soil"])
    with pytest.raises(ValueError, match=r"classes\.txt has the class 'soil' 2 times; expected a"):
        LabelledFolder(root, "train")
    write_lines(root / "classes.txt", [])
    with pytest.raises(ValueError, match="lists 0 classes; expected 1 to 255"):
        LabelledFolder(root, "train")
