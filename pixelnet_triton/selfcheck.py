"""The one command for a machine with a GPU: is the library right there, and how fast is it?

    python -m pixelnet_triton.selfcheck                 # from a checkout, installed or not
    python -m pixelnet_triton.selfcheck --stages gate,benchmarks
    python -m pixelnet_triton.selfcheck --sanitize      # the gate under compute-sanitizer, too
    python -m pixelnet_triton.selfcheck --dry           # without a GPU: does each stage start?

Stages, each a pytest process of its own; those that only check share the GPU among processes:

    compile     kernels of the gate and of W1 to W5, by all cores, into Triton's cache
    gate        every tile of every kernel against float64
    tests       the core of the test suite, with its tensors on the GPU
    benchmarks  W1 to W5 and the paper's Table 4
    kernels     what each kernel takes of W1 to W5
    sweeps      the other benchmarks
    sanitize    a part of the gate under compute-sanitizer (memcheck), only if asked for

All stay within a total time (--budget). Time that one stage leaves over goes to the next; a stage
that runs out of its share is stopped. Failures are printed by name as they happen. The outcome,
with what failed and what did not run, is written to bench/results/ as JSON after each stage: a
machine may be taken away. Ctrl-C, SIGTERM and SIGHUP end the stage with all its processes, and what
came of it until then is written, too. Each figure of a benchmark is appended to
bench/results/*.jsonl as soon as it is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from .env_report import environment, format_report
from .selfcheck_outcomes import Outcome, read_outcomes, state_of, summary
from .selfcheck_stages import STAGES, Stage
from .tools.cache import write_json
from .tools.machine import slug

__all__ = ["Outcome", "core_tests", "main", "run_stage", "source_commit"]

ROOT = Path(__file__).resolve().parent.parent
BUDGET = 470.0  # seconds, of eight minutes
GRACE = 8.0  # seconds for pytest to write its summary once a stage is out of time
WORKERS = 16  # at most: each has a context on the GPU, of half a gigabyte
# Modules besides torch and the library that tests, gate and benchmarks cannot begin without.
WANTED = ("pytest", "pytest_timeout", "pytest_benchmark", "hypothesis", "triton")
ENDINGS = (signal.SIGTERM, signal.SIGHUP)  # as by a batch system, or by a terminal that is closed
UNUSED = "Benchmark fixture was not used"  # where the test has failed, or was stopped, before


def core_tests() -> list[str]:
    """The files of tests/ whose tests put tensors on a given device, but for the CPU's own."""
    takes_a_device = re.compile(r"^ *def test_\w+\([^)]*\bdevice: torch\.device", re.MULTILINE)
    return [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "tests").glob("test_*.py"))
        if not path.name.startswith("test_cpu_") and takes_a_device.search(path.read_text())
    ]


def run_stage(stage: Stage, device: str, budget: float, dry: Path | None = None) -> Outcome:
    """Run one stage within `budget` seconds, its output passed through.

    Args:
        dry: a folder for what a dry run leaves behind; None is no dry run.
    """
    if stage.tool and not dry and shutil.which(stage.tool[0]) is None:
        return Outcome(stage.name, "skipped", reason=f"{stage.tool[0]} is not on the path")
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch, "outcomes.jsonl")
        command = [*(stage.arguments or core_tests()), *(stage.dry if dry else ())]
        command += ["-q", "--tb=short", "-p", "no:cacheprovider", "-p", "tests.outcomes"]
        command += [f"--outcomes={log}", "-W", f"ignore:{UNUSED}"]
        command += ["--continue-on-collection-errors"]  # the other files have something to tell
        if stage.parallel and not (dry and stage.fake):
            command += _parallel_options()
        print(f"==> {stage.name}: up to {budget:.0f} s: pytest {' '.join(command)}", flush=True)
        command = [*(() if dry else stage.tool), sys.executable, "-m", "pytest", *command]
        start = time.monotonic()
        status = _run(command, _variables(stage, device, dry), budget)
        outcome = read_outcomes(stage.name, log)
    outcome.seconds, outcome.budget = round(time.monotonic() - start, 1), round(budget, 1)
    outcome.state = state_of(status, outcome)
    return outcome


