"""One's own images with a class for each pixel, in a plain layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from .decoding import IMAGE_SUFFIXES, read_indices
from .folders import IGNORE, Entry, PixelDataset, Sample, files_by_stem, find_layout, pair_up

__all__ = ["LabelledFolder"]

_LAYOUT = (
    "A labelled folder has images/SPLIT/NAME.jpg (or .png, .bmp, .tif, .webp), "
    "labels/SPLIT/NAME.png of class indices from 0 (255: ignored), and classes.txt with a class a "
    "line, in the order of the indices: NAME, or NAME R G B"
)


class LabelledFolder(PixelDataset):
    """Images and label images in folders::

        classes.txt   images/SPLIT/NAME.jpg|png|bmp|tif|webp   labels/SPLIT/NAME.png

    Label images hold the class index in 8 bits, with or without a palette; 255 is ignored. A line
    of ``classes.txt`` is the name of a class, without blanks, and its colour if it has one: ``road
    128 64 128``. The first line is class 0; empty lines do not count.

    Args:
        root: the user's folder.
        split: the name of a subfolder, such as ``"train"`` or ``"val"``.
        transform, cache: as in :class:`~pixelnet_triton.data.folders.PixelDataset`.

    Attributes:
        CLASSES: names. PALETTE: their colours; () unless every class has one.

    Raises:
        FileNotFoundError: what is missing, and the layout; an image or a label image alone.
        ValueError: two images of one name; a line of ``classes.txt`` of another form; when read,
            label images with other values.

    Example:
        >>> from pixelnet_triton.data import LabelledFolder
        >>> data = LabelledFolder("path/to/leaves", "train")  # doctest: +SKIP
        >>> data.CLASSES  # doctest: +SKIP
        ('background', 'leaf', 'stem')
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        transform: Callable[[Sample], Sample] | None = None,
        *,
        cache: bool = False,
    ) -> None:
        images, labels, classes = find_layout(
            root,
            [(f"images/{split}", f"labels/{split}", "classes.txt")],
            data_set=f"the split {split!r} of labelled images",
            source=_LAYOUT,
        )
        self.CLASSES, self.PALETTE = _classes(classes)
        image_files = files_by_stem(images, IMAGE_SUFFIXES)
        label_files = files_by_stem(labels, (".png",))
        super().__init__(pair_up(image_files, label_files, source=_LAYOUT), transform, cache=cache)

    @staticmethod
    def has_split(root: str | Path, split: str) -> bool:
        """Whether there are folders of this name for images and labels."""
        return all((Path(root) / kind / split).is_dir() for kind in ("images", "labels"))

    def read_target(self, entry: Entry) -> Tensor:
        labels = read_indices(entry.target)
        unknown = labels[(labels >= len(self.CLASSES)) & (labels != IGNORE)]
        if len(unknown):
            raise ValueError(
                f"{entry.target} holds the value {int(unknown[0])}, but classes.txt has "
                f"{len(self.CLASSES)} classes; expected indices 0 to {len(self.CLASSES) - 1}, and "
                "255 for pixels that do not count"
            )
        return labels


def _classes(path: Path) -> tuple[tuple[str, ...], tuple[tuple[int, int, int], ...]]:
    """Names and, if every line has one, colours."""
    names, colours = [], []
    for line in path.read_text(encoding="utf-8-sig").splitlines():  # editors may mark UTF-8
        if not line.strip():
            continue
        name, *numbers = line.split()
        colour = [int(n) for n in numbers if n.isdecimal() and int(n) < 256]
        if len(colour) != len(numbers) or len(colour) not in (0, 3):
            raise ValueError(
                f"{path} has the line {line!r}; expected NAME, or NAME R G B with 0 to 255"
            )
        names.append(name)
        if colour:
            colours.append((colour[0], colour[1], colour[2]))
    if not 1 <= len(names) <= IGNORE:
        raise ValueError(f"{path} lists {len(names)} classes; expected 1 to {IGNORE}")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(
            f"{path} has the class {twice[0]!r} {names.count(twice[0])} times; expected a name of "
            "its own for each, by which results are reported"
        )
    return tuple(names), tuple(colours) if len(colours) == len(names) else ()
