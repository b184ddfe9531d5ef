"""Small data sets in the public layouts, and the folder with real ones where there is one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

__all__ = ["random_image", "real_data", "write_image", "write_lines"]


def real_data(name: str) -> Path:
    """The folder of a real data set, below PIXELNET_DATA or next to the checkout; or skip."""
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
