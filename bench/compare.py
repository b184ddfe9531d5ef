"""The library at two commits, on the same workloads: does a change make it slower?

    python -m bench.compare main                       # the working tree against main
    python -m bench.compare HEAD~3 --select W1,W5      # on these workloads
    python -m bench.compare main --rounds 5            # more processes a side

BASE is checked out into a temporary worktree. Both sides are measured by the benchmarks of this
working tree, in processes of their own that take turns. Printed is, for each case, the time of
the working tree over that of BASE: the median over the pairs of processes, and the range. A
control, the matrix product alone, is the same code on both sides: what its ratio is off from 1
is noise, and no smaller difference is to be believed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .machine import DEVICE
from .measure import Case, measure_case
from .summary import duration
from .timing import quantile
from .workloads import registry

__all__ = ["Medians", "main", "measured_here", "table", "worktree"]

#: Seconds by "case peer".
Medians = dict[str, float]

ROOT = Path(__file__).resolve().parent.parent
PEERS = ["auto", "product"]

# The library comes from the first folder and is imported first; the benchmarks from the second.
CHILD = """import sys
sys.path.insert(0, sys.argv[1])
import pixelnet_triton
sys.path.insert(0, sys.argv[2])
from bench.compare import measured_here
measured_here(sys.argv[1], sys.argv[3:])"""


@contextmanager
def worktree(base: str) -> Iterator[Path]:
    """A checkout of `base` in a temporary folder.

    Raises:
        subprocess.CalledProcessError: git knows no such commit.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "base")
        _git("worktree", "add", "--detach", str(path), base)
        try:
            yield path
        finally:
            _git("worktree", "remove", "--force", str(path))


def measured_here(library: str, names: Sequence[str]) -> None:
    """In the child: check and time the selected cases, and print the medians as JSON."""
    import pixelnet_triton

    own = Path(pixelnet_triton.__file__).resolve()
    assert own.is_relative_to(Path(library).resolve()), f"imported {own} instead of {library}"
    medians: Medians = {}
    for case in _cases(names):
        for peer, figures in measure_case(case, PEERS, DEVICE).items():
            medians[f"{case} {peer}"] = quantile(figures.samples, 0.5)
    print(json.dumps(medians))


def table(base: Sequence[Medians], here: Sequence[Medians]) -> str:
    """Ratios here / base by case: the median over the pairs, and their range."""
    lines = [f"{'':32} {'base':>9} {'here':>9} {'ratio':>7}   range"]
    for name in base[0]:
        ratios = [after[name] / before[name] for before, after in zip(base, here, strict=True)]
        before, after = (quantile([m[name] for m in side], 0.5) for side in (base, here))
        label = name.replace(" auto", "").replace(" product", " (control)")
        lines.append(
            f"{label:32} {duration(before):>9} {duration(after):>9} "
            f"{quantile(ratios, 0.5):7.3f}   {min(ratios):.3f} to {max(ratios):.3f}"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Measure both sides in turns, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("base", metavar="BASE", help="a commit, tag or branch")
    parser.add_argument("--select", default="W1,W2,W3,W4,W5", help="workloads, by name")
    parser.add_argument("--rounds", type=int, default=3, help="processes a side (default 3)")
    options = parser.parse_args(arguments)
    names = options.select.split(",")
    known = [workload.name for workload in registry(DEVICE.type == "cpu")]
    if unknown := [name for name in names if name not in known]:
        parser.error(f"--select: {', '.join(unknown)} unknown; there are {', '.join(known)}")
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds}; expected at least 1")
    base, here = [], []
    try:
        with worktree(options.base) as folder:
            for number in range(options.rounds):
                print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
                base.append(_run(folder, names))
                here.append(_run(ROOT, names))
    except subprocess.CalledProcessError as error:
        parser.exit(1, f"bench.compare: {' '.join(map(str, error.cmd[:4]))} failed\n")
    print(f"base {options.base}, here {ROOT.name} with its changes, on {DEVICE}; seconds a call")
    print(table(base, here))


def _cases(names: Sequence[str]) -> list[Case]:
    by_name = {workload.name: workload for workload in registry(DEVICE.type == "cpu")}
    return [Case(by_name[name], training) for name in names for training in (False, True)]


def _run(library: Path, names: Sequence[str]) -> Medians:
    command = [sys.executable, "-c", CHILD, str(library), str(ROOT), *names]
    # not in a folder with the package in it, which would come first on the path
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(command, cwd=empty, stdout=subprocess.PIPE, text=True, check=True)
    medians: Medians = json.loads(done.stdout.splitlines()[-1])
    return medians


def _git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)


if __name__ == "__main__":
    main()
