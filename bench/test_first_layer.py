"""W1 to W5 and the sweeps: the first layer at sparse points by every peer.

    pytest bench --benchmark-only                         # on the GPU if there is one
    pytest bench --benchmark-only -k "W1 and training"    # a part of it
    PIXELNET_TEST_DEVICE=cpu pytest bench --benchmark-only

    pytest bench/test_first_layer.py -k compiles -n 8     # before, so that these compile nothing

Each peer is compared with the float64 reference before it is timed (accuracy.py), and takes turns
with the library's choice (timing.py). The sweeps are measured in training, which is what the
library is for.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.inputs import make_inputs
from bench.ledger import Ledger
from bench.machine import DEVICE
from bench.peers import OTHERS, names_for, peer_of, prepare
from bench.timing import clock
from bench.workloads import Case, registry

# torch.compile imports parts of torch that are deprecated themselves.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

CASES = [
    (Case(workload, training), peer)
    for workload in registry(on_cpu=DEVICE.type == "cpu")
    for training in ((False, True) if workload.family == "workload" else (True,))
    for peer in names_for(Case(workload, training), DEVICE)
]
PLANS = [(c, p) for c, p in CASES if c.workload.family == "workload" and p not in OTHERS]


@pytest.mark.benchmark(timer=clock(DEVICE))
@pytest.mark.parametrize(("case", "peer"), CASES, ids=str)
def test_first_layer(benchmark: Any, ledger: Ledger, case: Case, peer: str) -> None:
    lines = ledger.measure(benchmark, case, ("auto", peer))
    ledger.write(benchmark, "first_layer", lines[peer])


@pytest.mark.parametrize(("case", "peer"), PLANS, ids=str)
def test_plan_compiles(case: Case, peer: str) -> None:
    """One call of each of the library's plans: what it compiles stays in Triton's cache."""
    inputs = make_inputs(case.workload, DEVICE).requires_grad_(case.training)
    with torch.set_grad_enabled(case.training):
        call = prepare(peer_of(peer, case, DEVICE), inputs)
        call()
        assert call.forward().isfinite().all()
