"""Runs of a list of configurations, each once; a killed program goes on when started again.

A configuration is a frozen dataclass. Each finished run appends one JSON line to the result file;
a configuration that is there already is skipped. Tables and plots are drawn from the file alone.
"""

from __future__ import annotations

import dataclasses
import datetime
import fcntl
import json
import multiprocessing
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

__all__ = ["Metrics", "plain", "read", "run_all"]

Metrics = dict[str, Any]


def read(path: Path) -> list[dict[str, Any]]:
    """The finished runs. A line that a killed process left incomplete is passed over."""
    if not path.exists():
        return []
    runs = []
    for line in path.read_text().splitlines():
        try:
            runs.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return runs


def run_all(
    configurations: Iterable[Any],
    run: Callable[[Any], Metrics],
    path: Path,
    *,
    processes: int,
    limit: int | None = None,
) -> None:
    """Run what is not yet in `path`: several at a time with one thread each, or in this process.

    Args:
        configurations: frozen dataclasses whose fields are JSON values.
        run: a function of a module (it is sent to other processes) that returns the metrics.
        path: the file of JSON lines.
        processes: how many runs at a time; 1 runs them in this process.
        limit: stop after so many.

    Raises:
        RuntimeError: naming the configurations that failed, after all others have finished.
    """
    done = [result["configuration"] for result in read(path)]
    waiting = [c for c in configurations if plain(c) not in done]
    print(f"{len(done)} runs in {path}, {len(waiting)} to do", flush=True)
    failures = []
    outcomes = _outcomes(run, waiting[:limit], processes)
    for configuration, outcome in tqdm(outcomes, total=len(waiting[:limit]), unit="run"):
        if isinstance(outcome, Exception):
            failures.append(f"{configuration}: {outcome!r}")
        else:
            _append(path, _record(configuration, *outcome))
    if failures:
        raise RuntimeError("failed runs:\n" + "\n".join(failures))


def plain(configuration: Any) -> dict[str, Any]:
    """As it reads back from JSON: tuples have become lists."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(configuration)))
    return plain


def _outcomes(
    run: Callable[[Any], Metrics], configurations: list[Any], processes: int
) -> Iterator[tuple[Any, tuple[Metrics, float] | Exception]]:
    """Each configuration with its metrics and seconds, or what went wrong, as they finish."""
    if processes == 1:
        for configuration in configurations:
            yield configuration, _timed(run, configuration)
        return
    # Fresh interpreters: forked children would inherit the state of this one's thread pools.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_one_thread) as pool:
        futures = {pool.submit(_timed, run, c): c for c in configurations}
        for future in as_completed(futures):
            yield futures[future], future.result()


def _one_thread() -> None:
    torch.set_num_threads(1)


def _timed(run: Callable[[Any], Metrics], configuration: Any) -> tuple[Metrics, float] | Exception:
    start = time.perf_counter()
    try:
        return run(configuration), time.perf_counter() - start
    except Exception as error:  # one failed run does not stop the others
        return error


def _record(configuration: Any, metrics: Metrics, seconds: float) -> dict[str, Any]:
    return {
        "configuration": plain(configuration),
        "metrics": metrics,
        "seconds": round(seconds, 1),
        "date": f"{datetime.date.today():%Y-%m-%d}",
        "device": f"{platform.machine()} CPU with {os.cpu_count()} cores",
        "torch": torch.__version__,
        "commit": _commit(),
    }


def _commit() -> str:
    here = Path(__file__).resolve().parent
    command = ["git", "rev-parse", "--short", "HEAD"]
    result = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"


def _append(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # two harnesses may write to one file
        # On a line of its own, also after one that a killed process left incomplete.
        start = "" if file.tell() == 0 or path.read_bytes().endswith(b"\n") else "\n"
        file.write(start + json.dumps(record) + "\n")
