"""The figures of README.md and of docs/: benchmarks.md, integration.md, planner-measurements.md.

They are written from the files in bench/results/: python -m bench.report

A block stands between two comments, which stay:

    <!-- figures: summary (python -m bench.report) -->
    <!-- end of figures: summary -->

Blocks: `summary`, the first layer and Table 4 in short, of a GPU and of a CPU; `results`,
everything, of every device; `planner`, every plan of many calls; those of report_extra.py.
Nothing in them is typed by hand.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

from .report_extra import BLOCKS as EXTRA_BLOCKS
from .report_extra import FILES as EXTRA_FILES
from .report_planner import planner_block
from .results import (
    Line,
    by_case,
    complete_run,
    device_slug,
    devices,
    duration,
    fullest_run,
    latest_rows,
    markdown,
    read,
    shown,
    size,
)
from .table4_text import table4_claims, table4_table
from .workloads import SWEEPS, WORKLOADS

ROOT = Path(__file__).resolve().parent.parent
FILES = ("README.md", "docs/benchmarks.md", "docs/planner-measurements.md", *EXTRA_FILES)
PEERS = {
    "auto": "this library",
    "two_step": "every layer gathered",
    "one_pass": "gathered in one pass",
    "project_gather": "every layer projected",
    "project_product": "projected, as a product",
    "product": "matrix product alone",
    "product_fused": "the same, fused epilogue",
    "grid_sample": "`grid_sample` + `cat` + `linear`",
    "grid_sample_compiled": "the same, `torch.compile`",
    "grid_sample_half": "`grid_sample`, half-precision coordinates",
    "point_sample": "`point_sample` (PointRend)",
    "masked": "dense, masked",
    "dense": "dense",
}
FIGURES = ("time", "memory", "scaling", "roofline", "table4")
IN_SUMMARY = ("product_fused", "product", "grid_sample", "dense")
WANTED = {workload.name for workload in WORKLOADS}


def summary_block() -> str:
    """For the README: a GPU and a CPU, time and memory as ratios, Table 4 in short."""
    lines = shown(read("first_layer"))
    runs = [fullest_run(lines, device, "case", WANTED) for device in devices(lines)]
    firsts = [next((r for r in runs if r and r[0]["kind"] == k), None) for k in ("cuda", "cpu")]
    return "\n".join(_summary_of(run) for run in firsts if run) or "No results yet: `make bench`.\n"


def _summary_of(run: Sequence[Line]) -> str:
    rows = [["", "", PEERS["auto"], *(PEERS[peer] for peer in IN_SUMMARY)]]
    for (case, direction), by_peer in by_case(run).items():
        auto = by_peer.get("auto")
        if case in WANTED and auto and "median" in auto:
            ours = f"**{duration(auto['median'])}, {size(auto['peak_bytes'])}**"
            peers = [_ratios(by_peer.get(peer), auto) for peer in IN_SUMMARY]
            rows.append([case, direction, ours, *peers])
    scaled = any(line["scaled"] for line in run)
    device = run[0]["device"]
    pictures = _figures(device, ("time", "table4"), above="docs/")
    return (
        "First layer: time and peak memory beyond the inputs, and how many times as much others "
        f"take.{' Sizes scaled down for a CPU.' if scaled else ''}\n\n"
        f"{markdown(rows)}\n\n{_identity(run)}\n{_table4_of(device, run[0]['kind'])}"
        + (f"\n{pictures}\n" if pictures else "")
    )


def _table4_of(device: str, kind: str) -> str:
    """At the paper's sizes, if any device of that kind came to them, else at smaller ones."""
    lines = [line for line in read("table4") if line["kind"] == kind]
    full = [line for line in lines if not line["scaled"]]
    rows = latest_rows(lines, device)
    if full and (not rows or rows[0]["scaled"]):
        rows = latest_rows(full, full[-1]["device"])
    if not rows:
        return ""
    return f"\n{table4_claims(rows)} Measured on {rows[0]['device']}, {rows[0]['date'][:10]}.\n"


def results_block() -> str:
    """For docs/benchmarks.md: all results of every device."""
    lines = shown(read("first_layer"))
    parts = []
    for device in devices(lines):
        run = fullest_run(lines, device, "case", WANTED)
        if not run:
            continue
        layers = [line for line in run if line["family"] == "workload"]
        sweeps = complete_run(lines, device, "family", set(SWEEPS))
        variants = [line for line in sweeps if line["family"] in ("dtype", "layout")]
        rows = latest_rows(read("table4"), device)
        kept = "Kept for the backward pass, beyond the inputs; the output is included"
        sections = {
            "W1 to W5: time": f"{table(layers, 'median')}\n\n{_note(layers)}",
            "The same, warm": table(layers, "warm_median"),
            "W1 to W5: peak memory beyond the inputs": table(layers, "peak_bytes"),
            kept: table(layers, "saved_bytes"),
            "Dtypes and layouts, training": table(variants, "median", directions=False),
            "Host time of a call": _overhead(device),
            "Table 4 of the paper": rows and f"{table4_table(rows)}\n\n{table4_claims(rows)}",
        }
        parts += [f"## {device}\n\n{_identity(run)}", _roofs(run[0]), _figures(device)]
        parts += [f"### {title}\n\n{text}" for title, text in sections.items() if text]
    return "\n\n".join(filter(None, parts)) + "\n"


