"""Timing: peers take turns in rounds, so that drift of the machine hits all alike.

pytest-benchmark times one function after another, and a drift of the machine in between would pass
for a difference. So it times one peer of each round, after all others had their turn in it.

Warm calls follow one another. Before each cold call a buffer is touched that takes the place of
what is in the caches, whoever times it; on a GPU cold calls rotate through copies of the inputs,
too (inputs.py), where there are any.

A CPU's calls are timed by the wall clock. A GPU's by a pair of events around each call, while the
host is ahead: the queue is first filled with work that takes longer than the host needs to issue
the calls, so that events bound the device's time and nothing else.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Mapping, Sequence
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


Figures = dict[str, float]


def summary(seconds: Sequence[float], prefix: str = "") -> Figures:
    """Median, 20th and 80th percentile, and how many there are; nothing of none."""
    if not seconds:
        return {}
    median, p20, p80 = np.quantile(seconds, (0.5, 0.2, 0.8)).tolist()
    figures = {"median": median, "p20": p20, "p80": p80, "samples": len(seconds)}
    return {f"{prefix}{name}": figure for name, figure in figures.items()}


class _Peer:
    """The turns of one peer. Its call has run before: compilation and tuning are over."""

    def __init__(self, copies: Sequence[Function], device: torch.device) -> None:
        self._device, self._call, self._copies = device, copies[0], itertools.cycle(copies)
        self.host = host_seconds(self._call, device)
        (first,) = time_calls([self._call], device, self.host)
        self._slow = first > SLOW
        self.rounds = ROUNDS_OF_SLOW if self._slow else ROUNDS
        self._count = max(1, min(CALLS[device.type], int(SLOT[device.type] / max(first, 1e-6))))
        self.warm: list[float] = []
        self.cold: list[float] = []

    def next_copy(self) -> Function:
        """The call on the copy of the inputs that was longest ago."""
        return next(self._copies)

    def turn_warm(self) -> None:
        """One more call is not counted: it finds the caches full of what the last peer left."""
        uncounted = 0 if self._slow else 1
        calls = [self._call] * (uncounted + self._count)
        self.warm += time_calls(calls, self._device, self.host)[uncounted:]

    def turn_cold(self) -> None:
        """As many calls on a GPU, one on a CPU."""
        count = 1 if self._device.type == "cpu" else self._count
        calls = [self.next_copy() for _ in range(count)]
        self.cold += time_calls(calls, self._device, self.host, cold=True)


def in_turns(
    calls: Mapping[str, Sequence[Function]], device: torch.device, benchmark: Any = None
) -> dict[str, Figures]:
    """Peers take turns: summaries of their warm calls and, with the prefix `cold_`, of cold ones.

    Args:
        calls: for each peer the same call on one copy of the inputs or more. Each has run before.
        device: the CPU or a GPU.
        benchmark: pytest-benchmark's fixture. It times the last peer's cold calls, one a round, by
            its own clock; where it is disabled that peer has none.
    """
    peers = {name: _Peer(copies, device) for name, copies in calls.items()}
    timed = list(peers.values())[-1] if benchmark else None
    shuffled = random.Random(0)  # so that nobody always follows the same neighbour
    numbers = itertools.count()

    def take_turns() -> None:
        number = next(numbers)
        order = [peer for peer in peers.values() if number < peer.rounds]
        shuffled.shuffle(order)
        for peer in sorted(order, key=lambda peer: peer is timed):
            peer.turn_warm()
            if peer is not timed:
                peer.turn_cold()

    if timed is None:
        for _ in range(max((peer.rounds for peer in peers.values()), default=0)):
            take_turns()
    else:

        def setup() -> tuple[tuple[Function], dict[str, object]]:
            take_turns()
            make_cold(device, timed.host)
            return (timed.next_copy(),), {}

        benchmark.pedantic(lambda call: call(), setup=setup, rounds=timed.rounds)
        if benchmark.enabled:
            timed.cold += benchmark.stats.stats.data
    return {name: summary(p.warm) | summary(p.cold, "cold_") for name, p in peers.items()}


def time_calls(
    calls: Sequence[Function], device: torch.device, host: float = 0.0, cold: bool = False
) -> list[float]:
    """Seconds of each call. `host`: what the host needs to issue one, on a GPU."""
    tick, marks = clock(device), []
    if device.type == "cuda" and not cold:
        make_cold(device, host * len(calls))
    for call in calls:
        if cold:
            make_cold(device, host)
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
