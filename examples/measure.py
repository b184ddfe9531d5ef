"""Time and peak memory of one way to the first layer, in a process of its own.

    python -m examples.measure METHOD FOLDER [SECONDS]

reads ``FOLDER/inputs.pt``, writes ``FOLDER/METHOD.pt`` (the output rows) and prints the figures
as JSON. :func:`measure` does both ends.

Peak memory is what the operating system saw: the high-water mark of this process' resident
memory during the first full call, less the level just before it. That counts everything, the
buffers inside matrix libraries included, which a count of torch's own allocations would miss.
The process is fresh, so no earlier peak hides this one. On Linux the mark is VmHWM and not
getrusage's ru_maxrss, because the latter begins at the peak of the *parent* process.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelnet_triton import sparse_hypercolumn
from pixelnet_triton.reference import dense_linear, masked_dense_linear

__all__ = ["METHODS", "Inputs", "Measurement", "measure"]


@dataclass(frozen=True)
class Inputs:
    """One image's features (1, C_i, H_i, W_i), points (1, N, 2), and the layer's weights."""

    features: list[Tensor]
    points: Tensor
    image_size: tuple[int, int]
    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Measurement:
    """`rows`: the output (N, D). `seconds`: the median of `calls`. `peak_bytes`: see above."""

    rows: Tensor
    seconds: float
    calls: int
    peak_bytes: int


def _sparse(at: Inputs) -> Tensor:
    return sparse_hypercolumn(
        at.features,
        at.points,
        at.image_size,
        weight=at.weight,
        bias=at.bias,
        activation="relu",
    )[0]


def _sampled(at: Inputs) -> Tensor:
    """Nothing outlives its use, and ReLU is in place: as its best user would write it."""
    height, width = at.image_size
    grid = (2 * at.points + 1) / torch.tensor([width, height]) - 1  # (1, N, 2), pixels at halves
    h = torch.cat(
        [
            F.grid_sample(f, grid[:, None], padding_mode="border", align_corners=False)[0, :, 0]
            for f in at.features
        ]
    )  # (sum C_i, N)
    return F.linear(h.T, at.weight, at.bias).relu_()


def _masked(at: Inputs) -> Tensor:
    return masked_dense_linear(
        at.features, at.points, at.image_size, at.weight, at.bias, activation="relu"
    )[0]


def _dense(at: Inputs) -> Tensor:
    everywhere = dense_linear(at.features, at.image_size, at.weight, at.bias, activation="relu")
    x, y = at.points[0].unbind(dim=-1)
    return everywhere[0, :, y, x].T


METHODS: dict[str, Callable[[Inputs], Tensor]] = {
    "sparse": _sparse,
    "sampled": _sampled,
    "masked": _masked,
    "dense": _dense,
}


def measure(method: str, folder: Path, seconds: float = 5.0) -> Measurement:
    """Run this file on ``folder/inputs.pt``, repeating calls for about `seconds`."""
    command = [sys.executable, "-m", "examples.measure", method, str(folder), str(seconds)]
    root = Path(__file__).resolve().parent.parent
    result = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True)
    rows = torch.load(folder / f"{method}.pt")
    return Measurement(rows=rows, **json.loads(result.stdout))


def _peak_bytes() -> int:
    """The high-water mark of this process' resident memory."""
    try:
        status = Path("/proc/self/status").read_text().splitlines()
        (mark,) = (line for line in status if line.startswith("VmHWM:"))
        return int(mark.split()[1]) * 1024
    except (OSError, ValueError):
        # macOS counts bytes here, other systems KiB
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@torch.inference_mode()
def main(method: str, folder: Path, seconds: float) -> None:
    call = METHODS[method]
    inputs = Inputs(**torch.load(folder / "inputs.pt"))

    # On a miniature first: loads libraries and starts threads, which is not the method's cost.
    call(
        Inputs(
            features=[feature[:, :8, :4, :4].contiguous() for feature in inputs.features],
            points=torch.zeros(1, 8, 2, dtype=torch.int64),
            image_size=(4, 4),
            weight=inputs.weight[:8, : 8 * len(inputs.features)].contiguous(),
            bias=inputs.bias[:8].contiguous(),
        )
    )

    before = _peak_bytes()
    rows = call(inputs)
    peak = _peak_bytes() - before
    torch.save(rows.clone(), folder / f"{method}.pt")
    del rows

    times: list[float] = []
    while not times or (sum(times) < seconds and len(times) < 50):
        start = time.perf_counter()
        call(inputs)
        times.append(time.perf_counter() - start)
    figures = {"seconds": statistics.median(times), "calls": len(times), "peak_bytes": peak}
    print(json.dumps(figures))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Time one way to the first layer.")
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("folder", type=Path, help="holds inputs.pt")
    parser.add_argument("seconds", type=float, nargs="?", default=5.0, help="of calls (default 5)")
    main(**vars(parser.parse_args()))
