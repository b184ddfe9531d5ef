"""Files of images, class indices and MATLAB's arrays, as tensors; and errors that name the file."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "IMAGE_SUFFIXES",
    "decoded",
    "decoding",
    "needed",
    "pillow_image",
    "read_indices",
    "read_mat",
    "read_rgb",
]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def read_rgb(path: Path) -> Tensor:
    """uint8 ``(H, W, 3)``. Of 16-bit grey v, each channel is v / 257, rounded.

    Raises:
        OSError: the file cannot be decoded.
        ValueError: it holds floats, or integers beyond 16 bits.
    """
    image = decoded(path)
    if not image.mode.startswith(("I", "F")):
        return torch.from_numpy(np.array(image.convert("RGB")))
    grey = np.array(image)  # Pillow's own conversion would clip it, 16 bits to nearly all white
    if image.mode == "F" or grey.min() < 0 or grey.max() > 65535:
        raise ValueError(
            f"{path} is an image of mode {image.mode} with values from {grey.min()} to "
            f"{grey.max()}; expected 8 bits a channel, or 16 bits of grey. Scale its values to "
            "[0, 255], and save it with 8 bits"
        )
    if image.mode == "I" and 0 < grey.max() <= 255:
        warnings.warn(
            f"{path} has integers of 32 bits up to {grey.max()}, which are read as 16 bits, white "
            "being 65535: nearly black. Save it with 8 bits where 255 is white",
            stacklevel=2,
        )
    grey = ((grey.astype(np.int64) + 128) // 257).astype(np.uint8)
    return torch.from_numpy(grey)[..., None].repeat(1, 1, 3)


def read_indices(path: Path) -> Tensor:
    """uint8 ``(H, W)`` of an 8-bit image of class indices, with or without a palette."""
    image = decoded(path)
    if image.mode not in ("L", "P"):
        raise ValueError(
            f"{path} is an image of mode {image.mode}; expected one 8-bit channel of class "
            "indices (mode L or P). A coloured label image has to be converted to indices"
        )
    if (bits := _grey_bits(path)) < 8:
        raise ValueError(
            f"{path} is a grey image of {bits} bits, whose values would be stretched to 255; "
            "expected class indices in 8 bits. Save it with 8 bits, or with a palette"
        )
    return torch.from_numpy(np.array(image))


def _grey_bits(path: Path) -> int:
    """Of a pixel of a grey image in the file: Pillow stretches 2 and 4 bits to 8."""
    with decoding(path), pillow_image().open(path) as image:
        raw = image.tile[0][3] if image.tile else ""
    raw = raw if isinstance(raw, str) else str(raw[0]) if raw else ""
    return int(raw[2]) if raw[:2] == "L;" and raw[2:3] in ("2", "4") else 8


def decoded(path: Path) -> Any:
    """The Pillow image in a file, turned upright as its EXIF data say: as every viewer shows it."""
    pillow, ops = pillow_image(), pillow_image("PIL.ImageOps")
    with decoding(path), pillow.open(path) as image:
        return ops.exif_transpose(image)


def read_mat(path: Path, variable: str, source: str) -> np.ndarray:
    """A variable of a .mat file.

    Raises:
        OSError: the file cannot be decoded.
        ValueError: it has no such variable.
    """
    scipy_io = needed("scipy.io", "reading .mat files", "SciPy", "pixelnet-triton[data]")
    with decoding(path):
        content = scipy_io.loadmat(path, variable_names=[variable])
    if variable not in content:
        raise ValueError(f"{path} has no variable {variable!r}. {source}")
    values: np.ndarray = content[variable]
    return values


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Whatever a decoder raises becomes an `OSError` that names the file."""
    try:
        yield
    except Exception as error:  # decoders raise all kinds
        if isinstance(error, MemoryError) or getattr(error, "filename", None):
            raise  # not the file's fault, or named already: it is missing, or may not be read
        raise OSError(
            f"{path} cannot be read: {error}; it is damaged, or not what its name says. Copy or "
            "download it again, or take it and its partner out of the data set"
        ) from error


def pillow_image(module: str = "PIL.Image") -> Any:
    """The module ``PIL.Image``, or another of Pillow's."""
    return needed(module, "reading images", "pillow", "pixelnet-triton[data]")


def needed(module: str, purpose: str, package: str, requirement: str) -> Any:
    """Import `module`, or say what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs {package}; install it with: pip install '{requirement}'"
        ) from error
