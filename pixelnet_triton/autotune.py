"""Kernel configurations measured on this GPU, for those who ask for it: PIXELNET_TRITON_AUTOTUNE=1.

The first launch of its kind times every configuration of the kernel's table; what was fastest is
used from then on and kept in a file of the cache folder, one for each device. Kinds differ by
kernel, shapes and dtypes, with the number of points rounded up to a power of two.

Without it, the tables' own rules decide. They also do where results have to be alike from run to
run or from rank to rank (deterministic algorithms, torch.distributed), because the order of a sum
may depend on the configuration; and while a CUDA graph is captured, where nothing can be timed.
"""

from __future__ import annotations

import contextlib
import json
import math
import statistics
import warnings
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .kernels.fused_linear import Operand
from .kernels.tuning import Launch, set_tuner
from .planner import must_be_alike
from .planner.store import cache_folder, device_slug, write_json

__all__ = ["Autotuner", "autotune"]

ROUNDS, CALLS = 5, 10
MOST_RECENT = 4096
Timer = Callable[[Callable[[], object]], float]


def autotune(enabled: bool = True) -> None:
    """Measure kernel configurations from here on, or stop it; results kept in files stay there.

    Example:
        >>> from pixelnet_triton.autotune import autotune
        >>> autotune()  # calls on a GPU tune themselves now
        >>> autotune(False)
    """
    set_tuner(Autotuner() if enabled else None)


def seconds_on_gpu(function: Callable[[], object]) -> float:
    """Median over rounds of the device's time for a call; the first, which compiles, is apart."""
    function()
    torch.cuda.synchronize()
    found = []
    for _ in range(ROUNDS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(CALLS):
            function()
        end.record()
        torch.cuda.synchronize()
        found.append(start.elapsed_time(end) / 1e3 / CALLS)
    return statistics.median(found)


class Autotuner:
    """A tuner for :func:`pixelnet_triton.kernels.tuning.set_tuner`, with a memory on disk.

    Args:
        timer: seconds of a call; the tests have their own.
        any_device: tune CPU tensors too, as the interpreter takes them.
    """

    def __init__(self, timer: Timer = seconds_on_gpu, any_device: bool = False) -> None:
        self._timer = timer
        self._any_device = any_device
        self._recent: dict[object, Any] = {}  # by exact shapes, found in some microseconds
        self._known: dict[Path, dict[str, Any]] = {}

    def __call__(self, launch: Launch) -> Any:
        """The configuration for a launch; None leaves it to the launcher."""
        device = launch.arguments["points"].device
        if must_be_alike() or not (device.type == "cuda" or self._any_device):
            return None
        exactly = (device, launch.name, _exact(list(launch.arguments.values())))
        if exactly in self._recent:
            return self._recent[exactly]
        path, kind = tuning_path(device), kind_of(launch)
        if path not in self._known:
            self._known[path] = _load(path)
        known = self._known[path]
        # What is known may not be of the table any more.
        config = next((c for c in launch.table if asdict(c) == known.get(kind)), None)
        if config is None:
            if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
                return None
            config = self._fastest(launch)
            if config is not None:
                known[kind] = asdict(config)
                write_json({"versions": _versions(), "choices": {**_load(path), **known}}, path)
        if len(self._recent) >= MOST_RECENT:
            self._recent.clear()
        self._recent[exactly] = config
        return config

    def _fastest(self, launch: Launch) -> Any:
        """Time every configuration; those that do not fit the device are left out."""
        arguments = dict(launch.arguments)
        if launch.adds_to is not None:
            arguments[launch.adds_to] = [torch.zeros_like(t) for t in arguments[launch.adds_to]]
        seconds: dict[int, float] = {}
        for number, config in enumerate(launch.table):
            with contextlib.suppress(*_does_not_fit()):
                seconds[number] = self._timer(partial(launch.function, **arguments, config=config))
        return launch.table[min(seconds, key=seconds.__getitem__)] if seconds else None


def _does_not_fit() -> tuple[type[Exception], ...]:
    from triton.runtime.errors import OutOfResources, PTXASError

    return OutOfResources, PTXASError


def kind_of(launch: Launch) -> str:
    """What a choice holds for: the kernel, and shapes, dtypes and options of its arguments."""
    points = launch.arguments["points"].shape[0]
    rounded = 1 << max(0, math.ceil(math.log2(max(points, 1))))
    words = []
    for name, value in launch.arguments.items():
        if name not in ("affine", "columns"):
            words.append(f"{name}={_word(value, points, rounded)}")
    return f"{launch.name} " + " ".join(words)


def _word(value: Any, points: int, rounded: int) -> str:
    if isinstance(value, Tensor):
        sizes = [f"P{rounded}" if size == points else str(size) for size in value.shape]
        order = "" if value.is_contiguous() else "'"
        return f"{str(value.dtype).removeprefix('torch.')}[{','.join(sizes)}]{order}"
    if isinstance(value, Operand):
        return f"{value.kind}:{_word(value.tensor, points, rounded)}"
    if isinstance(value, (list, tuple)):
        return "(" + ";".join([_word(item, points, rounded) for item in value]) + ")"
    return str(value)


def _exact(value: Any) -> object:
    """Hashable, and different for arguments of different kinds."""
    if isinstance(value, Tensor):
        return value.shape, value.dtype, value.is_contiguous()
    if isinstance(value, Operand):
        return value.kind, _exact(value.tensor)
    return tuple([_exact(item) for item in value]) if isinstance(value, (list, tuple)) else value


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
            f"{path} holds no tuned configurations: {error!r}. It is ignored and written anew",
            RuntimeWarning,
            stacklevel=2,
        )
        return {}
    return choices
