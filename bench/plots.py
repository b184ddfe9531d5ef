"""Figures, drawn from the files in bench/results/ alone.

    python -m bench.plots                   # of the device with the latest complete run
    python -m bench.plots --device EPYC     # of the one whose name contains this

    docs/figures/DEVICE/time.png        seconds of each peer on W1 to W5
    docs/figures/DEVICE/memory.png      peak memory, and bytes kept for the backward pass
    docs/figures/DEVICE/scaling.png     time and memory over points, width, layers and image size
    docs/figures/DEVICE/roofline.png    FLOP/s against what the machine reaches
    docs/figures/DEVICE/predicted.png   the planner's cost model against measurements
    docs/figures/DEVICE/table4.png      the paper's Table 4: memory against updates per second

All lines of a figure are of one run; what run, on which device and when is printed on it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from . import drawings
from .drawing_table4 import table4
from .results import Line, complete_run, device_slug, devices, latest_rows, read, shown
from .workloads import SWEEPS, WORKLOADS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_all", "main"]

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "figures"
WANTED = {workload.name for workload in WORKLOADS}


def main(arguments: list[str] | None = None) -> None:
    """Draw whatever the results of a device allow."""
    parser = argparse.ArgumentParser(prog="python -m bench.plots", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--device", default="", help="part of the device's name")
    parser.add_argument("--output", type=Path, default=FOLDER, help="default: docs/figures")
    options = parser.parse_args(arguments)
    lines = read("first_layer")
    known = [name for name in devices(lines) if options.device in name]
    if not known:
        parser.error(
            f"no results of a device {options.device!r} in bench/results/first_layer.jsonl; "
            "measure first: pytest bench --benchmark-only"
        )
    try:
        written = draw_all(known[0], options.output / device_slug(known[0]))
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        sys.exit("bench.plots needs matplotlib: pip install 'pixelnet-triton[plot]'")
    for path in written:
        print(path)


def draw_all(device: str, folder: Path) -> list[Path]:
    """All figures of a device; those without results are left out."""
    first_layer = shown(read("first_layer"))
    workloads = complete_run(first_layer, device, "case", WANTED)
    sweeps = complete_run(first_layer, device, "family", set(SWEEPS))
    roofs = [r for r in read("roofs") if workloads and r["date"] == workloads[0]["date"]]
    rows = latest_rows(read("table4"), device)
    plans: list[tuple[str, list[Line], Callable[[list[Line]], Figure]]] = [
        ("time", workloads, drawings.time_by_workload),
        ("memory", workloads, drawings.memory_by_workload),
        ("scaling", sweeps, drawings.scaling),
        ("roofline", workloads, lambda lines: drawings.roofline(lines, roofs)),
        ("predicted", sweeps or workloads, drawings.predicted),
        ("table4", rows, table4),
    ]
    written = []
    for name, lines, draw in plans:
        timed = [line for line in lines if "median" in line]
        if timed:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{name}.png"
            figure = draw(timed)
            # Without the date of drawing, so that the same results give the same file.
            figure.savefig(path, dpi=130, metadata={"Software": None})
            written.append(path)
    return written


if __name__ == "__main__":
    main()
