"""Small tables of docs/integration.md: what a patch buys, and ten first layers in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from .results import Line, devices, duration, fullest_run, markdown, read, size

__all__ = ["BLOCKS", "FILES"]

STEPS = {
    "transformers": "Mask2Former's loss (transformers)",
    "detectron2": "points of PointRend's mask head (detectron2)",
}
MEMBERS = ("one call", "ten calls", "one gather, ten products")


def patches_block() -> str:
    """Of every device the latest run: time and memory of a step before and after its patch."""
    tables = _by_device("patches", "case", STEPS, _patches)
    return tables or "No results yet: `pytest bench/test_patch.py`.\n"


def ensemble_block() -> str:
    """Of every device the latest run: ten first layers in one call, and other ways to them."""
    tables = _by_device("ensemble", "peer", MEMBERS, _ensemble)
    return tables or "No results yet: `pytest bench/test_ensemble.py`.\n"


def _by_device(
    kind: str, key: str, wanted: Iterable[str], table: Callable[[Sequence[Line]], str]
) -> str:
    lines = read(kind)
    runs = [fullest_run(lines, device, key, set(wanted)) for device in devices(lines)]
    return "\n".join([f"{table(run)}\n\n{_run(run)}\n" for run in runs if run])


def _run(lines: Sequence[Line]) -> str:
    first = lines[0]
    sizes = dict.fromkeys(line["sizes"] for line in lines)
    return (
        f"{first['device']}, torch {first['torch']}, {first['date'][:10]}; medians of cold calls. "
        f"{'; '.join(sizes)}."
    )


def _patches(lines: Sequence[Line]) -> str:
    rows = [["", "", "time before", "after", "peak memory before", "after"]]
    for line in lines:
        times = [line[f"{when}_cold_median"] for when in ("before", "after")]
        memory = [line[f"{when}_peak_bytes"] for when in ("before", "after")]
        cells = [duration(times[0]), f"{duration(times[1])} ({times[0] / times[1]:.2f}x as fast)"]
        rows.append([STEPS[line["case"]], line["direction"], *cells, *map(size, memory)])
    return markdown(rows)


def _ensemble(lines: Sequence[Line]) -> str:
    rows = [["", *MEMBERS]]
    by_direction: dict[str, dict[str, Line]] = {}
    for line in lines:
        by_direction.setdefault(line["direction"], {})[line["peer"]] = line
    for direction, by_peer in by_direction.items():
        cells = []
        for peer in MEMBERS:
            if peer not in by_peer:
                cells.append("")
                continue
            line = by_peer[peer]
            time, once = line["cold_median"], line["cold_median_of_one_call"]
            ratio = "" if peer == MEMBERS[0] else f" ({time / once:.2f}x)"
            cells.append(f"{duration(time)}{ratio}")
        rows.append([direction, *cells])
    return markdown(rows)


BLOCKS = {"patches": patches_block, "ensemble": ensemble_block}
FILES = ("docs/integration.md",)
