"""Where the time of W1 to W5 goes on a GPU: each kernel of the library's choice.

    pytest bench/test_kernels.py --benchmark-only -k "W4 and forward"

The gaps between kernels are what is left of the time that test_first_layer.py measures.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.inputs import make_inputs, rotated
from bench.kernels import profiled
from bench.machine import DEVICE
from bench.measure import Ledger, free
from bench.peers import peer_of, prepare
from bench.workloads import Case, registry

PASSES = 20
CASES = [
    Case(workload, training)
    for workload in registry(DEVICE.type == "cpu")
    if workload.family == "workload"
    for training in (False, True)
]


@pytest.mark.skipif(DEVICE.type == "cpu", reason="kernels are a GPU's")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernels(benchmark: Any, ledger: Ledger, case: Case) -> None:
    free(DEVICE)
    inputs = make_inputs(case.workload, DEVICE).requires_grad_(case.training)
    with torch.set_grad_enabled(case.training):
        copies = [prepare(peer_of("auto", case, DEVICE), copy) for copy in rotated(inputs)]
        for call in copies:
            call()
        calls = [copies[i % len(copies)] for i in range(PASSES)]
        found = benchmark.pedantic(profiled, (calls, DEVICE))
    line = {"case": case.workload.name, "direction": case.direction, "kernels": found}
    ledger.write(benchmark, "kernels", line)
