"""NYU Depth v2: surface normals and depths of indoor scenes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from .decoding import IMAGE_SUFFIXES, decoded, decoding, needed, read_mat
from .folders import Entry, PixelDataset, Sample, check_split, files_by_stem, find_layout, pair_up

__all__ = ["NYUDepth", "NYUNormals"]

_LABELLED = ("nyu_depth_v2_labeled.mat", "splits.mat")
_SOURCE = (
    "nyu_depth_v2_labeled.mat and splits.mat are had from "
    "https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html; the normals of the paper, "
    "nyu_normals_gt.zip, from the authors of 'Discriminatively Trained Dense Surface Normal "
    "Estimation' (Ladicky, Zeisl, Pollefeys, ECCV 2014)"
)


class _NYU(PixelDataset):
    """Finds the files of either layout, and reads images."""

    truths: ClassVar[str]  # the folder of the ground truth
    released: ClassVar[tuple[str, ...]] = ()  # what is needed besides the labelled set

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        transform: Callable[[Sample], Sample] | None = None,
        *,
        cache: bool = False,
    ) -> None:
        check_split(split, ("train", "test"))
        released = tuple(f"{part}/{split}" for part in self.released)
        paths = find_layout(
            root,
            [(*_LABELLED, *released), (f"images/{split}", f"{self.truths}/{split}")],
            data_set=f"NYUv2's split {split!r} with {self.truths}",
            source=_SOURCE,
        )
        self.masks: dict[str, Path] = {}
        names: list[str] | None
        if paths[0].is_dir():
            images, truths = paths
            image_files = files_by_stem(images, IMAGE_SUFFIXES)
            truth_files = files_by_stem(truths, (".npy", ".png"))
            names = None
            mask_folder = Path(root) / "masks" / split
            if mask_folder.is_dir():
                self.masks = files_by_stem(mask_folder, (".png",))
                missing = [name for name in image_files if name not in self.masks]
                if missing:
                    raise FileNotFoundError(
                        f"{mask_folder} has no mask for the image {missing[0]!r}; expected one for "
                        "each image, or no such folder at all"
                    )
        else:
            names = [f"{number:05d}" for number in _split_numbers(paths[1], split)]
            image_files = truth_files = dict.fromkeys(names, paths[0])
            if released:
                truth_files = files_by_stem(paths[2], (".png",))
        entries = pair_up(image_files, truth_files, names, source=_SOURCE)
        super().__init__(entries, transform, cache=cache)

    def read_image(self, entry: Entry) -> Tensor:
        if entry.image.suffix == ".mat":
            return torch.from_numpy(_labelled(entry, "images"))
        return super().read_image(entry)

    def _known(self, entry: Entry, size: tuple[int, ...]) -> np.ndarray:
        """The pixels with a value, by a mask or, in the labelled set, by the camera itself."""
        if entry.image.suffix == ".mat":
            return _labelled(entry, "rawDepths") > 0
        if entry.name in self.masks:
            mask = np.array(decoded(self.masks[entry.name]).convert("L")) > 0
            if mask.shape != size:
                raise ValueError(
                    f"{self.masks[entry.name]} has (height, width) {mask.shape} but {entry.target} "
                    f"has {size}; expected equal sizes. Resize the mask to its nearest pixels"
                )
            return mask
        return np.array(True)


class NYUNormals(_NYU):
    """Surface normals of NYUv2 (section 4.2): 795 training and 654 test images, 480x640.

    Two layouts are read::

        nyu_depth_v2_labeled.mat  splits.mat  nyu_normals_gt/SPLIT/00001.png  as released
        images/SPLIT/NAME.png|jpg  normals/SPLIT/NAME.png|npy  masks/SPLIT/NAME.png (optional)

    The first needs h5py. Its normals are Ladicky's, numbered from 1 as in ``splits.mat``; pixels
    at which the camera measured no depth are unknown, as for the authors. In the second, a pixel
    is unknown where its mask is 0.

    A PNG (8 bits, RGB) holds v with n = 2 v / 255 - 1; an ``.npy`` file holds n, (H, W, 3). Vectors
    are made unit; those shorter than 1/2 are unknown. The components are kept in the order and with
    the signs that the file has; mirroring negates the first, which is x in Ladicky's files as
    others describe them.

    The reader is tested on small files in these layouts, not on the real ones.

    Args:
        root: the user's folder.
        split: ``"train"`` or ``"test"``.
        transform, cache: as in :class:`~pixelnet_triton.data.folders.PixelDataset`.

    Raises:
        FileNotFoundError: what is missing, and where to get it.
        ValueError: unknown `split`; when read, files of another form.

    Example:
        >>> from pixelnet_triton.data import NYUNormals
        >>> train = NYUNormals("path/to/nyuv2", "train")  # doctest: +SKIP
        >>> train[0]["target"].shape  # doctest: +SKIP
        torch.Size([3, 480, 640])
    """

    kind: ClassVar[str] = "normals"
    truths: ClassVar[str] = "normals"
    released: ClassVar[tuple[str, ...]] = ("nyu_normals_gt",)

    def read_target(self, entry: Entry) -> Tensor:
        normals = _array(entry.target)
        if normals.ndim != 3 or normals.shape[2] != 3:
            raise ValueError(
                f"{entry.target} has shape {normals.shape}; expected (H, W, 3): an RGB image, or "
                "an array of vectors"
            )
        if normals.dtype == np.uint8:
            normals = 2 * normals.astype(np.float32) / 255 - 1
        # float16 would round lengths, and overflow in their squares.
        normals = normals.astype(np.result_type(normals, np.float32), copy=False)
        length = np.linalg.norm(normals, axis=2, keepdims=True)
        # Comparisons with NaN are false: what is not a number is unknown, too.
        known = (length > 0.5) & (length < np.inf)
        known &= self._known(entry, normals.shape[:2])[..., None]
        normals = np.divide(normals, length, out=np.zeros(normals.shape, np.float32), where=known)
        return torch.from_numpy(normals.transpose(2, 0, 1).copy())


class NYUDepth(_NYU):
    """Depths of NYUv2: 795 training and 654 test images, 480x640, in metres.

    Two layouts are read::

        nyu_depth_v2_labeled.mat  splits.mat                          as released; needs h5py
        images/SPLIT/NAME.png|jpg  depths/SPLIT/NAME.png|npy  masks/SPLIT/NAME.png (optional)

    In the first, depths are the inpainted ones where the camera measured any, else 0 (unknown). In
    the second, a PNG (16 bits) holds millimetres, an ``.npy`` file metres, also in integers; 0,
    negative and non-finite values are unknown, and so are pixels where the mask is 0.

    The reader is tested on small files in these layouts, not on the real ones.

    Args, Raises: as for :class:`NYUNormals`.

    Example:
        >>> from pixelnet_triton.data import NYUDepth
        >>> NYUDepth("path/to/nyuv2", "test")[0]["target"].shape  # doctest: +SKIP
        torch.Size([480, 640])
    """

    kind: ClassVar[str] = "depth"
    truths: ClassVar[str] = "depths"

    def read_target(self, entry: Entry) -> Tensor:
        if entry.target.suffix == ".mat":
            depth = _labelled(entry, "depths")
        else:
            depth = _array(entry.target)
        if depth.ndim != 2 or depth.dtype == np.uint8:
            raise ValueError(
                f"{entry.target} has shape {depth.shape} and type {depth.dtype}; expected (H, W): "
                "an image of 16 bits in millimetres, or an array of metres"
            )
        unit = np.float32(1e-3) if entry.target.suffix.lower() == ".png" else 1
        depth = depth.astype(np.float32) * unit
        known = (depth > 0) & (depth < np.inf) & self._known(entry, depth.shape)
        return torch.from_numpy(np.where(known, depth, np.float32(0)))


def _array(path: Path) -> np.ndarray:
    if path.suffix.lower() == ".npy":
        with decoding(path):
            return np.load(path, allow_pickle=False)
    return np.array(decoded(path))


def _labelled(entry: Entry, variable: str) -> np.ndarray:
    """One image's part of a variable: (H, W) or (H, W, 3). HDF5 has MATLAB's axes reversed."""
    h5py = needed("h5py", f"reading {entry.image.name}", "h5py", "pixelnet-triton[nyu]")
    # Opened anew each time: an open file is good neither for pickling nor for forked workers.
    with decoding(entry.image), h5py.File(entry.image, "r") as file:
        return np.ascontiguousarray(file[variable][int(entry.name) - 1].T)


def _split_numbers(path: Path, split: str) -> list[int]:
    """The images of a split, numbered from 1."""
    return [int(number) for number in read_mat(path, f"{split}Ndxs", _SOURCE).flat]
