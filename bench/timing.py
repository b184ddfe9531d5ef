"""Timing, interleaved: every peer gets a turn in every round, so that drift hits all alike.

On a CPU a call is timed by the wall clock. On a GPU by a pair of events around each call, while
the host is ahead: the queue is first filled with work that takes longer than the host needs to
issue the calls, so that events bound the device's time and nothing else. Inputs rotate through
copies (inputs.py), so none lie in the L2 cache. What the host needs is measured on its own.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

__all__ = ["Samples", "graph_seconds", "interleaved", "quantile", "time_calls"]

Function = Callable[[], object]

ROUNDS = 5
SLOT = {"cpu": 0.06, "cuda": 0.02}  # seconds that a peer's calls take in one round
CALLS = {"cpu": 10, "cuda": 20}  # and how many these are at most
# A call of this many seconds is made once before the rounds, and in the first of them only.
SLOW, ROUNDS_OF_SLOW = 0.15, 2


@dataclass
class Samples:
    """Seconds of every call; `host`: seconds until one returns, a GPU not awaited (0: a CPU)."""

    seconds: list[float] = field(default_factory=list)
    host: float = 0.0

    def summary(self) -> dict[str, float]:
        """Median, 20th and 80th percentile, and their number."""
        return {
            "median": quantile(self.seconds, 0.5),
            "p20": quantile(self.seconds, 0.2),
            "p80": quantile(self.seconds, 0.8),
            "samples": len(self.seconds),
        }


def quantile(values: Sequence[float], share: float) -> float:
    """By linear interpolation between the ordered values."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def interleaved(
    calls: Mapping[str, Sequence[Function]], device: torch.device
) -> dict[str, Samples]:
    """Time the peers in turns.

    Args:
        calls: for each peer the same call on one copy of the inputs or more, taken in turn.
            Each has run before: compilation and tuning are over.
        device: the CPU or a GPU.

    Returns:
        By peer, the seconds of each call.
    """
    turns = {name: itertools.cycle(own) for name, own in calls.items()}
    found = {name: Samples() for name in calls}
    first: dict[str, float] = {}
    for name, own in turns.items():
        found[name].host = _host_seconds(own, device)
        (first[name],) = time_calls([next(own)], device, found[name].host)
        if first[name] > SLOW:
            found[name].seconds.append(first[name])
    order = list(turns)
    shuffled = random.Random(0)  # so that nobody always follows the same neighbour
    for number in range(ROUNDS):
        shuffled.shuffle(order)
        for name in order:
            host = found[name].host
            if first[name] > SLOW:
                if number < ROUNDS_OF_SLOW:
                    found[name].seconds += time_calls([next(turns[name])], device, host)
                continue
            count = max(1, min(CALLS[device.type], int(SLOT[device.type] / first[name])))
            # One more, not counted: it finds the caches full of what the last peer left there.
            batch = [next(turns[name]) for _ in range(count + 1)]
            found[name].seconds += time_calls(batch, device, host)[1:]
    return found


def time_calls(calls: Sequence[Function], device: torch.device, host: float = 0.0) -> list[float]:
    """Seconds of each call. `host`: what the host needs to issue one, on a GPU."""
    if device.type == "cpu":
        return [_wall_seconds(call) for call in calls]
    starts, ends = ([torch.cuda.Event(enable_timing=True) for _ in calls] for _ in range(2))
    torch.cuda.synchronize(device)
    _occupy(device, 1.5 * host * len(calls))
    for start, call, end in zip(starts, calls, ends, strict=True):
        start.record()
        call()
        end.record()
    torch.cuda.synchronize(device)
    return [s.elapsed_time(e) / 1e3 for s, e in zip(starts, ends, strict=True)]


def graph_seconds(call: Function, device: torch.device) -> float | None:
    """Median seconds of a replay of the call as a CUDA graph; None where it cannot be captured.

    The host takes no part in a replay. Its inputs are those of the capture, so unlike the other
    figures this one may find them in the L2 cache.
    """
    if device.type == "cpu":
        return None
    try:
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(3):
                call()
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
    except RuntimeError:
        torch.cuda.synchronize(device)
        return None
    return quantile(time_calls([graph.replay] * 10, device, 20e-6), 0.5)


def _wall_seconds(call: Function) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _host_seconds(own: Iterator[Function], device: torch.device) -> float:
    """Seconds until a call returns, the least of three."""
    if device.type == "cpu":
        return 0.0
    next(own)()
    torch.cuda.synchronize(device)
    seconds = min(_wall_seconds(next(own)) for _ in range(3))
    torch.cuda.synchronize(device)
    return seconds


def _occupy(device: torch.device, seconds: float) -> None:
    """Keep the device busy for at least this long (0.1 s at most): by clearing a large buffer."""
    size = 256 << 20
    buffer = torch.empty(size, dtype=torch.uint8, device=device)
    fastest = size / 8e12  # seconds, on memory of 8 TB/s, faster than any there is
    for _ in range(1 + int(min(seconds, 0.1) / fastest)):
        buffer.zero_()
