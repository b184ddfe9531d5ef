"""One call of each of the library's plans on W1 to W5: what it compiles stays in Triton's cache.

pytest bench/test_compile.py -n 8     # before the benchmarks, so that they compile nothing
"""

from __future__ import annotations

import pytest
import torch

from bench.inputs import make_inputs
from bench.machine import DEVICE
from bench.measure import Case
from bench.peers import peers_for, prepare
from bench.workloads import registry

CASES = [
    Case(workload, training)
    for workload in registry(on_cpu=DEVICE.type == "cpu")
    if workload.family == "workload"
    for training in (False, True)
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_plans_compile(case: Case) -> None:
    inputs = make_inputs(case.workload, DEVICE).requires_grad_(case.training)
    with torch.set_grad_enabled(case.training):
        for peer in peers_for(case.peers(DEVICE), case.workload, case.training, DEVICE):
            if peer.library:
                prepare(peer, inputs).once(case.training)()
