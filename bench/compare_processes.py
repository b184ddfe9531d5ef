"""The processes of bench.compare: each has one library on its path, and answers requests."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["Ended", "Failed", "Process", "copied_side"]

#: What runs on a side. These files take nothing from the library but its public functions.
FILES = ("compare_side.py", "inputs.py", "timing.py", "workloads.py")
SECONDS = 300.0  # after these a process that has not answered counts as failed


class Failed(Exception):
    """A case that a process could not do; the message says why."""


class Ended(Failed):
    """... and the process is no more."""


@contextlib.contextmanager
def copied_side() -> Iterator[Path]:
    """A folder with FILES and nothing of the library, and with a cache for each role."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "bench").mkdir()
        for file in FILES:
            shutil.copy(Path(__file__).parent / file, folder / "bench" / file)
        yield folder


class Process:
    """A side, to be used in a `with` statement.

    Args:
        folder: from `copied_side`. library: the checkout that it measures.
        role: "base", "control" or "here", for messages and for a cache of its own: profiles and
            tuned configurations of another version, or of the user, shall not decide.
        options: device and threads.

    Raises:
        Failed: it does not start, or not with that library.
    """

    def __init__(self, folder: Path, library: Path, role: str, options: dict[str, Any]) -> None:
        variables = {k: v for k, v in os.environ.items() if not k.startswith("PIXELNET_TRITON_")}
        variables |= {"PYTHONPATH": str(library), "PIXELNET_TRITON_CACHE": str(folder / role)}
        # Its folder comes first on the path, and has nothing of the library.
        command = [sys.executable, "-m", "bench.compare_side"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, cwd=folder, env=variables, stdin=pipe, stdout=pipe
        )
        self._role = role
        try:
            answer = self._exchange(options)
            if Path(answer["library"]) != library.resolve():
                raise Failed(f"{role}: imported {answer['library']} instead of {library}")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def ask(self, request: str, argument: Any) -> Any:
        """The answer to a request.

        Raises:
            Failed: it raised, has ended, or takes longer than SECONDS.
        """
        return self._exchange([request, argument])

    def _exchange(self, request: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise Ended(f"{self._role}: the process has ended") from None
        ready, _, _ = select.select([self._process.stdout], [], [], SECONDS)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            self._process.kill()
            raise Ended(f"{self._role}: {'the process ended' if ready else 'no answer'}")
        answer = json.loads(line)
        if isinstance(answer, dict) and "error" in answer:
            print(answer["error"], file=sys.stderr)
            raise Failed(f"{self._role}: {answer['error'].splitlines()[-1]}")
        return answer
