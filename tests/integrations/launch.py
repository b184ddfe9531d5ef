"""Programs of their own processes, with one thread each and without this process's settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["ROOT", "python", "torchrun"]

ROOT = Path(__file__).resolve().parents[2]


def python(*arguments: str, timeout: float = 300, **environment: str) -> str:
    """Standard output of ``python *arguments`` in the root of the checkout."""
    done = _run(arguments, timeout, environment)
    assert done.returncode == 0, _output(done)
    return done.stdout


def torchrun(*arguments: str, processes: int = 2) -> str:
    """Standard output of ``torchrun`` with so many processes, on any free port.

    In some of ten runs a process of gloo aborts after its last line, while it ends (torch 2.13;
    docs/integration.md, troubleshooting). That is let pass: the callers look for the results.
    """
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
    done = _run((*launcher, *arguments), 300, {})
    aborted_at_exit = "terminate called without an active exception" in done.stderr
    raised = "[rank" in done.stderr  # the prefix that torch gives the traceback of a rank
    assert done.returncode == 0 or (aborted_at_exit and not raised), _output(done)
    return done.stdout


def _run(
    arguments: tuple[str, ...], timeout: float, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "RANK"))}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**inherited, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def _output(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout[-4000:] + done.stderr[-8000:]
