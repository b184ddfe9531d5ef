"""The processes of bench.compare: each times one library, and answers requests."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 300.0  # after these a process that has not answered counts as failed


class Failed(Exception):
    """A case that a process could not do; the message says why."""


class Ended(Failed):
    """... and the process is no more."""


class Process(contextlib.ExitStack):
    """A side, to be used in a `with` statement.

    Args:
        role: "base", "control" or "here", for messages. library: the checkout that it measures.

    Raises:
        Failed: it does not start, or not with that library.
    """

    def __init__(self, role: str, library: Path, device: torch.device, threads: int) -> None:
        super().__init__()
        # A cache of its own: profiles and tuned tiles of another version shall not decide.
        cache = self.enter_context(tempfile.TemporaryDirectory())
        variables = {k: v for k, v in os.environ.items() if not k.startswith("PIXELNET_TRITON_")}
        variables |= {"PIXELNET_TRITON_CACHE": cache}
        command = [sys.executable, "-m", "bench.compare_side"]
        self._process = subprocess.Popen(
            [*command, str(library), str(device), str(threads)],
            cwd=ROOT,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._role = role
        self.enter_context(self._process)
        self.callback(self._process.kill)
        try:
            answer = self._answer()
            if Path(answer) != library.resolve():
                raise Failed(f"{role}: imported {answer} instead of {library}")
        except BaseException:
            self.close()
            raise

    def ask(self, request: str, *arguments: Any) -> Any:
        """The answer of a method of the side.

        Raises:
            Failed: it raised, has ended, or takes longer than SECONDS.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended, and does not answer
            self._process.stdin.write(json.dumps([request, *arguments]).encode() + b"\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
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
