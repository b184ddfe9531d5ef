"""The figures of README.md and of docs/: benchmarks.md, integration.md, planner-measurements.md.

They are written from the files in bench/results/: python -m bench.report

A block stands between two comments, which stay:

    <!-- figures: summary (python -m bench.report) -->
    <!-- end of figures: summary -->

Blocks: `summary`, the first layer of a GPU and of a CPU, and Table 4, in short; `results`,
everything, of every device; `planner`, every plan of many calls; `patches`, a step before and after
its patch; `ensemble`, ten first layers in one call. Nothing in them is typed by hand.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pixelnet_triton.tools.machine import slug

from .report_planner import planner_block
from .report_table4 import latest_rows, table4_claims, table4_table
from .results import duration, size
from .tables import (
    LABELS,
    WANTED,
    identity,
    markdown,
    measured,
    paragraphs,
    roofs_of,
    runs,
    table,
)

ROOT = Path(__file__).resolve().parent.parent
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?P<start><!-- figures: (?P<name>\w+) .*?-->).*?(?P<end><!-- end of figures: (?P=name) -->)",
    re.DOTALL,
)
FIGURES = ("time", "memory", "scaling", "roofline", "table4")
IN_SUMMARY = ("auto", "product_fused", "product", "grid_sample", "dense")
MEMBERS = ("one call", "ten calls", "one gather, ten products")
STEPS = {
    "transformers": "Mask2Former's loss (transformers)",
    "detectron2": "points of PointRend's mask head (detectron2)",
}


def summary_block() -> str:
    """For the README: a GPU and a CPU, time and memory as ratios; Table 4 in short."""
    by_kind: dict[str, pd.DataFrame] = {}
    for run in runs(measured("first_layer"), "case", WANTED).values():
        by_kind.setdefault(run.kind.iloc[0], run)
    parts = [_ratios(by_kind[kind]) for kind in ("cuda", "cpu") if kind in by_kind]
    # The device measured last at the paper's sizes is shown, or else at smaller ones.
    table4 = latest_rows(measured("table4")).values()
    last = sorted(table4, key=lambda rows: (not rows.scaled.any(), rows.date.max()))[-1:]
    return paragraphs(*parts, *map(table4_claims, last))


def _ratios(run: pd.DataFrame) -> str:
    auto = run[run.peer == "auto"].set_index(["case", "direction"]).peak_bytes
    compared = run.join(auto.rename("auto_bytes"), on=["case", "direction"])

    def cell(line: pd.Series) -> str:
        if line.peer == "auto":
            return f"**{duration(line['median'])}, {size(line.peak_bytes)}**"
        ratios = (line.times_auto, line.peak_bytes / line.auto_bytes)
        times = (f"{ratio:.2f}x" if ratio < 9.995 else f"{ratio:.0f}x" for ratio in ratios)
        return "{} time, {} memory".format(*times)

    return paragraphs(
        "First layer: time and peak memory beyond the inputs, and how many times as much others "
        "take.",
        table(compared, "median", cell, peers=IN_SUMMARY),
        _header(run),
        _figures(run, ("time", "table4"), above="docs/"),
    )


def results_block() -> str:
    """For docs/benchmarks.md: all results of every device."""
    lines, parts = measured("first_layer"), []
    variants = runs(lines, "family", ("dtype", "layout"))
    hosts, table4 = runs(measured("overhead"), "peer", LABELS), latest_rows(measured("table4"))
    kernels = runs(measured("kernels"), "case", WANTED)
    for device, run in runs(lines, "case", WANTED).items():
        parts += [f"## {device}", _header(run), _roofs(run), _figures(run)]
        parts += ["### W1 to W5: time", table(run, "median"), _note(run)]
        if warm := table(run, "warm_median"):
            parts += ["### The same, warm", warm]
        parts += ["### W1 to W5: peak memory beyond the inputs", table(run, "peak_bytes")]
        kept = "### Kept for the backward pass, beyond the inputs; the output is included"
        parts += [kept, table(run, "saved_bytes")]
        if device in variants:
            times = table(variants[device], "median", rows=["case"])
            parts += ["### Dtypes and layouts, training", times]
        if device in hosts:
            times = table(hosts[device], "median", rows=["direction"])
            parts += ["### Host time of a call", times, _sizes(hosts[device])]
        if device in kernels:
            parts += ["### Kernels of a pass, cold", _kernels(kernels[device])]
        if device in table4:
            rows = table4[device]
            parts += ["### Table 4 of the paper", table4_table(rows), table4_claims(rows)]
    return paragraphs(*parts)


def patches_block() -> str:
    """For docs/integration.md: time and memory of a step before and after its patch."""
    parts = []
    for run in runs(measured("patches"), "case", STEPS).values():
        faster = run.before_cold_median / run.after_cold_median
        cells = {
            "time before": run.before_cold_median.map(duration),
            "time after": run.after_cold_median.map(duration),
            "times as fast": faster.map("{:.2f}x".format),
            "peak memory before": run.before_peak_bytes.map(size),
            "peak memory after": run.after_peak_bytes.map(size),
        }
        rows = pd.DataFrame(cells).set_index([run.case.map(STEPS), run.direction])
        parts += [markdown(rows), f"{identity(run.iloc[0])} Medians of cold calls. {_sizes(run)}"]
    return paragraphs(*parts)


def ensemble_block() -> str:
    """For docs/integration.md: ten first layers in one call, and other ways to them."""

    def cell(line: pd.Series) -> str:
        times = "" if line.peer == MEMBERS[0] else f" ({line.times_auto:.2f}x)"
        return duration(line["median"]) + times

    parts = []
    for run in runs(measured("first_layer"), "peer", MEMBERS).values():
        rows = table(run, "median", cell, rows=["direction"], peers=MEMBERS)
        parts += [rows, f"{identity(run.iloc[0])} Medians of cold calls. {_sizes(run)}"]
    return paragraphs(*parts)


BLOCKS = {
    "summary": summary_block,
    "results": results_block,
    "planner": planner_block,
    "patches": patches_block,
    "ensemble": ensemble_block,
}


def _header(run: pd.DataFrame) -> str:
    """The identity of a run of the first layer, and what it did not come to if it was cut short."""
    missing = ", ".join(sorted(WANTED - set(run.case)))
    cut = f" The run was cut short: {missing} did not run." if missing else ""
    return identity(run.iloc[0]) + cut


def _kernels(run: pd.DataFrame) -> str:
    """What each kernel takes of a pass of this library."""
    shares = run.explode("kernels").dropna(subset="kernels")
    cells = {
        "kernel": shares.kernels.str[0].map("`{}`".format),
        "launches": shares.kernels.str[1].map("{:g}".format),
        "us": shares.kernels.str[2].map("{:.1f}".format),
    }
    table = markdown(pd.DataFrame(cells).set_index([shares.case, shares.direction]))
    return paragraphs(table, f"{identity(run.iloc[0])} Means; gaps between kernels are left out.")


def _note(run: pd.DataFrame) -> str:
    """How far single calls are apart, and the sizes of the cases."""
    spread = ((run.p80 - run.p20) / run["median"]).median()
    return (
        f"Medians; from the 20th to the 80th percentile it is {spread:.0%} of the median (median "
        f"of all). {_sizes(run.assign(sizes=run.case + ': ' + run.sizes))}"
    )


def _sizes(run: pd.DataFrame) -> str:
    return "; ".join(run.sizes.unique()) + "."


def _roofs(run: pd.DataFrame) -> str:
    texts = [
        f"{roof['dtype']} {roof['flops'] / 1e9:,.0f} GFLOP/s, copy {roof['bytes'] / 1e9:,.0f} GB/s"
        for roof in roofs_of(run)
    ]
    return f"Measured roofs: {'; '.join(texts)}." if texts else ""


def _figures(run: pd.DataFrame, names: Sequence[str] = FIGURES, above: str = "") -> str:
    """Links to the plots there are, from a file that has figures/ below `above`."""
    folder = f"figures/{slug(run.device.iloc[0])}"
    drawn = [name for name in names if (ROOT / "docs" / folder / f"{name}.png").is_file()]
    return "\n".join(f"![{name}]({above}{folder}/{name}.png)" for name in drawn)


def replaced(text: str) -> str:
    """The text with its blocks as the results have them."""

    def block(found: re.Match[str]) -> str:
        made = BLOCKS[found["name"]]() or "No results yet: docs/benchmarks.md has the commands."
        return f"{found['start']}\n\n{made}\n\n{found['end']}"

    return BLOCK.sub(block, text)


def main(arguments: list[str] | None = None) -> None:
    """Write the blocks, and print the files that have changed."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.parse_args(arguments)
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        if (written := replaced(text)) != text:
            path.write_text(written, encoding="utf-8")
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
