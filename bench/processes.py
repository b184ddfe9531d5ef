"""A function in a process of its own, whose peak memory no earlier work hides.

The process is forked from one that has imported torch and the networks and done nothing else, so
it starts within milliseconds; it has no threads yet, and its high-water mark begins with it.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

__all__ = ["available_memory", "in_own_process"]


def in_own_process(function: Callable[..., Iterator[Any]], *arguments: Any) -> Iterator[Any]:
    """What the generator function yields in a process that ends with this generator.

    It goes on there only when the next value is asked for.

    Raises:
        MemoryError: the process was killed, as the system does when memory runs out.
        RuntimeError: the function raised; the message holds what.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench.networks"])
    here, there = context.Pipe()
    process = context.Process(target=_answer, args=(there, function, arguments))
    process.start()
    there.close()
    try:
        while True:
            try:
                here.send(None)
                value, error, ended = here.recv()
            except (EOFError, OSError):
                process.join()
                raise MemoryError(f"the process ended with {process.exitcode}") from None
            if error:
                raise RuntimeError(error)
            if ended:
                return
            yield value
    finally:
        here.close()
        process.join()


def _answer(here: Connection, function: Callable[..., Iterator[Any]], arguments: Any) -> None:
    """Send (value, error, whether there are no more), one for each request."""
    try:
        here.recv()
        for value in function(*arguments):
            here.send((value, "", False))
            here.recv()
        here.send((None, "", True))
    except EOFError:  # no more is wanted
        return
    except Exception as error:
        here.send((None, f"{type(error).__name__}: {error}", True))


def available_memory() -> float:
    """Bytes that can be had without swapping; infinite where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    (line,) = (line for line in lines if line.startswith("MemAvailable:"))
    return float(line.split()[1]) * 1024
