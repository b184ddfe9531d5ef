"""The paper's claims at a scale for two CPU cores.

Networks from scratch: Tables 1, 2 and 6, and the four tasks. On an ImageNet-pretrained backbone:
Tables 1, 2, 3, 6 and 7.

    python -m examples.experiments run                  # both, 3 seeds, two runs at a time
    python -m examples.experiments run table2 --seeds 5
    python -m examples.experiments report               # tables and plots from the results alone

CamVid and BSDS500 are read from the folders camvid and bsds500 below PIXELNET_DATA. Every finished
run is a line in examples/results/runs.jsonl, or pretrained.jsonl if its backbone was pretrained,
and is not run again: killed, the same command goes on. Features of frozen backbones are kept below
PIXELNET_TRITON_CACHE, 7 GB of them; PIXELNET_CHECKPOINTS is a folder for the trained networks.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from . import pretrained, runs
from .harness import read, run_all
from .pretrained_tables import PRETRAINED_TABLES
from .report import draw, draw_boundaries, markdown
from .tables import TABLES, configurations

RESULTS = Path(__file__).resolve().parent.parent / "results"
FIGURES = Path(__file__).resolve().parents[2] / "docs" / "figures"
SETS = (
    ("runs.jsonl", runs.run, TABLES),
    ("pretrained.jsonl", pretrained.run, PRETRAINED_TABLES),
)


def main() -> int:
    known = {name: table for _, _, tables in SETS for name, table in tables.items()}
    parser = argparse.ArgumentParser(
        prog="python -m examples.experiments",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "command", choices=("run", "report"), help="what is missing, or tables of what there is"
    )
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=", ".join(known))
    parser.add_argument("--seeds", type=int, default=3, help="of every row (3)")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, a core each")
    parser.add_argument("--limit", type=int, help="stop after so many runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.tables if name not in known]
    if unknown:
        parser.error(f"unknown table {unknown[0]!r}; there are {', '.join(known)}")
    names = arguments.tables or list(known)
    if arguments.command == "run":
        for file, run, tables in SETS:
            wanted = [table for name, table in tables.items() if name in names]
            run_all(
                configurations(wanted, arguments.seeds),
                run,
                arguments.results / file,
                processes=arguments.processes,
                limit=arguments.limit,
            )
        return 0
    finished = [line for file, _, _ in SETS for line in read(arguments.results / file)]
    for table in known.values():
        draw(table, finished, arguments.results)
    draw_boundaries(finished, FIGURES / "bsds500_pr.png")
    (arguments.results / "README.md").write_text(markdown(known.values(), finished))
    print(f"{len(finished)} runs; tables and plots in {arguments.results}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
