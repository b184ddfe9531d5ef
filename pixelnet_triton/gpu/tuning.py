"""Tiles measured on this GPU, for those who ask for it: PIXELNET_TRITON_AUTOTUNE=1.

The first launch of its kind times every tile of the kernel's table; what was fastest is used from
then on and kept in a file of the cache folder, one for each device. Kinds differ by kernel, shapes
and dtypes, with the number of points rounded up to a power of two.

Without it, the rules of :mod:`pixelnet_triton.kernels.select` decide. They also do where results
have to be alike from run to run or from rank to rank (deterministic algorithms, torch.distributed),
because the order of a sum may depend on the tile; and while a CUDA graph is captured, where nothing
can be timed.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import warnings
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..kernels.select import Question, Tile, set_tuner
from ..tools.alike import must_be_alike
from ..tools.cache import cache_folder, write_json
from ..tools.machine import device_slug

__all__ = ["Autotuner", "autotune"]

ROUNDS, CALLS = 5, 10
Timer = Callable[[Callable[[], object]], float]


def autotune(enabled: bool = True) -> None:
    """Measure tiles from here on, or stop it; results kept in files stay there.

    Example:
        >>> from pixelnet_triton.gpu.tuning import autotune
        >>> autotune()  # calls on a GPU tune themselves now
        >>> autotune(False)
    """
    set_tuner(Autotuner() if enabled else None)


def seconds_on_gpu(function: Callable[[], object]) -> float:
    """Median over rounds of the device's time for a call; the first, which compiles, is apart."""
    function()
    torch.cuda.synchronize()
    seconds = []
    for _ in range(ROUNDS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(CALLS):
            function()
        end.record()
        torch.cuda.synchronize()
        seconds.append(start.elapsed_time(end) / 1e3 / CALLS)
    return statistics.median(seconds)


class Autotuner:
    """A tuner for :func:`pixelnet_triton.kernels.select.set_tuner`, with a memory on disk.

    Args:
        timer: seconds of a call; the tests have their own.
        any_device: tune CPU tensors too, as the interpreter takes them.
    """

    def __init__(self, timer: Timer = seconds_on_gpu, any_device: bool = False) -> None:
        self._timer = timer
        self._any_device = any_device
        self._known: dict[torch.device, dict[str, Any]] = {}

    def __call__(self, question: Question) -> Tile | None:
        """The tile for a launch; None leaves it to the rules."""
        device = question.s.points.device
        if must_be_alike() or not (device.type == "cuda" or self._any_device):
            return None
        if device not in self._known:
            self._known[device] = _load(tuning_path(device))
        known, kind = self._known[device], kind_of(question)
        # What is known may not be of the table any more.
        tile = next((t for t in question.tiles if asdict(t) == known.get(kind)), None)
        if tile is not None or (device.type == "cuda" and torch.cuda.is_current_stream_capturing()):
            return tile
        tile = self._fastest(question)
        if tile is not None:
            known[kind] = asdict(tile)
            path = tuning_path(device)
            write_json({"versions": _versions(), "choices": {**_load(path), **known}}, path)
        return tile

    def _fastest(self, question: Question) -> Tile | None:
        """Time every tile; those that do not fit the device are left out."""
        from triton.runtime.errors import OutOfResources, PTXASError

        seconds: dict[Tile, float] = {}
        for tile in question.tiles:
            with contextlib.suppress(OutOfResources, PTXASError):
                seconds[tile] = self._timer(partial(question.trial, tile))
        return min(seconds, key=seconds.__getitem__, default=None)


def kind_of(question: Question) -> str:
    """What a choice holds for: the kernel, and shapes, dtypes and options of the call."""
    key, s = question.key, question.s
    maps = [
        f"{'x'.join(map(str, f.shape))}{'' if f.stride(1) == 1 else ' apart'}" for f in s.features
    ]
    words = [
        question.kernel,
        str(key.dtype).removeprefix("torch."),
        f"P{1 << max(0, key.points - 1).bit_length()}",
        f"D{key.outputs}",
        ",".join(maps),
        "in order" if s.batch_index is None else "ragged",
        f"{s.geometry.interpolation} {s.geometry.padding_mode}",
        key.activation or "",
    ]
    return "; ".join([word for word in words if word])


def tuning_path(device: torch.device) -> Path:
    """The file of a device's choices."""
    return cache_folder() / f"tuned-{device_slug(device)}.json"


def _versions() -> dict[str, str]:
    """Other compilers, other choices."""
    import triton

    return {"triton": triton.__version__, "torch": torch.__version__}


def _load(path: Path) -> dict[str, Any]:
    """The choices in a file; none, if it is not there, not readable or of other versions."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        choices = content["choices"] if content["versions"] == _versions() else {}
        if not isinstance(choices, dict):
            raise ValueError("its choices are not a table")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        warnings.warn(
            f"{path} holds no tuned tiles: {error!r}. It is ignored and written anew",
            RuntimeWarning,
            stacklevel=2,
        )
        return {}
    return choices
