"""A function in a process of its own, whose peak memory no earlier work hides.

The process is forked from one that has imported torch and the networks and done nothing else, so
it starts within milliseconds; it has no threads yet, and its high-water mark begins with it.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

__all__ = ["available_memory", "in_own_process"]


def in_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's result.

    Raises:
        MemoryError: the process was killed, as the system does when memory runs out.
        RuntimeError: the function raised; the message holds what.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench.networks"])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        result, error = receiver.recv()
    except EOFError:
        process.join()
        raise MemoryError(f"the process ended with {process.exitcode}") from None
    process.join()
    if error:
        raise RuntimeError(error)
    return result


def _send(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        sender.send((function(*arguments), ""))
    except Exception as error:
        sender.send((None, f"{type(error).__name__}: {error}"))


def available_memory() -> float:
    """Bytes that can be had without swapping; infinite where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    (line,) = (line for line in lines if line.startswith("MemAvailable:"))
    return float(line.split()[1]) * 1024
