"""What a call costs the host, and what planning costs, which is paid once for each kind of call.

On a GPU the device is awaited between calls only: what is measured is how long the host is busy
before it can go on. On a CPU the time includes the few operations themselves.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.inputs import make_inputs
from bench.ledger import Ledger
from bench.machine import DEVICE
from bench.peers import peer_of, prepare
from bench.planning import forget_calls
from bench.workloads import TINY, Case
from pixelnet_triton import plan_hypercolumn


def _empty_queue() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize(DEVICE)


@pytest.mark.benchmark(group="host time of a call")
@pytest.mark.parametrize("peer", ["auto", "two_step", "product", "grid_sample", "point_sample"])
@pytest.mark.parametrize("training", [False, True], ids=["forward", "training"])
def test_host_overhead(benchmark: Any, ledger: Ledger, training: bool, peer: str) -> None:
    case = Case(TINY, training)
    inputs = make_inputs(TINY, DEVICE).requires_grad_(training)
    with torch.set_grad_enabled(training):
        call = prepare(peer_of(peer, case, DEVICE), inputs)
        benchmark.pedantic(call, setup=_empty_queue, rounds=800, warmup_rounds=20)
    line: dict[str, Any] = {"peer": peer, "direction": case.direction, "sizes": TINY.sizes()}
    if benchmark.enabled:
        stats = benchmark.stats.stats
        line |= {"median": stats.median, "min": stats.min, "iqr": stats.iqr}
    ledger.write(benchmark, "overhead", line)


@pytest.mark.parametrize("profile", [None, "H200"], ids=["cpu", "gpu"])
def test_new_shape(benchmark: Any, profile: str | None) -> None:
    """Five layers; the profile is read again, too."""
    maps = [torch.empty(1, 8, side, side) for side in (32, 16, 8, 4, 2)]
    benchmark.pedantic(
        lambda: plan_hypercolumn(maps, 2000, 256, profile=profile), setup=forget_calls, rounds=50
    )
