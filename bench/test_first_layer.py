"""W1 to W5 and the sweeps: the first layer at sparse points by every peer.

    pytest bench --benchmark-only                         # on the GPU if there is one
    pytest bench --benchmark-only -k "W1 and training"    # a part of it
    PIXELNET_TEST_DEVICE=cpu pytest bench --benchmark-only

Each peer is compared with the float64 reference before it is timed (accuracy.py), and takes turns
with the library's choice (ledger.py). The sweeps are measured in training, which is what the
library is for.
"""

from __future__ import annotations

from typing import Any

import pytest

from bench.ledger import Ledger
from bench.machine import DEVICE
from bench.peers import names_for
from bench.timing import clock
from bench.workloads import Case, registry

# torch.compile imports parts of torch that are deprecated themselves.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

CASES = [
    Case(workload, training)
    for workload in registry(on_cpu=DEVICE.type == "cpu")
    for training in ((False, True) if workload.family == "workload" else (True,))
]


@pytest.mark.benchmark(timer=clock(DEVICE))
@pytest.mark.parametrize(
    ("case", "peer"),
    [pytest.param(c, p, id=f"{c}-{p}") for c in CASES for p in names_for(c, DEVICE)],
)
def test_first_layer(benchmark: Any, ledger: Ledger, case: Case, peer: str) -> None:
    ledger.measure(benchmark, case, peer)
