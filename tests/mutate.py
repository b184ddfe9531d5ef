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
import importlib
import importlib.util
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from .faults import FAULTS, DoesNotApply, Fault

__all__ = ["Outcome", "copy_tree", "main", "pass_as_they_are", "run_faults"]

ROOT = Path(__file__).resolve().parent.parent
NOTICED, SURVIVED = "noticed", "SURVIVED"
DOES_NOT_APPLY, DID_NOT_RUN = "DOES NOT APPLY", "DID NOT RUN"
# Files that are not of the tree, and bytecode: Python would take a patched file of equal size and
# second for the compiled one.
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "out", "build", "dist", "*.egg-info", "__pycache__", ".*_cache",
    ".hypothesis", ".benchmarks",
)  # fmt: skip
# Triton decides on import whether kernels are interpreted: these folders have their own process.
INTERPRETED = ("tests/interpreter", "tests/gate")
# What is preloaded cannot be rewritten by pytest, and need not be.
REWRITE = "ignore::pytest.PytestAssertRewriteWarning"
OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "-W", REWRITE)
PASSED, FAILED = 0, 1  # exit statuses of pytest
FAILED_TO_RUN = 3  # pytest's for an error of its own


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


def start_tests(root: Path, tests: Iterable[str], log: Path) -> int:
    """Run tests below `root` in a new process, its output in `log`; returns the process id.

    The process is forked from this one, which has imported what takes longest (:func:`preload`).
    Its exit status is pytest's; with tests for both kinds of Triton, the first that is not 0.
    """
    chosen = sorted(set(tests))
    interpreted = [test for test in chosen if test.startswith(INTERPRETED)]
    others = [test for test in chosen if not test.startswith(INTERPRETED)]

    def run() -> int:
        for group in (others, interpreted):
            if group:
                pid = _forked(lambda: _pytest(root, group, group is interpreted, log))  # noqa: B023
                status = exit_status(os.waitpid(pid, 0)[1])
                if status != PASSED:
                    return status
        return PASSED

    return _forked(run)


def _forked(work: Callable[[], int]) -> int:
    """The id of a new process that does some work and ends with its result as exit status."""
    pid = os.fork()
    if pid:
        return pid
    status = FAILED_TO_RUN
    try:
        status = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _pytest(root: Path, tests: Sequence[str], interpret: bool, log: Path) -> int:
    """pytest's exit status in this process, which sees the tree at `root` and nothing of ours."""
    for name in [name for name in os.environ if name.startswith(("PYTEST_", "TRITON_INTERPRET"))]:
        del os.environ[name]
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    os.environ |= {"TRITON_INTERPRET": "1"} if interpret else {}
    sys.dont_write_bytecode = True
    with log.open("a") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    os.chdir(root)
    sys.path[:] = [str(root), *(path for path in sys.path if Path(path or ".") != ROOT)]
    if interpret:  # Triton, which torch may have imported, has to be imported anew
        program = [sys.executable, "-m", "pytest", *OPTIONS, *tests]
        os.execve(sys.executable, program, os.environ)
    for name in list(sys.modules):
        if name.split(".")[0] in ("tests", "pixelnet_triton", "examples", "bench"):
            del sys.modules[name]
    return int(pytest.main([*OPTIONS, *tests]))


def exit_status(status: int) -> int:
    """The exit status of a waited-for process; a signal counts as an end without a verdict."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else FAILED_TO_RUN


def preload() -> None:
    """Import what the tests import, but nothing of this project."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the copies share the cores
    for name in ("torch", "lightning", "torchmetrics", "scipy.stats", "matplotlib"):
        if importlib.util.find_spec(name.split(".")[0]) is not None:
            importlib.import_module(name)
    assert "pixelnet_triton" not in sys.modules, "a fault in what is imported would not be seen"


@dataclass
class _Run:
    """A fault at work: its copy of the tree, the text before it, the log, the start."""

    fault: Fault
    copy: Path
    before: str
    log: Path
    start: float

    def outcome(self, status: int) -> Outcome:
        """The verdict on pytest's exit status; the copy is afterwards as it was."""
        fault = self.fault
        (self.copy / fault.file).write_text(self.before)
        output = self.log.read_text()
        verdict = {PASSED: SURVIVED, FAILED: NOTICED}.get(status, DID_NOT_RUN)
        first = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
        detail = f"exit status {status}: {output.strip().splitlines()[-1:]}"
        if verdict == NOTICED:
            detail = first[1].removeprefix("tests/") if first else ""
        elif verdict == SURVIVED:
            detail = f"{fault.file}: {' '.join(fault.tests)} pass"
        return Outcome(fault, verdict, detail, time.monotonic() - self.start)


def run_faults(faults: Iterable[Fault], root: Path, jobs: int = 1) -> Iterator[Outcome]:
    """The outcome of each fault as it comes, on `jobs` copies of the tree at `root`."""
    waiting = list(faults)[::-1]
    running: dict[int, _Run] = {}
    with tempfile.TemporaryDirectory() as folder:
        free = [copy_tree(root, Path(folder)) for _ in range(jobs)]
        while waiting or running:
            while waiting and free:
                fault, copy = waiting.pop(), free.pop()
                try:
                    patched = fault.patched(copy)
                except DoesNotApply as error:
                    free.append(copy)
                    yield Outcome(fault, DOES_NOT_APPLY, str(error), 0.0)
                    continue
                path, log = copy / fault.file, copy.parent / f"{fault.name}.log"
                run = _Run(fault, copy, path.read_text(), log, time.monotonic())
                path.write_text(patched)
                log.touch()
                running[start_tests(copy, fault.tests, log)] = run
            if running:
                pid, status = os.wait()
                run = running.pop(pid)
                free.append(run.copy)
                yield run.outcome(exit_status(status))


def pass_as_they_are(faults: Iterable[Fault], root: Path) -> tuple[bool, str]:
    """Whether the tests of all faults pass without any, and pytest's output."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        log.touch()
        tests = [test for fault in faults for test in fault.tests]
        pid = start_tests(copy_tree(root, Path(folder)), tests, log)
        return exit_status(os.waitpid(pid, 0)[1]) == PASSED, log.read_text()


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
    preload()
    print(f"{len(chosen)} faults; first their tests as they are", flush=True)
    passed, output = pass_as_they_are(chosen, ROOT)
    if not passed:
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
