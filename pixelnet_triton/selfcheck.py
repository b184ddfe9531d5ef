"""The one command for a machine with a GPU: is the library right there, and how fast is it?

    python -m pixelnet_triton.selfcheck               # from a checkout; installing is not needed
    python -m pixelnet_triton.selfcheck --device cpu  # the same stages on the CPU, for practice

Three stages, each a pytest process of its own:

    tests       the test suite with its tensors on the device
    gate        every configuration of every kernel against float64 (skips all on the CPU)
    benchmarks  pytest bench/ --benchmark-only, the paper's Table 4 included, on the CPU at smaller
                sizes; each figure is appended to bench/results/*.jsonl as soon as it is measured

All of it stays within a total time (--budget, 570 seconds). Time that one stage leaves over goes
to the next; a stage that runs out of its share is stopped and counts as failed. The outcome is
written to bench/results/ as JSON, with device, versions and commit.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from .env_report import environment, format_report

__all__ = ["STAGES", "Outcome", "Stage", "main", "run_stage", "source_commit"]

ROOT = Path(__file__).resolve().parent.parent
GRACE = 8  # seconds for pytest to write its report once a stage is out of time
# pytest, with the interrupt that stops a stage switched on: a shell starts what it puts into the
# background with interrupts ignored, and children inherit that.
PYTEST = """import signal, sys, pytest
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(pytest.main(sys.argv[1:]))"""


@dataclass(frozen=True)
class Stage:
    """One pytest process: what it runs, and its share of the time that is left."""

    name: str
    paths: tuple[str, ...]
    options: tuple[str, ...]
    share: float
    parallel: bool  # correctness may share the device among processes, timing may not


@dataclass
class Outcome:
    """What came of a stage. ``state``: passed, failed, out of time, nothing run or absent."""

    stage: str
    state: str
    seconds: float = 0.0
    budget: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    benchmarks: list[dict[str, Any]] = field(default_factory=list)


STAGES = (
    Stage(
        "tests",
        ("tests",),
        ("--ignore=tests/interpreter", "--ignore=tests/compile_gate", "--ignore=tests/gate"),
        share=1,
        parallel=True,
    ),
    Stage("gate", ("tests/gate",), (), share=1, parallel=True),
    Stage("benchmarks", ("bench",), ("--benchmark-only",), share=2, parallel=False),
)


def run_stage(stage: Stage, device: str, budget: float) -> Outcome:
    """Run one stage within `budget` seconds, its output passed through."""
    if not all((ROOT / path).is_dir() and any((ROOT / path).rglob("*.py")) for path in stage.paths):
        return Outcome(stage.name, "absent")
    with tempfile.TemporaryDirectory() as scratch:
        report, figures = Path(scratch, "junit.xml"), Path(scratch, "benchmark.json")
        command = [*stage.paths, *stage.options, "-q", "--tb=short", "-p", "no:cacheprovider"]
        command += [f"--junitxml={report}"]
        if stage.parallel:
            command += _parallel_options()
        else:
            command += [f"--benchmark-json={figures}"]
        print(f"==> {stage.name}: up to {budget:.0f} s: pytest {' '.join(command)}", flush=True)
        start = time.monotonic()
        status = _run([sys.executable, "-c", PYTEST, *command], _test_environment(device), budget)
        seconds = time.monotonic() - start
        counts, failures = _read_report(report)
        benchmarks = _read_figures(figures)
    return Outcome(
        stage.name,
        _state(status, counts),
        round(seconds, 1),
        round(budget, 1),
        counts,
        failures,
        benchmarks,
    )


def _state(status: int | None, counts: dict[str, int]) -> str:
    if status is None:
        return "out of time"
    if status == 0 and counts.get("passed", 0) > 0:
        return "passed"
    # pytest exits with 5 where nothing was collected, with 0 where everything was skipped
    if status in (0, 5):
        return "nothing run"
    return "failed"


def _run(command: Sequence[str], variables: dict[str, str], budget: float) -> int | None:
    """The exit status, or None where the time ran out."""
    # A session of its own, so that the workers of pytest-xdist can be ended with their parent.
    process = subprocess.Popen(command, cwd=ROOT, env=variables, start_new_session=True)
    try:
        return process.wait(timeout=max(1.0, budget - GRACE))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # pytest then still reports on what it has done
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=GRACE)
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _test_environment(device: str) -> dict[str, str]:
    """The environment of the tests: the device, the tree as import path, the real compiler."""
    # Not that of a surrounding pytest-xdist worker either, inside which nothing is timed.
    dropped = ("TRITON_INTERPRET", "PYTEST_XDIST")
    variables = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    variables["PIXELNET_TEST_DEVICE"] = device
    paths = [str(ROOT), variables.get("PYTHONPATH", "")]
    variables["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return variables


def _parallel_options() -> list[str]:
    """pytest-xdist over some of the cores: compiling kernels is what takes the time."""
    workers = min(8, (os.cpu_count() or 1) // 2)
    available = importlib.util.find_spec("xdist") is not None
    return ["-n", str(workers)] if available and workers > 1 else []


def _read_report(path: Path) -> tuple[dict[str, int], list[str]]:
    """Counts and the names of the failures, from pytest's JUnit report if it was written."""
    if not path.is_file():
        return {}, []
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    root = ElementTree.parse(path)
    for suite in root.iter("testsuite"):
        # from the totals, which leave out a test that was interrupted half-way
        total = int(suite.get("tests", 0))
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped = int(suite.get("skipped", 0))
        counts["failed"] += failed
        counts["skipped"] += skipped
        counts["passed"] += total - failed - skipped
    failures = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in root.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    return counts, failures


