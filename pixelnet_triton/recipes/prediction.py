"""Images in, files out: predictions, overlays, edges, normals and depths of one's own pictures."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from ..data.decoding import IMAGE_SUFFIXES, read_rgb
from ..data.folders import files_by_stem, without_suffix
from ..metrics import edge_nms
from ..models import PixelNet
from ..tools.progress import progress_bar
from .card import TaskCard
from .files import official_folder, official_suffix, write_official, write_picture
from .pictures import overlay, picture
from .view import naming, predict_image

__all__ = ["find_images", "predict_files"]

# Of the files of an image, by task.
_ENDINGS = {
    "segmentation": (".png", "_overlay.jpg"),
    "edges": (".png", "_thin.png", "_edges.jpg"),
    "normals": (".png",),
    "depth": (".png", "_depth.jpg"),
}


def find_images(
    paths: Iterable[str | os.PathLike[str]], names: str | os.PathLike[str] | None = None
) -> list[Path]:
    """Image files, and those in folders, in order.

    Args:
        paths: files and folders.
        names: a list of names, one a line, such as VOC's ``ImageSets/Segmentation/test.txt``; of
            the images in folders those are taken that it lists. A name may have a suffix, a folder
            in front, blanks and dots. None takes all.

    Raises:
        FileNotFoundError: a path is missing, or a name of the list, or there is no image.
        ValueError: two images of a folder differ in the suffix alone.
    """
    listed = None if names is None else _lines(Path(names))
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            if not path.is_file():
                raise FileNotFoundError(f"{path} is no file and no folder; expected images")
            found.append(path)
            continue
        files = files_by_stem(path, IMAGE_SUFFIXES)
        if listed is None:
            found += files.values()
            continue
        known = {**files, **{file.name: file for file in files.values()}}
        chosen = [(line, _named(line, known)) for line in listed]
        missing = [line for line, file in chosen if file is None]
        if missing:
            raise FileNotFoundError(
                f"{path} has no image {missing[0]!r}, which {names} lists ({len(missing)} of "
                f"{len(listed)} are missing)"
            )
        found += [file for _, file in chosen if file is not None]
    if not found:
        raise FileNotFoundError(f"no images: expected files, or folders of {IMAGE_SUFFIXES}")
    return found


def predict_files(
    model: PixelNet,
    card: TaskCard,
    images: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    official: str | None = None,
    progress: bool = True,
) -> list[Path]:
    """Predict image files, each at its own size, and write what came out to `out`.

    ============  ================================================================================
    segmentation  ``NAME.png``: class indices under the palette; ``NAME_overlay.jpg``
    edges         ``NAME.png``: 8 bits, 255 = certain; ``NAME_thin.png``: after non-maximum
                  suppression; ``NAME_edges.jpg``: dark on white
    normals       ``NAME.png``: (n + 1) / 2 in 8 bits
    depth         ``NAME.png``: millimetres in 16 bits; ``NAME_depth.jpg``: in colours
    ============  ================================================================================

    Args:
        model, card: of a checkpoint.
        images: files.
        out: a folder, made if it is missing.
        scales, flip: as for :func:`pixelnet_triton.inference.predict`.
        official: a split. Files are written for the data set's own evaluation instead, below `out`,
            as :func:`~pixelnet_triton.recipes.official_folder` says.
        progress: show a bar.

    Returns:
        the files written.

    Raises:
        OSError: an image cannot be read.
        ValueError: a file would be written in the place of an image, or of that of another image.
    """
    files, out = [Path(path) for path in images], Path(out)
    folder = out if official is None else out / official_folder(card, official)
    outputs = _outputs(files, folder, card, official is not None)
    with progress_bar(len(files), progress, unit="image", desc="prediction") as done:
        for path in files:
            image = read_rgb(path).permute(2, 0, 1).float() / 255
            with naming(path):
                output = predict_image(model, image, card.view, scales=scales, flip=flip)
            if official is None:
                _write(out, card, path.stem, image, output)
            else:
                if card.name == "edges":
                    output = edge_nms(output)
                write_official(folder, card, path.stem, output)
            done(1)
    return outputs


def _lines(names: Path) -> list[str]:
    lines = names.read_text(encoding="utf-8-sig").splitlines()  # editors may mark UTF-8
    return [line.strip() for line in lines if line.strip()]


def _named(line: str, files: dict[str, Path]) -> Path | None:
    """The file that a line of a list means; `files` by their names, with and without suffix."""
    # A list of VOC may have a second column: a class's label, or the path of the label image.
    first, *others = line.split()
    if others and (without_suffix(first) != Path(first).name or set(others) <= {"-1", "0", "1"}):
        return files.get(line, files.get(without_suffix(line), files.get(without_suffix(first))))
    return files.get(line, files.get(without_suffix(line)))


def _outputs(images: Sequence[Path], folder: Path, card: TaskCard, official: bool) -> list[Path]:
    """What will be written, all of it new: no file is an image, or the output of two images."""
    if official:
        endings: tuple[str, ...] = (official_suffix(card),)
    else:
        endings = _ENDINGS[card.name]
    outputs = [folder / f"{path.stem}{end}" for path in images for end in endings]
    inputs = {path.resolve() for path in images}
    for output, count in Counter(outputs).items():
        if count > 1:
            raise ValueError(
                f"{count} of the images would be written to {output}, so that one prediction would "
                "replace the other; predict them into different folders, each of them once"
            )
        if output.resolve() in inputs:
            raise ValueError(
                f"{output} is one of the images, and the prediction would replace it; write to "
                "another folder (out, --out)"
            )
    return outputs


def _write(out: Path, card: TaskCard, name: str, image: Tensor, output: Tensor) -> None:
    """The files of one image: `_ENDINGS`."""
    if card.name in ("segmentation", "edges"):
        write_official(out, card, name, output)
    if card.name == "segmentation":
        write_picture(out / f"{name}_overlay.jpg", overlay(image, picture(card, output)))
    elif card.name == "edges":
        write_official(out, card, f"{name}_thin", edge_nms(output))
        write_picture(out / f"{name}_edges.jpg", picture(card, output))
    elif card.name == "normals":
        write_picture(out / f"{name}.png", picture(card, output))
    else:
        millimetres = (output[0] * 1000).round().clamp(0, 65535).numpy().astype(np.uint16)
        write_picture(out / f"{name}.png", millimetres)
        write_picture(out / f"{name}_depth.jpg", picture(card, output))
