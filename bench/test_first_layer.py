"""W1 to W5, the sweeps and an ensemble by every peer, and what calls cost the host.

    pytest bench --benchmark-only                         # on the GPU if there is one
    pytest bench --benchmark-only -k "W1 and training"    # a part of it
    PIXELNET_TEST_DEVICE=cpu pytest bench --benchmark-only

    pytest bench/test_first_layer.py -k compiles -n 8     # before, so that these compile nothing

Each peer is compared with the float64 reference before it is timed (accuracy.py), and takes turns
with the library's choice (timing.py). The sweeps are measured in training, which is what the
library is for. The host's time is that of a call of next to nothing: on a GPU, which is awaited
between calls only, until the call returns.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.inputs import make_inputs
from bench.machine import DEVICE
from bench.measure import Ledger, run_once
from bench.peers import OTHERS, names_for, peer_of, prepare
from bench.planning import forget_calls, plan_of
from bench.timing import clock
from bench.workloads import SWEEPS, TINY, VGG, WORKLOADS, Case, ensemble, pyramid, registry

# torch.compile imports parts of torch that are deprecated themselves.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

ON_CPU = DEVICE.type == "cpu"
CASES = [
    Case(workload, training)
    for workload in (*registry(ON_CPU), ensemble(ON_CPU))
    for training in ((True,) if workload.family in SWEEPS else (False, True))
]
WITH_PEERS = [(case, peer) for case in CASES for peer in names_for(case, DEVICE)]
PLANS = [(c, p) for c, p in WITH_PEERS if c.workload.family == "workload" and p not in OTHERS]


@pytest.mark.benchmark(timer=clock(DEVICE))
@pytest.mark.parametrize(("case", "peer"), WITH_PEERS, ids=str)
def test_first_layer(benchmark: Any, ledger: Ledger, case: Case, peer: str) -> None:
    chosen, *_ = names_for(case, DEVICE)
    lines = ledger.measure(benchmark, case, (chosen, peer))
    ledger.write(benchmark, "first_layer", lines[peer])


@pytest.mark.benchmark(group="host time of a call")
@pytest.mark.parametrize("peer", ["auto", "two_step", "product", "grid_sample", "point_sample"])
@pytest.mark.parametrize("training", [False, True], ids=["forward", "training"])
def test_host_call(benchmark: Any, ledger: Ledger, training: bool, peer: str) -> None:
    def empty_queue() -> None:
        if not ON_CPU:
            torch.cuda.synchronize(DEVICE)

    case = Case(TINY, training)
    inputs = make_inputs(TINY, DEVICE).requires_grad_(training)
    with torch.set_grad_enabled(training):
        call = prepare(peer_of(peer, case, DEVICE), inputs)
        benchmark.pedantic(call, setup=empty_queue, rounds=800, warmup_rounds=20)
    line: dict[str, Any] = {"peer": peer, "direction": case.direction, "sizes": TINY.sizes()}
    if benchmark.enabled:
        line["median"] = benchmark.stats.stats.median
    ledger.write(benchmark, "overhead", line)


@pytest.mark.benchmark(group="planning a call")
@pytest.mark.parametrize("similar", [False, True], ids=["first", "similar"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_planning(benchmark: Any, device: str, similar: bool) -> None:
    """What is paid for each kind of call, in training W5: for the first one, which reads the
    profile, too, and after an image of similar size. Without a GPU it is planned for an H200."""

    def plan(side: int) -> None:
        layers = pyramid(VGG[:5], side)
        workload = replace(WORKLOADS[4], layers=layers, image_size=(side, side))
        plan_of("auto", Case(workload, training=True), torch.device(device))

    def setup() -> None:
        forget_calls()
        if similar:
            plan(222)

    benchmark.pedantic(lambda: plan(224), setup=setup, rounds=50)


@pytest.mark.parametrize(("case", "peer"), PLANS, ids=str)
def test_plan_compiles(case: Case, peer: str) -> None:
    run_once(case, [peer])