def _run(command: Sequence[str], variables: dict[str, str], budget: float) -> int | str:
    """The exit status, or what ended it: "out of time" or "interrupted"."""
    # A session of its own, so that the workers of pytest-xdist can be ended with their parent.
    process = subprocess.Popen(command, cwd=ROOT, env=variables, start_new_session=True)
    try:
        return process.wait(timeout=max(1.0, budget - GRACE))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # pytest then still sums up what it has done
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=GRACE)
        return "out of time"
    except KeyboardInterrupt:
        return "interrupted"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _variables(stage: Stage, device: str, dry: Path | None) -> dict[str, str]:
    """The environment of a stage: the device, the tree as import path, the real compiler."""
    # Not that of a surrounding pytest-xdist worker either, inside which nothing is timed.
    dropped = ("TRITON_INTERPRET", "PYTEST_XDIST")
    variables = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    paths = [str(ROOT), variables.get("PYTHONPATH", "")]
    variables["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    variables["PIXELNET_TEST_DEVICE"] = device
    if stage.parallel:
        variables["OMP_NUM_THREADS"] = "1"  # the processes fill the cores
    if stage.tool:
        # An access beyond a tensor is seen only where each has an allocation of its own.
        variables["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"
    if dry:
        variables["PIXELNET_BENCH_RESULTS"] = str(dry)  # of a stand-in nobody wants them
        variables["FAKE_CUDA_REACHED"] = str(dry / "reached")
        if not stage.fake:
            variables |= {"PIXELNET_TEST_DEVICE": "cpu", "TRITON_INTERPRET": "1"}
    return variables


def _parallel_options() -> list[str]:
    """pytest-xdist over the cores: compiling, and starting small kernels, is what takes time."""
    workers = min(WORKERS, os.cpu_count() or 1)
    available = importlib.util.find_spec("xdist") is not None
    return ["-n", str(workers), "--dist", "worksteal"] if available and workers > 1 else []


def _reached(dry: Path) -> Outcome:
    """Whether the stages of a dry run have come to every line that speaks to a GPU."""
    command = [sys.executable, "-m", "tests.fake_cuda", str(dry / "reached")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    reason = (done.stdout + done.stderr).strip()
    return Outcome("lines", "failed" if done.returncode else "passed", reason=reason)


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


def _require(device: str, dry: bool) -> None:
    """Exit with a message where the check cannot be made at all."""
    if not (ROOT / "tests").is_dir():
        sys.exit("selfcheck: there is no tests/ beside the package: run it from a checkout")
    missing = [name for name in WANTED if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"selfcheck: {', '.join(missing)} not installed; `make gpu` makes an environment "
            "that has everything, or: pip install -e '.[dev]'"
        )
    if device.startswith("cuda") and not (dry or torch.cuda.is_available()):
        sys.exit(
            f"selfcheck: torch {torch.__version__} finds no GPU here. Run it on a machine with "
            "one and a CUDA build of torch, or see whether its stages start with --dry"
        )


def main(arguments: list[str] | None = None) -> int:
    """Run the stages, write the results file, and return 0 if everything passed."""
    names = [stage.name for stage in STAGES]
    parser = argparse.ArgumentParser(prog="python -m pixelnet_triton.selfcheck")
    parser.description = "Gate, tests and benchmarks on this machine's GPU, and a results file."
    parser.add_argument("--device", default="cuda", help="default: cuda")
    parser.add_argument("--stages", default=",".join(names[:-1]), help="default: %(default)s")
    parser.add_argument("--sanitize", action="store_true", help="the stage sanitize, too")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds (%(default).0f)")
    parser.add_argument("--output", type=Path, help="results file (default: in bench/results/)")
    parser.add_argument("--dry", action="store_true", help="no GPU: do all stages start?")
    options = parser.parse_args(arguments)
    wanted = {*options.stages.split(","), *(["sanitize"] if options.sanitize else [])}
    if unknown := wanted - set(names):
        parser.error(f"--stages: no {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    _require(options.device, options.dry)

    with _signals_interrupt():
        return _check(options, wanted)


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """ENDINGS raise `KeyboardInterrupt`, as Ctrl-C does; not what is ignored, as by nohup."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in ENDINGS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check(options: argparse.Namespace, wanted: set[str]) -> int:
    """Run the stages that are `wanted`; see :func:`main`."""
    names = [stage.name for stage in STAGES]
    started = time.monotonic()
    facts = environment()
    now = datetime.datetime.now(datetime.timezone.utc)
    print(format_report(facts), flush=True)
    # Results are shown to others, whom folders of this machine tell nothing.
    variables = facts["variables"].items()
    facts["variables"] = {n: v for n, v in variables if v is None or not Path(v).is_absolute()}
    outcomes: list[Outcome] = []
    stages = [stage for stage in STAGES if stage.name in wanted]
    on_gpu = options.device.startswith("cuda") and not options.dry
    name = torch.cuda.get_device_name(options.device) if on_gpu else facts["cpu"]["name"]
    results: dict[str, Any] = {
        "date": now.isoformat(timespec="seconds"),
        "device": name,
        "commit": source_commit(),
        "seconds": 0.0,
        "environment": facts,
        "stages": [],
    }
    output = options.output or (None if options.dry else _results_file(name, now))

    def record() -> None:
        results["seconds"] = round(time.monotonic() - started, 1)
        results["stages"] = [asdict(outcome) for outcome in outcomes]
        if output is not None:
            write_json(results, output)

    record()  # where nothing can be written, that shows now
    with tempfile.TemporaryDirectory() as scratch:
        dry = Path(scratch) if options.dry else None
        for position, stage in enumerate(stages):
            left = options.budget - (time.monotonic() - started)
            share = stage.share / sum(later.share for later in stages[position:])
            outcomes.append(run_stage(stage, options.device, left * share, dry))
            print(summary(outcomes[-1]), flush=True)
            record()
            if outcomes[-1].state == "interrupted":
                break
        else:
            if dry and wanted >= set(names[:-1]):
                outcomes.append(_reached(dry))
                record()
    if output is not None:
        print(f"results: {output}")
    print(f"==> selfcheck on {name}, {results['seconds']} s", *map(summary, outcomes), sep="\n")
    # On the CPU the gate has nothing to do; on a GPU a stage that ran nothing proves nothing.
    good = {"passed", "skipped"} if on_gpu or options.dry else {"passed", "skipped", "nothing run"}
    return 0 if all(outcome.state in good for outcome in outcomes) else 1


def _results_file(name: str, now: datetime.datetime) -> Path:
    folder = Path(os.environ.get("PIXELNET_BENCH_RESULTS") or ROOT / "bench" / "results")
    return folder / f"selfcheck-{slug(name)}-{now:%Y%m%dT%H%M%SZ}.json"


if __name__ == "__main__":
    sys.exit(main())
