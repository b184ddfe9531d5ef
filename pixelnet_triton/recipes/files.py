"""Predictions as files: in the form in which each data set's own evaluation reads them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from torch import Tensor

from ..data.decoding import needed, pillow_image
from ..data.voc import voc_palette
from .card import TaskCard
from .pictures import Picture

__all__ = ["official_folder", "official_suffix", "write_official", "write_picture"]

_CONTEXT = {"context59": 59, "context33": 33}


def official_folder(card: TaskCard, split: str) -> Path:
    """Where the predictions of a split lie, below the folder of results.

    =======================  ==================================================================
    VOC 2012                 ``results/VOC2012/Segmentation/comp6_SPLIT_cls/NAME.png``: what the
                             evaluation server takes; comp6 is for training with other images, as
                             ImageNet's, too. Class indices under VOC's palette
    PASCAL-Context           ``results/PASCAL-Context/N/SPLIT/NAME.png``: indices 1 to N, numbered
                             as in ``N_context_labels``
    BSDS500                  ``results/BSDS500/SPLIT/NAME.png``: thin edges, 8 bits, 255 = certain
    NYUv2, rooms: normals    ``results/NYUv2/normals/SPLIT/NAME.mat``: ``normals``, float32
                             ``(H, W, 3)``, unit vectors
    NYUv2, rooms: depth      ``results/NYUv2/depth/SPLIT/NAME.mat``: ``depth``, float32 ``(H, W)``
                             in metres
    others                   ``results/DATA/SPLIT/NAME.png``: class indices under the palette
    =======================  ==================================================================

    Raises:
        ValueError: the split is no plain word, and would lead to another folder.

    Example:
        >>> from pixelnet_triton.recipes import TaskCard
        >>> official_folder(TaskCard("segmentation", "voc2012"), "test").as_posix()
        'results/VOC2012/Segmentation/comp6_test_cls'
    """
    if not re.fullmatch(r"\w[\w.-]*", split):
        raise ValueError(
            f"split={split!r} (--official, --split) names a folder of results; expected one word, "
            "such as 'test', of letters, digits, '_', '-' and '.'"
        )
    match card.data:
        case "voc2012" | "voc2012-aug":
            part = f"VOC2012/Segmentation/comp6_{split}_cls"
        case "context59" | "context33":
            part = f"PASCAL-Context/{_CONTEXT[card.data]}/{split}"
        case "bsds500":
            part = f"BSDS500/{split}"
        case "nyu":
            part = f"NYUv2/{card.name}/{split}"
        case _:
            kind = "" if card.name in ("segmentation", "edges") else f"{card.name}/"
            part = f"{card.data}/{kind}{split}"
    return Path("results") / part


def write_official(folder: Path, card: TaskCard, name: str, output: Tensor) -> Path:
    """Write one prediction to `folder`, as :func:`official_folder` says for the data set.

    Args:
        folder: made if it is missing.
        card: the task.
        name: of the image, without suffix.
        output: ``(K, H, W)``, as :func:`~pixelnet_triton.recipes.predict_image` gives it; of edges
            ``(1, H, W)``, thinned before.

    Returns:
        the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}{official_suffix(card)}"
    if card.name == "segmentation":
        first = 1 if card.data in _CONTEXT else 0
        _write_indices(path, output.argmax(0) + first, card, first)
    elif card.name == "edges":
        write_picture(path, (output[0] * 255).round().clamp(0, 255).byte().numpy())
    else:
        scipy_io = needed("scipy.io", "writing .mat files", "SciPy", "pixelnet-triton[data]")
        values = output.permute(1, 2, 0).numpy() if card.name == "normals" else output[0].numpy()
        scipy_io.savemat(path, {card.name: values.astype(np.float32)}, do_compression=True)
    return path


def official_suffix(card: TaskCard) -> str:
    """Of the files that :func:`write_official` writes."""
    return ".png" if card.name in ("segmentation", "edges") else ".mat"


def write_picture(path: Path, pixels: Picture) -> None:
    """uint8 ``(H, W)`` or ``(H, W, 3)``; the suffix says the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pillow_image().fromarray(pixels).save(path)


def _write_indices(path: Path, indices: Tensor, card: TaskCard, first: int) -> None:
    """8-bit indices under a palette, VOC's where the classes have no colours."""
    image = pillow_image().fromarray(indices.byte().numpy())
    colours = list(voc_palette(range(256)))
    colours[first : first + len(card.palette)] = card.palette
    image.putpalette([value for colour in colours for value in colour])
    image.save(path)