def _read_figures(path: Path) -> list[dict[str, Any]]:
    """Per benchmark the name, the times in seconds, and what it adds itself."""
    if not path.is_file() or path.stat().st_size == 0:
        return []
    return [
        {
            "name": bench["fullname"],
            "median": bench["stats"]["median"],
            "min": bench["stats"]["min"],
            "iqr": bench["stats"]["iqr"],
            "rounds": bench["stats"]["rounds"],
            "extra_info": bench["extra_info"],
        }
        for bench in json.loads(path.read_text())["benchmarks"]
    ]


def source_commit() -> str | None:
    """The commit of the checkout, "+changes" where its code differs; None outside git."""
    try:
        head, changes = (
            subprocess.run(
                ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
            ).stdout.strip()
            # Results and figures that a run writes are no change to the code it ran.
            for arguments in (
                ["rev-parse", "HEAD"],
                ["status", "--porcelain", "--", ".", ":!bench/results", ":!docs", ":!*.md"],
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head}+changes" if changes else head


def _device_name(device: str, facts: dict[str, Any]) -> str:
    return facts["cpu"]["name"] if device == "cpu" else torch.cuda.get_device_name(device)


def _require(device: str) -> None:
    """Exit with a message where the check cannot be made at all."""
    if not (ROOT / "tests").is_dir():
        sys.exit("selfcheck: there is no tests/ beside the package: run it from a checkout")
    missing = [
        name
        for name in ("pytest", "pytest_timeout", "pytest_benchmark", "hypothesis", "scipy")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        sys.exit(
            f"selfcheck: {', '.join(missing)} not installed; `make gpu` makes an environment "
            "that has everything, or: pip install -e '.[dev]'"
        )
    if device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit(
            f"selfcheck: torch {torch.__version__} finds no GPU here. Run it on a machine with "
            "one and a CUDA build of torch, or practise with --device cpu"
        )
    if device.startswith("cuda") and importlib.util.find_spec("triton") is None:
        sys.exit("selfcheck: the kernels need Triton: pip install triton")


def _summary(outcome: Outcome) -> str:
    counts = ", ".join(f"{number} {what}" for what, number in outcome.counts.items() if number)
    return f"{outcome.stage:<11} {outcome.state:<12} {outcome.seconds:6.1f} s  {counts}"


def main(arguments: list[str] | None = None) -> int:
    """Run all stages, write the results file, and return 0 if everything passed."""
    parser = argparse.ArgumentParser(
        prog="python -m pixelnet_triton.selfcheck",
        description="Tests, numerical gate and benchmarks on this machine, and a results file.",
    )
    parser.add_argument("--device", default="cuda", help='"cuda", "cuda:1", "cpu" (default cuda)')
    parser.add_argument("--budget", type=float, default=570, help="seconds in all (default 570)")
    parser.add_argument("--output", type=Path, help="results file (default: in bench/results/)")
    options = parser.parse_args(arguments)
    _require(options.device)

    started = time.monotonic()
    facts = environment()
    now = datetime.datetime.now(datetime.timezone.utc)
    print(format_report(facts), flush=True)

    outcomes = []
    for position, stage in enumerate(STAGES):
        left = options.budget - (time.monotonic() - started)
        share = stage.share / sum(later.share for later in STAGES[position:])
        outcomes.append(run_stage(stage, options.device, left * share))

    name = _device_name(options.device, facts)
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    output = options.output or (
        ROOT / "bench" / "results" / f"selfcheck-{slug}-{now:%Y%m%dT%H%M%SZ}.json"
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    results = {
        "date": now.isoformat(timespec="seconds"),
        "device": name,
        "commit": source_commit(),
        "seconds": round(time.monotonic() - started, 1),
        "environment": facts,
        "stages": [asdict(outcome) for outcome in outcomes],
    }
    output.write_text(json.dumps(results, indent=2) + "\n")

    print(f"==> selfcheck on {name}")
    for outcome in outcomes:
        print(_summary(outcome))
    print(f"results: {output}")
    # On the CPU the gate has nothing to do; on a GPU a stage that ran nothing proves nothing.
    good = ("passed", "nothing run", "absent") if options.device == "cpu" else ("passed",)
    return 0 if all(outcome.state in good for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
