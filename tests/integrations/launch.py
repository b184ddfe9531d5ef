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
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "RANK"))}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**inherited, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]
    return done.stdout


def torchrun(*arguments: str, processes: int = 2) -> str:
    """Standard output of ``torchrun`` with so many processes, on any free port."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
    return python(*launcher, *arguments)
