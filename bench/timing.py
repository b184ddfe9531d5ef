"""Timing: peers take turns in rounds, so that drift of the machine hits all alike.

Warm calls follow one another. Before a cold call on a CPU a buffer is touched that takes the place
of everything in the caches; on a GPU cold calls rotate through copies of the inputs (inputs.py).

A CPU's calls are timed by the wall clock. A GPU's by a pair of events around each call, while the
host is ahead: the queue is first filled with work that takes longer than the host needs to issue
the calls, so that events bound the device's time and nothing else.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch

Function = Callable[[], object]

ROUNDS = 10
SLOT = {"cpu": 0.02, "cuda": 0.01}  # seconds that a peer's warm calls take in one round
CALLS = {"cpu": 50, "cuda": 10}  # and how many these are at most
# A peer whose call takes this many seconds has a turn in the first of the rounds only.
SLOW, ROUNDS_OF_SLOW = 0.15, 3
#: The buffer that keeps a GPU busy, and for how long at most.
BUSY_BYTES, BUSY_SECONDS = 256 << 20, 0.1
#: Bytes that are touched before a cold call on a CPU.
COLD_BYTES = 64 << 20


@dataclass
class Samples:
    """Seconds of every call; `host`: seconds until one returns, a GPU not awaited (0: a CPU)."""

    warm: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)
    host: float = 0.0

    def summary(self) -> dict[str, float]:
        """Median, 20th and 80th percentile, and their number: of warm calls, and of cold ones."""
        figures: dict[str, float] = {}
        for prefix, seconds in (("", self.warm), ("cold_", self.cold)):
            if seconds:
                quantiles = np.quantile(seconds, (0.5, 0.2, 0.8)).tolist()
                names = (f"{prefix}median", f"{prefix}p20", f"{prefix}p80")
                figures |= zip(names, quantiles, strict=True)
                figures[f"{prefix}samples"] = len(seconds)
        return figures


class Turns:
    """Peers that take turns.

    Args:
        calls: for each peer the same call on one copy of the inputs or more. Each has run before:
            compilation and tuning are over.
        device: the CPU or a GPU.
    """

    def __init__(self, calls: Mapping[str, Sequence[Function]], device: torch.device) -> None:
        self.device, self._number = device, 0
        self._warm = {name: copies[0] for name, copies in calls.items()}
        self._copies = {name: itertools.cycle(copies) for name, copies in calls.items()}
        self._shuffled = random.Random(0)  # so that nobody always follows the same neighbour
        self.samples: dict[str, Samples] = {}
        self._first: dict[str, float] = {}
        for name, call in self._warm.items():
            host = host_seconds(call, device)
            self.samples[name] = Samples(host=host)
            (self._first[name],) = time_calls([call], device, host)

    def rounds_of(self, name: str) -> int:
        """Rounds that a peer has a turn in."""
        return ROUNDS_OF_SLOW if self._first[name] > SLOW else ROUNDS

    def next_copy(self, name: str) -> Function:
        """The peer's call on the copy of the inputs that was longest ago."""
        return next(self._copies[name])

    def round(self, left: str | None = None) -> None:
        """A turn for each peer.

        Args:
            left: a peer whose turn comes last, and whose cold call is left to the caller; all is
                prepared for it.
        """
        order = [name for name in self._warm if self._number < self.rounds_of(name)]
        self._shuffled.shuffle(order)
        self._number += 1
        for name in sorted(order, key=lambda name: name == left):
            self._turn(name, name == left)

    def _turn(self, name: str, left: bool) -> None:
        samples, device = self.samples[name], self.device
        slow = self._first[name] > SLOW
        count = int(SLOT[device.type] / max(self._first[name], 1e-6))
        count = max(1, min(CALLS[device.type], count))
        # One more, not counted: it finds the caches full of what the last peer left there.
        warm = time_calls([self._warm[name]] * (count + (not slow)), device, samples.host)
        samples.warm += warm if slow else warm[1:]
        if left:
            make_cold(device, samples.host)
        else:
            batch = [self.next_copy(name) for _ in range(1 if device.type == "cpu" else count)]
            samples.cold += time_calls(batch, device, samples.host, cold=True)


def interleaved(
    calls: Mapping[str, Sequence[Function]], device: torch.device
) -> dict[str, Samples]:
    """All rounds of the turns; see :class:`Turns`."""
    turns = Turns(calls, device)
    for _ in range(max(map(turns.rounds_of, calls), default=0)):
        turns.round()
    return turns.samples


def time_calls(
    calls: Sequence[Function], device: torch.device, host: float = 0.0, cold: bool = False
) -> list[float]:
    """Seconds of each call. `host`: what the host needs to issue one, on a GPU."""
    tick, marks = clock(device), []
    if device.type == "cuda":
        make_cold(device, host * len(calls))
    for call in calls:
        if cold and device.type == "cpu":
            make_cold(device)
        start = tick()
        call()
        marks.append((start, tick()))
    return [end - start for start, end in marks]


def make_cold(device: torch.device, host: float = 0.0) -> None:
    """Fill a CPU's caches with something else; give a GPU work for longer than `host` seconds, so
    that the host gets ahead."""
    if device.type == "cpu":
        _elsewhere().add_(1)
        return
    torch.cuda.synchronize(device)
    buffer = torch.empty(BUSY_BYTES, dtype=torch.uint8, device=device)
    fastest = BUSY_BYTES / 8e12  # seconds, on memory of 8 TB/s, faster than any there is
    for _ in range(1 + int(min(1.5 * host, BUSY_SECONDS) / fastest)):
        buffer.zero_()


@lru_cache(maxsize=1)
def _elsewhere() -> torch.Tensor:
    return torch.zeros(COLD_BYTES // 4, dtype=torch.int32)


class Tick:
    """A reading of a GPU's clock: an event in its queue. The difference of two is in seconds."""

    def __init__(self) -> None:
        self.event = torch.cuda.Event(enable_timing=True)
        self.event.record()

    def __sub__(self, start: Tick) -> float:
        self.event.synchronize()
        return float(start.event.elapsed_time(self.event)) / 1e3


def clock(device: torch.device) -> Callable[[], Any]:
    """What times a call on the device, by the difference of two readings in seconds."""
    return time.perf_counter if device.type == "cpu" else Tick


def host_seconds(call: Function, device: torch.device) -> float:
    """Seconds until a call on a GPU returns, the least of three; 0 on a CPU."""
    if device.type == "cpu":
        return 0.0
    seconds = []
    for _ in range(4):
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    torch.cuda.synchronize(device)
    return min(seconds[1:])
