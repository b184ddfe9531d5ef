"""What every reader shares: the sample, its kinds of target, and files found or plainly missing."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from .decoding import IMAGE_SUFFIXES, read_rgb

__all__ = ["IGNORE", "KINDS", "Entry", "PixelDataset", "Sample"]

IGNORE = 255
KINDS = ("labels", "edges", "normals", "depth")

Sample = dict[str, Any]


class Entry(NamedTuple):
    """One image of a data set and where its ground truth lies."""

    name: str
    image: Path
    target: Path


class PixelDataset(Dataset[Sample]):
    """Images with one target a pixel. Item i is a dict with

    ========== ==================================================================================
    ``image``  float32 ``(3, H, W)``, RGB in [0, 1]
    ``target`` by ``kind``:
               ``"labels"``  int64 ``(H, W)``, classes from 0, 255 = ignore;
               ``"edges"``   int64 ``(H, W)``, 1 = edge, 0 = none, 255 = ignore;
               ``"normals"`` float32 ``(3, H, W)``, unit vectors, zeros where unknown;
               ``"depth"``   float32 ``(H, W)`` in metres, 0 where unknown
    ``kind``   one of the four words; joint transforms go by it
    ``name``   the image's name, without suffix
    ========== ==================================================================================

    Image files, those of targets too, are turned upright as their EXIF data say; 16-bit grey images
    are scaled to 8 bits.

    Args:
        entries: the files, in order.
        transform: a joint transform, dict -> dict (:mod:`pixelnet_triton.data.transforms`).
        cache: keep the decoded files (4 bytes a pixel for labels) in memory once they were read.
            Each worker process of a ``DataLoader`` keeps its own. An image with its augmentation
            then takes 1.5 ms instead of 3.4 (CamVid), 2.1 instead of 7.3 (BSDS500; one core of an
            x86 server, 2026-11-25).
    """

    kind: ClassVar[str] = "labels"

    def __init__(
        self,
        entries: Sequence[Entry],
        transform: Callable[[Sample], Sample] | None = None,
        *,
        cache: bool = False,
    ) -> None:
        self.entries = list(entries)
        self.transform = transform
        self._cache: dict[int, tuple[Tensor, Tensor]] | None = {} if cache else None

    @property
    def names(self) -> list[str]:
        """The images' names, without suffix, in order."""
        return [entry.name for entry in self.entries]

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Sample:
        index = position(index, len(self))
        decoded = self._cache.get(index) if self._cache is not None else None
        if decoded is None:
            decoded = self._decode(self.entries[index])
            if self._cache is not None:
                self._cache[index] = decoded
        image, target = decoded
        sample = {
            "image": image.permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format)
            / 255,
            # A copy also where no conversion is needed: a transform may write into its sample.
            "target": target.clone() if target.is_floating_point() else target.long(),
            "kind": self.kind,
            "name": self.entries[index].name,
        }
        return sample if self.transform is None else self.transform(sample)

    def _decode(self, entry: Entry) -> tuple[Tensor, Tensor]:
        """uint8 image (H, W, 3) and compact target."""
        image, target = self.read_image(entry), self.read_target(entry)
        if image.shape[:2] != target.shape[-2:]:
            raise ValueError(
                f"{entry.image} has (height, width) {tuple(image.shape[:2])} but {entry.target} "
                f"has {tuple(target.shape[-2:])}; expected equal sizes. Do both come from the "
                "same release of the data set?"
            )
        return image, target

    def read_image(self, entry: Entry) -> Tensor:
        """One image: uint8 ``(H, W, 3)``."""
        return read_rgb(entry.image)

    def read_target(self, entry: Entry) -> Tensor:
        """Its ground truth: uint8 for labels and edges, else float32."""
        raise NotImplementedError


def position(index: int, count: int) -> int:
    """`index` as a number from 0, as lists take it: from the end where it is negative."""
    index = operator.index(index)  # also of NumPy's and torch's integers
    if not -count <= index < count:
        raise IndexError(f"index {index} is out of range: there are {count} images")
    return index % count


def check_split(split: str, known: Sequence[str]) -> None:
    if split not in known:
        raise ValueError(f"split={split!r} is unknown; use one of {tuple(known)}")


def find_layout(
    root: str | Path, layouts: Iterable[Sequence[str]], *, data_set: str, source: str
) -> tuple[Path, ...]:
    """The first of `layouts`, tuples of paths below `root`, that is there as a whole.

    Raises:
        FileNotFoundError: none is; says which were looked for, and where to get the data set.
    """
    root, wanted = Path(root), [tuple(layout) for layout in layouts]
    for layout in wanted:
        paths = tuple(root / part for part in layout)
        if all(path.exists() for path in paths):
            return paths
    tried = "; or ".join(" and ".join(layout) for layout in wanted)
    there = "" if root.is_dir() else f" ({root} itself does not exist)"
    raise FileNotFoundError(
        f"root={str(root)!r} does not hold {data_set}{there}: expected below it {tried}. {source}"
    )


def files_by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Files of `folder` with one of `suffixes`, by name without suffix, in order of names.

    Raises:
        ValueError: two of them differ in the suffix alone.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes and files.setdefault(path.stem, path) != path:
            raise ValueError(
                f"{folder} holds {files[path.stem].name} and {path.name}; expected one file of the "
                f"name {path.stem!r}. Rename or remove one of them"
            )
    return files


def without_suffix(path: str) -> str:
    """The name of an image, by its own or its file's: dots in names are no suffixes."""
    name = Path(path).name
    return name[: -len(suffix)] if (suffix := Path(name).suffix).lower() in IMAGE_SUFFIXES else name


def pair_up(
    images: dict[str, Path],
    targets: dict[str, Path],
    names: Iterable[str] | None = None,
    *,
    source: str,
) -> list[Entry]:
    """An `Entry` for each name; for each image and each target, where there is no list of names.

    Raises:
        FileNotFoundError: a name without image or without target, or no name at all.
    """
    if names is None:
        alone = [name for name in targets if name not in images]
        if alone:
            raise FileNotFoundError(
                f"{len(alone)} of {len(targets)} ground truths have no image, the first is "
                f"{targets[alone[0]]}; expected an image of the same name, with a suffix of "
                f"{IMAGE_SUFFIXES}. Add or convert the image, or remove its ground truth. {source}"
            )
    names = list(images if names is None else names)
    for what, files in (("image", images), ("ground truth", targets)):
        missing = [name for name in names if name not in files]
        if missing:
            near = next(iter(files.values())).parent if files else "an empty folder"
            raise FileNotFoundError(
                f"{len(missing)} of {len(names)} images have no {what}, the first is "
                f"{missing[0]!r} (looked in {near}). {source}"
            )
    if not names:
        raise FileNotFoundError(f"the folders are there but hold no images. {source}")
    return [Entry(name, images[name], targets[name]) for name in names]
