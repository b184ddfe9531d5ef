"""The paper's claims at a scale for two CPU cores: Tables 1, 2 and 6, and the four tasks.

    python -m examples.experiments run                  # everything, 3 seeds, two runs at a time
    python -m examples.experiments run table2 --seeds 5
    python -m examples.experiments report               # tables and plots from the results alone

CamVid and BSDS500 are read from the folders camvid and bsds500 below PIXELNET_DATA. Every finished
run is a line in examples/results/runs.jsonl and is not run again: killed, the same command goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .harness import read, run_all
from .report import draw, markdown
from .runs import run
from .tables import TABLES, configurations

RESULTS = Path(__file__).resolve().parent.parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m examples.experiments",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "command", choices=("run", "report"), help="what is missing, or tables of what there is"
    )
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=", ".join(TABLES))
    parser.add_argument("--seeds", type=int, default=3, help="of every row (3)")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, a core each")
    parser.add_argument("--limit", type=int, help="stop after so many runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.tables if name not in TABLES]
    if unknown:
        parser.error(f"unknown table {unknown[0]!r}; there are {', '.join(TABLES)}")
    names = arguments.tables or list(TABLES)
    file = arguments.results / "runs.jsonl"
    if arguments.command == "run":
        run_all(
            configurations(names, arguments.seeds),
            run,
            file,
            processes=arguments.processes,
            limit=arguments.limit,
        )
        return 0
    runs = read(file)
    for table in TABLES.values():
        draw(table, runs, arguments.results)
    (arguments.results / "README.md").write_text(markdown(TABLES.values(), runs))
    print(f"{len(runs)} runs; tables and plots in {arguments.results}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