BLOCKS = {
    "summary": summary_block,
    "results": results_block,
    "planner": planner_block,
    **EXTRA_BLOCKS,
}


def _identity(run: Sequence[Line]) -> str:
    """Of a run, and what one that was cut short did not come to."""
    line, missing = run[0], sorted(WANTED - {line["case"] for line in run})
    commit = str(line["commit"]).split("+")[0][:9]
    changed = ", with uncommitted changes" if "+" in str(line["commit"]) else ""
    return (
        f"{line['device']}; torch {line['torch']}, Python {line['python']}, commit "
        f"{commit}{changed}; {line['date'][:16].replace('T', ' ')} UTC."
    ) + (f" The run was cut short: {', '.join(missing)} did not run." if missing else "")


def _ratios(line: Line | None, auto: Line) -> str:
    if line is None or line.get("problem"):
        return _problem(line)
    # Of the rounds that both had turns in.
    time = float(line.get("times_auto") or line["median"] / auto["median"])
    times = (
        f"{r:.2f}x" if r < 9.995 else f"{r:.0f}x"
        for r in (time, line["peak_bytes"] / auto["peak_bytes"])
    )
    return "{} time, {} memory".format(*times)


def _problem(line: Line | None) -> str:
    return str(line.get("problem", "")).split(":")[0] if line else ""


def _roofs(run: Line) -> str:
    texts = [
        f"{r['dtype']} {r['flops'] / 1e9:,.0f} GFLOP/s, copy {r['bytes'] / 1e9:,.0f} GB/s"
        for r in read("roofs")
        if (r["date"], r["device"]) == (run["date"], run["device"])
    ]
    return f"Measured roofs: {'; '.join(texts)}." if texts else ""


def _figures(device: str, names: Sequence[str] = FIGURES, above: str = "") -> str:
    """Links to the plots there are, from a file that has figures/ below `above`."""
    folder = ROOT / "docs" / "figures" / device_slug(device)
    return "\n".join(
        f"![{name}]({above}figures/{folder.name}/{name}.png)"
        for name in names
        if (folder / f"{name}.png").is_file()
    )


def table(lines: Sequence[Line], key: str, directions: bool = True) -> str:
    """A row for each case, and for its directions; a column for each peer that has any figure."""

    def cell(line: Line | None) -> str:
        if line is None or key not in line:
            return _problem(line)
        return size(line[key]) if "bytes" in key else duration(line[key])

    if not any(key in line for line in lines):
        return ""
    cases = by_case(lines)
    peers = [name for name in PEERS if any(cell(line.get(name)) for line in cases.values())]
    rows = [["", *[""] * directions, *(PEERS[peer] for peer in peers)]]
    for (case, direction), by_peer in cases.items():
        cells = [cell(by_peer.get(peer)) for peer in peers]
        if any(cells):
            rows.append([case, *[direction] * directions, *cells])
    return markdown(rows)


def _note(lines: Sequence[Line]) -> str:
    """How far single calls are apart, and the sizes of the cases."""
    sizes = {line["case"]: line["sizes"] for line in lines}
    spread = [(line["p80"] - line["p20"]) / line["median"] for line in lines if "median" in line]
    return (
        f"Medians; from the 20th to the 80th percentile it is {statistics.median_high(spread):.0%} "
        "of the median (median of all). "
        f"{'; '.join(f'{case}: {text}' for case, text in sizes.items())}."
    )


def _overhead(device: str) -> str:
    """A row for each direction."""
    lines = [line for line in read("overhead") if line["device"] == device]
    rows = table([{**line, "case": line["direction"]} for line in lines], "median", False)
    return f"{rows}\n\n{lines[-1]['sizes']}." if lines else ""


def replaced(text: str) -> tuple[str, list[str]]:
    """The text with its blocks as the results have them, and the names of these blocks."""
    names = []
    for name, make in BLOCKS.items():
        start = f"<!-- figures: {name} (python -m bench.report) -->"
        end = f"<!-- end of figures: {name} -->"
        before, marked, after = text.partition(start)
        if marked:
            text = f"{before}{start}\n\n{make()}\n{end}{after.partition(end)[2]}"
            names.append(name)
    return text, names


def main(arguments: list[str] | None = None) -> None:
    """Write the blocks."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.parse_args(arguments)
    for name in FILES:
        text, blocks = replaced((ROOT / name).read_text(encoding="utf-8"))
        (ROOT / name).write_text(text, encoding="utf-8")
        print(f"{name}: {', '.join(blocks)}")


if __name__ == "__main__":
    main()
