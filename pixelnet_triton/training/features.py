"""`CachedFeatures`: a data set in which a frozen backbone's maps take the images' place."""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..data import RandomHorizontalFlip
from ..models import PixelNet
from ..tools.cache import write_json
from ..tools.modes import evaluation_mode
from ..tools.progress import progress_bar
from .feature_batches import check_frozen, collate_features

try:
    from safetensors import safe_open
    from safetensors.torch import save
except ImportError as error:
    raise ImportError(
        "pixelnet_triton.training needs safetensors, which is not installed; "
        "pip install 'pixelnet-triton[train]'"
    ) from error

__all__ = ["CachedFeatures"]

Sample = dict[str, Any]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_NAME = re.compile(r"\d{6,}\.safetensors")  # what the cache's own files are called
# Of a map's largest value: what another device's convolutions may differ by, beyond `dtype`.
AGREEMENT = 0.01


class _Samples(Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...


class CachedFeatures(Dataset[Sample]):
    """The maps of a frozen backbone, computed once for each image and kept on disk.

    Training a head on a frozen backbone computes the same maps in every epoch. Here item i has
    them in the image's place, read from a memory-mapped file::

        features = CachedFeatures(CamVid("camvid", "train"), model, "cache/camvid", flip=True)
        fit(PixelNetModule(model, task), StepLoader(features, 5), folder=..., steps=...)

    The loader's mini-batches have ``features`` instead of ``image``, and the module gives them to
    the head. The loss is that of a backbone in evaluation mode, but for the rounding to `dtype`.

    The folder remembers what it was made from: a digest of the backbone's weights and settings,
    the images' names, and a digest of every image. On opening, those of the backbone and of the
    first, the middle and the last image are compared, and their maps computed again. Files that
    are missing, as after a killed run, are computed.

    Args:
        dataset: items as :class:`pixelnet_triton.data.folders.PixelDataset` gives them, the same
            at every reading: a transform of it must not be random. Targets are read from it at
            every access, so let it keep decoded files (``cache=True``).
        model: whose backbone computes the maps, on its device; its parameters must be frozen
            (``model.backbone.requires_grad_(False)``).
        folder: made if it is missing. An image of 480 x 360 pixels takes 5.7 MB with the maps of
            efficientnet-lite0 in two bytes a value.
        flip: whether each image is followed by its mirror image, as an entry of its own: item
            2 i + 1 is the mirror image of 2 i.
        dtype: of the files. float16 (the default) rounds to 11 bits, bfloat16 to 8 and reaches as
            far as float32, which loses nothing and takes twice the space. Mini-batches are float32.
        overwrite: compute everything anew where the folder was made from something else. Of its
            files, those named by six digits, as the cache's are, are removed, and no others.
        progress: whether to show a bar (needs tqdm).

    Raises:
        TypeError: `model` is no PixelNet, or `dtype` not one of the three.
        ValueError: the backbone is not frozen; the folder was made from something else, or holds
            files of a cache's names that no cache has recorded; a map has values that are beyond
            float16 or not finite.

    Example:
        >>> import tempfile, torch
        >>> from pixelnet_triton.models import VGG16, PixelMLP, PixelNet
        >>> from pixelnet_triton.training import CachedFeatures, StepLoader
        >>> backbone = VGG16(("conv1_2", "conv3_3"), width=1 / 16).requires_grad_(False)
        >>> model = PixelNet(backbone, PixelMLP(backbone.channels, (32,), out_features=3))
        >>> sample = {"image": torch.rand(3, 24, 32), "kind": "labels",
        ...           "target": torch.zeros(24, 32, dtype=torch.int64)}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     features = CachedFeatures([sample] * 4, model, folder, flip=True)
        ...     batch = next(iter(StepLoader(features, 5)))
        >>> len(features), [tuple(maps.shape) for maps in batch["features"]]
        (8, [(5, 4, 24, 32), (5, 16, 6, 8)])
    """

    def __init__(
        self,
        dataset: _Samples,
        model: PixelNet,
        folder: str | Path,
        *,
        flip: bool = False,
        dtype: torch.dtype = torch.float16,
        overwrite: bool = False,
        progress: bool = False,
    ) -> None:
        if not isinstance(model, PixelNet):
            raise TypeError(f"model is a {type(model).__name__}; expected a PixelNet")
        if dtype not in DTYPES:
            raise TypeError(f"dtype={dtype}; expected torch.float16, torch.bfloat16 or float32")
        check_frozen(model)
        self.dataset = dataset
        self.folder = Path(folder)
        self.flip = flip
        self.dtype = dtype
        self.strides = model.head.first.strides
        self._prepare(model, overwrite, progress)

    def __len__(self) -> int:
        return len(self.dataset) * (2 if self.flip else 1)

    def __getitem__(self, index: int) -> Sample:
        """``features`` (C_i, H_i, W_i) of the cache's dtype, ``target``, ``kind`` and ``name``."""
        entry = range(len(self))[index]  # also from the end, or IndexError
        sample = self._sample(entry)
        del sample["image"]
        with safe_open(self._file(entry), "pt") as file:
            # Channels lie next to each other, as the sampling layer reads them best.
            maps = [file.get_tensor(name).permute(2, 0, 1) for name in sorted(file.keys())]
        return {**sample, "features": maps}

    def collate(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """:func:`collate_features`, which :class:`StepLoader` takes in the place of its own."""
        return collate_features(samples, self.strides)

    def _sample(self, entry: int) -> Sample:
        """Image and target, mirrored if the entry is."""
        image, mirrored = divmod(entry, 2) if self.flip else (entry, 0)
        sample = dict(self.dataset[image])
        return RandomHorizontalFlip(1.0)(sample) if mirrored else sample

    def _file(self, entry: int) -> Path:
        return self.folder / f"{entry:06d}.safetensors"

    def _prepare(self, model: PixelNet, overwrite: bool, progress: bool) -> None:
        """Compare the folder with what it is asked for, and compute what it lacks."""
        origin = {
            "backbone": _digest_of_module(model.backbone),
            "layout": model.layout,
            "dtype": str(self.dtype),
            "flip": self.flip,
            "images": len(self.dataset),
            "names": list(getattr(self.dataset, "names", [])),
        }
        record = self.folder / "origin.json"
        # Files before the record: another rank that begins the same cache writes the record first.
        old = [path for path in self.folder.glob("*.safetensors") if _NAME.fullmatch(path.name)]
        there = [entry for entry in range(len(self)) if self._file(entry).exists()]
        stale = f"{old[0].name} is there, but no {record.name}" if old else None
        if record.exists():
            stale = _difference(record, origin) or self._difference_of_maps(model, there)
        if stale is not None and not overwrite:
            raise ValueError(
                f"folder={str(self.folder)!r} holds features of something else: {stale}. "
                "Give another folder (--features), or delete this one; in Python, overwrite=True "
                "computes them anew"
            )
        if stale is not None or not record.exists():
            for path in old:
                path.unlink()
            write_json(origin, record)
            there = []
        missing = sorted(set(range(len(self))) - set(there))
        with progress_bar(len(missing), progress and bool(missing), unit="image") as done:
            for entry in missing:
                self._write(entry, model)
                done(1)

    def _write(self, entry: int, model: PixelNet) -> None:
        """One file, complete or not at all, whoever else writes it at the same time."""
        image = self._sample(entry)["image"]
        maps = {}
        for number, one in enumerate(_maps(model, image)):
            stored = one.permute(1, 2, 0).to("cpu", self.dtype).contiguous()
            if not bool(stored.isfinite().all()):
                raise ValueError(
                    f"map {number} of image {entry} has values that are not finite in {self.dtype} "
                    f"(the largest is {float(one.abs().max()):.4g}); pass dtype=torch.bfloat16 or "
                    "torch.float32"
                )
            maps[f"{number:03d}"] = stored
        part = self._file(entry).with_suffix(f".{uuid.uuid4().hex}.part")
        try:
            # As bytes: `save_file`, as `tempfile`, closes the file to others.
            part.write_bytes(save(maps, {"image": _digest(image)}))
            os.replace(part, self._file(entry))
        finally:
            part.unlink(missing_ok=True)

    def _difference_of_maps(self, model: PixelNet, there: list[int]) -> str | None:
        """What is wrong with the first, the middle and the last file, or None."""
        for entry in sorted({there[0], there[len(there) // 2], there[-1]} if there else ()):
            image = self._sample(entry)["image"]
            with safe_open(self._file(entry), "pt") as file:
                if file.metadata()["image"] != _digest(image):
                    return f"image {entry} of the data set is another one"
                stored = [file.get_tensor(name).permute(2, 0, 1) for name in sorted(file.keys())]
            for number, (one, old) in enumerate(zip(_maps(model, image), stored, strict=True)):
                one, old = one.float().cpu(), old.float()
                if one.shape != old.shape:
                    return f"map {number} has shape {tuple(one.shape)}, there {tuple(old.shape)}"
                if float((one - old).abs().max()) > AGREEMENT * float(one.abs().max()):
                    return f"the backbone computes another map {number} of image {entry}"
        return None


def _maps(model: PixelNet, image: Tensor) -> list[Tensor]:
    """One image's maps (C_i, H_i, W_i), with the backbone in evaluation mode."""
    device = next((p.device for p in model.parameters()), image.device)
    with torch.no_grad(), evaluation_mode(model.backbone):
        maps = model.features(image[None].to(device, memory_format=torch.channels_last))
        return [one[0] for one in maps]


def _difference(record: Path, origin: dict[str, Any]) -> str | None:
    """The first thing in which a cache's origin is another, or None."""
    old = json.loads(record.read_text(encoding="utf-8"))
    for key, value in origin.items():
        if old.get(key) != value:
            if key in ("names", "backbone"):
                return f"the {key} are others" if key == "names" else "the backbone is another one"
            return f"{key}={old.get(key)!r}, not {value!r}"
    return None


def _digest_of_module(module: nn.Module) -> str:
    """Of a module's settings, as it prints them, and of all of its weights."""
    digest = hashlib.sha256(repr(module).encode())
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _digest(image: Tensor) -> str:
    shape = f"{image.dtype} {tuple(image.shape)}".encode()
    return hashlib.sha256(shape + _bytes(image)).hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
