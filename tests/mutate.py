"""Would the tests notice? Put one fault at a time into a copy of the tree, and run its tests.

    python -m tests.mutate                     all faults of tests/faults
    python -m tests.mutate --only momentum     those whose name contains a word
    python -m tests.mutate --jobs 2            two copies at work

The working tree is never written to. A line for each fault says what came of it:

==============  =================================================================================
noticed         a test failed: as it should
SURVIVED        all of its tests passed: a test is missing
DOES NOT APPLY  the text to replace does not stand exactly once in its file
DID NOT RUN     pytest ended without a verdict: the fault breaks an import, or a test is not there
==============  =================================================================================

Before any fault, the tests of all chosen faults are run as they are: a test that fails anyway
notices nothing. The exit status is 1 unless every fault was noticed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from .faults import FAULTS, DoesNotApply, Fault

__all__ = ["Outcome", "copy_tree", "main", "run_faults", "tests_pass"]

ROOT = Path(__file__).resolve().parent.parent
NOTICED, SURVIVED = "noticed", "SURVIVED"
DOES_NOT_APPLY, DID_NOT_RUN = "DOES NOT APPLY", "DID NOT RUN"
# What is not of the tree, and bytecode: a patched file of equal size and second would be taken
# for the one that was compiled.
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "out", "build", "dist", "*.egg-info", "__pycache__", ".*_cache",
    ".hypothesis", ".benchmarks",
)  # fmt: skip
# Triton decides on import whether kernels are interpreted: these folders have their own process.
INTERPRETED = ("tests/interpreter", "tests/gate")
FAILED, PASSED = 1, 0  # exit statuses of pytest


@dataclass(frozen=True)
class Outcome:
    """What came of one fault: the verdict, the first test that failed, the seconds."""

    fault: Fault
    verdict: str
    detail: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.verdict:<15}{self.fault.name:<46}{self.seconds:>6.1f} s  {self.detail}"


def copy_tree(root: Path, folder: Path) -> Path:
    """A copy of the checkout in a new folder below `folder`, symbolic links kept."""
    copy = Path(tempfile.mkdtemp(dir=folder)) / "tree"
    shutil.copytree(root, copy, symlinks=True, ignore=LEFT_OUT)
    return copy


def tests_pass(root: Path, tests: Iterable[str]) -> tuple[int, str]:
    """pytest's exit status and output for tests below `root`; the first that is not 0 counts."""
    chosen = sorted(set(tests))
    interpreted = [test for test in chosen if test.startswith(INTERPRETED)]
    others = [test for test in chosen if not test.startswith(INTERPRETED)]
    status, output = PASSED, ""
    for group, interpret in ((others, False), (interpreted, True)):
        if group and status == PASSED:
            status, output = _pytest(root, group, interpret)
    return status, output


def _pytest(root: Path, tests: Sequence[str], interpret: bool) -> tuple[int, str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    environment.pop("TRITON_INTERPRET", None)
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(root)}
    environment |= {"TRITON_INTERPRET": "1"} if interpret else {}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def try_fault(fault: Fault, root: Path) -> Outcome:
    """Run a fault's tests with it in the copy `root`, which is afterwards as it was."""
    start = time.monotonic()
    try:
        patched = fault.patched(root)
    except DoesNotApply as error:
        return Outcome(fault, DOES_NOT_APPLY, str(error), 0.0)
    path = root / fault.file
    before = path.read_text()
    path.write_text(patched)
    try:
        status, output = tests_pass(root, fault.tests)
    finally:
        path.write_text(before)
    verdict = {PASSED: SURVIVED, FAILED: NOTICED}.get(status, DID_NOT_RUN)
    first = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    if verdict == NOTICED:
        detail = first[1].removeprefix("tests/") if first else ""
    elif verdict == SURVIVED:
        detail = f"{fault.file}: {' '.join(fault.tests)} pass"
    else:
        detail = f"exit status {status}: {output.strip().splitlines()[-1:]}"
    return Outcome(fault, verdict, detail, time.monotonic() - start)


def run_faults(faults: Sequence[Fault], root: Path, jobs: int = 1) -> Iterator[Outcome]:
    """The outcome of each fault, in order, on `jobs` copies of the tree at `root`."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        copies: SimpleQueue[Path] = SimpleQueue()
        for _ in range(jobs):
            copies.put(copy_tree(root, Path(folder)))

        def run(fault: Fault) -> Outcome:
            copy = copies.get()
            try:
                return try_fault(fault, copy)
            finally:
                copies.put(copy)

        yield from pool.map(run, faults)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", metavar="WORD", help="faults whose name has a word")
    parser.add_argument("--jobs", type=int, default=1, help="copies at work at a time (1)")
    parser.add_argument("--list", action="store_true", help="print the table and run nothing")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: expected at least 1")
    chosen = [f for f in FAULTS if not options.only or any(w in f.name for w in options.only)]
    if not chosen:
        parser.error(f"no fault has a name with one of {options.only}; --list shows all")
    if options.list:
        for fault in chosen:
            print(f"{fault.name:<46}{fault.file}: {fault.old!r} -> {fault.new!r}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        print(f"{len(chosen)} faults; first their tests as they are", flush=True)
        tests = [test for fault in chosen for test in fault.tests]
        status, output = tests_pass(copy_tree(ROOT, Path(folder)), tests)
    if status != PASSED:
        print(output[-4000:])
        print("the tests fail without any fault: mend them first", file=sys.stderr)
        return 1
    outcomes = []
    for outcome in run_faults(chosen, ROOT, options.jobs):
        print(outcome, flush=True)
        outcomes.append(outcome)
    counts = {v: sum(o.verdict == v for o in outcomes) for v in {o.verdict for o in outcomes}}
    print(f"{len(outcomes)} faults: " + ", ".join(f"{n} {v}" for v, n in sorted(counts.items())))
    return 0 if counts == {NOTICED: len(outcomes)} else 1


if __name__ == "__main__":
    raise SystemExit(main())
