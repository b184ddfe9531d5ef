"""An object in a process of its own."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

Ask = Callable[..., Any]


class Failed(Exception):
    """What a process was asked for went wrong; the message says in which, and how."""


class Ended(Failed):
    """... and the process is no more: it crashed, or was killed, as where memory runs out."""


@contextlib.contextmanager
def in_own_process(
    name: str,
    make: Callable[..., object],
    *arguments: object,
    preload: str = "",
    limit: float | None = None,
) -> Iterator[Ask]:
    """Within the block, ``ask(method, *arguments)`` calls a method of the object that `make` made.

    Args:
        name: of the process, in messages.
        preload: a module. The process is forked from one that has imported it and done nothing
            else, so that no earlier work hides its peak memory. Without it the process is new, down
            to the addresses of its memory, and nothing is imported.
        limit: seconds after which the process ends itself, if it has not answered.

    Raises:
        Failed: `make` or a method raised. Ended: the process is no more.
    """
    context = multiprocessing.get_context("forkserver" if preload else "spawn")
    context.set_forkserver_preload([preload] if preload else [])
    with ProcessPoolExecutor(1, context) as pool:

        def call(function: Callable[..., Any], *arguments: object) -> Any:
            try:
                return pool.submit(function, *arguments).result()
            except BrokenProcessPool:
                raise Ended(f"{name}: the process ended") from None
            except Exception as error:
                raise Failed(f"{name}: {type(error).__name__}: {error}") from error

        call(_begin, make, *arguments)
        yield partial(call, _answer, limit)


_object: object  # in that process


def _begin(make: Callable[..., object], *arguments: object) -> None:
    global _object
    with contextlib.suppress(OSError):  # where memory runs out, Linux ends this process first
        Path("/proc/self/oom_score_adj").write_text("1000")
    _object = make(*arguments)


def _answer(limit: float | None, method: str, *arguments: object) -> Any:
    if limit is not None:
        faulthandler.dump_traceback_later(limit, exit=True)
    try:
        return getattr(_object, method)(*arguments)
    finally:
        faulthandler.cancel_dump_traceback_later()
