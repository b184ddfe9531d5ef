"""The figures of README.md and of docs/: benchmarks.md, integration.md, planner-measurements.md.

They are written from the files in bench/results/.

    python -m bench.report           # write them
    python -m bench.report --check   # only say whether they are what the results say; exit status

A block stands between two comments, which stay:

    <!-- figures: summary (python -m bench.report) -->
    <!-- end of figures: summary -->

Blocks: `summary`, the first layer and Table 4 in short, of a GPU and of a CPU; `results`,
everything, of every device; `planner`, every plan of many calls; those of report_extra.py.
Nothing in them is typed by hand.
"""

from __future__ import annotations

import argparse
import re
import sys
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
    times_auto,
)
from .table4_text import table4_claims, table4_table
from .workloads import SWEEPS, WORKLOADS

ROOT = Path(__file__).resolve().parent.parent
FILES = tuple(
    ROOT / name
    for name in ("README.md", "docs/benchmarks.md", "docs/planner-measurements.md", *EXTRA_FILES)
)
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
    kinds = {line["device"]: line["kind"] for line in lines}
    measured = [d for d in devices(lines) if fullest_run(lines, d, "case", WANTED)]
    firsts = [next((d for d in measured if kinds[d] == kind), None) for kind in ("cuda", "cpu")]
    parts = [_summary_of(device, lines) for device in firsts if device]
    return "\n".join(parts) or "No results yet: `make bench`.\n"


def _summary_of(device: str, lines: Sequence[Line]) -> str:
    run = fullest_run(lines, device, "case", WANTED)
    rows = [["", "", PEERS["auto"], *(PEERS[peer] for peer in IN_SUMMARY)]]
    for (case, direction), by_peer in by_case(run).items():
        auto = by_peer.get("auto")
        if case in WANTED and auto and "median" in auto:
            ours = f"**{duration(auto['median'])}, {size(auto['peak_bytes'])}**"
            peers = [_ratios(by_peer.get(peer), auto) for peer in IN_SUMMARY]
            rows.append([case, direction, ours, *peers])
    scaled = any(line["scaled"] for line in run)
    text = (
        f"First layer: time and peak memory beyond the inputs, and how many times as much others "
        f"take.{' Sizes scaled down for a CPU.' if scaled else ''}\n\n"
        f"{markdown(rows)}\n\n{_run(run[0])}{_missing(run)}\n"
    )
    text += _table4_of(device, run[0]["kind"])
    pictures = _figures(device, ("time", "table4"), above="docs/")
    return f"{text}\n{pictures}\n" if pictures else text


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
        parts.append(f"## {device}\n\n{_run(run[0])}{_missing(run)}")
        parts.append(_roofs(run[0]))
        parts.append(_figures(device))
        layers = [line for line in run if line["family"] == "workload"]
        sweeps = complete_run(lines, device, "family", set(SWEEPS))
        variants = [line for line in sweeps if line["family"] in ("dtype", "layout")]
        rows = latest_rows(read("table4"), device)
        table4 = f"{table4_table(rows)}\n\n{table4_claims(rows)}" if rows else ""
        kept = "Kept for the backward pass, beyond the inputs; the output is included"
        sections = {
            "W1 to W5: time": f"{table(layers, 'median')}\n\n{_note(layers)}",
            "The same, warm": table(layers, "warm_median"),
            "W1 to W5: peak memory beyond the inputs": table(layers, "peak_bytes"),
            kept: table(layers, "saved_bytes"),
            "Dtypes and layouts, training": table(variants, "median", directions=False),
            "Host time of a call": _overhead(device),
            "Table 4 of the paper": table4,
        }
        parts += [f"### {title}\n\n{text}" for title, text in sections.items() if text]
    return "\n\n".join(part for part in parts if part) + "\n"


BLOCKS = {
    "summary": summary_block,
    "results": results_block,
    "planner": planner_block,
    **EXTRA_BLOCKS,
}


def _run(line: Line) -> str:
    commit = str(line["commit"]).split("+")[0][:9]
    changed = ", with uncommitted changes" if "+" in str(line["commit"]) else ""
    return (
        f"{line['device']}; torch {line['torch']}, Python {line['python']}, commit "
        f"{commit}{changed}; {line['date'][:16].replace('T', ' ')} UTC."
    )


def _missing(run: Sequence[Line]) -> str:
    """What a run that was cut short did not come to."""
    missing = sorted(WANTED - {line["case"] for line in run})
    return f" The run was cut short: {', '.join(missing)} did not run." if missing else ""


def _ratios(line: Line | None, auto: Line) -> str:
    if line is None:
        return ""
    if line.get("problem"):
        return str(line["problem"]).split(":")[0]
    time, memory = times_auto(line, auto), line["peak_bytes"] / auto["peak_bytes"]
    return f"{_times(time)} time, {_times(memory)} memory"


def _times(ratio: float) -> str:
    return f"{ratio:.2f}x" if ratio < 9.995 else f"{ratio:.0f}x"


def _roofs(run: Line) -> str:
    roofs = [r for r in read("roofs") if (r["date"], r["device"]) == (run["date"], run["device"])]
    texts = [
        f"{r['dtype']} {r['flops'] / 1e9:,.0f} GFLOP/s, copy {r['bytes'] / 1e9:,.0f} GB/s"
        for r in roofs
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
        if line is None or (key not in line and not line.get("problem")):
            return ""
        if line.get("problem"):
            return str(line["problem"]).split(":")[0]
        return size(line[key]) if "bytes" in key else duration(line[key])

    cases = by_case(lines)
    peers = [name for name in PEERS if any(cell(line.get(name)) for line in cases.values())]
    rows = [["", *[""] * directions, *(PEERS[peer] for peer in peers)]]
    for (case, direction), by_peer in cases.items():
        cells = [cell(by_peer.get(peer)) for peer in peers]
        if any(cells):
            rows.append([case, *[direction] * directions, *cells])
    return markdown(rows) if any(key in line for line in lines) else ""


def _note(lines: Sequence[Line]) -> str:
    """How far single calls are apart, and the sizes of the cases."""
    sizes = {line["case"]: line["sizes"] for line in lines}
    spread = [(line["p80"] - line["p20"]) / line["median"] for line in lines if "median" in line]
    middle = sorted(spread)[len(spread) // 2]
    return (
        f"Medians; from the 20th to the 80th percentile it is {middle:.0%} of the median (median "
        f"of all). {'; '.join(f'{case}: {text}' for case, text in sizes.items())}."
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
        pattern = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
        if pattern.search(text):
            block = f"{start}\n\n{make()}\n{end}"
            text = pattern.sub(lambda _, block=block: block, text)  # type: ignore[misc]
            names.append(name)
    return text, names


def main(arguments: list[str] | None = None) -> int:
    """Write the blocks, or check them; 1 if a check finds them different."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args(arguments).check
    status = 0
    for path in FILES:
        before = path.read_text(encoding="utf-8")
        after, names = replaced(before)
        state = "as the results say" if before == after else "written"
        if check and before != after:
            state, status = "NOT as the results say: python -m bench.report", 1
        print(f"{path.relative_to(ROOT)}: {', '.join(names) or 'no block'}: {state}")
        if not check:
            path.write_text(after, encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
