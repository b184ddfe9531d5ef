"""Where the time of W1 to W5 goes on a GPU: each kernel of the library's choice, and of its peers.

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
from bench.timing import host_seconds
from bench.workloads import Case, registry

PASSES = 20
PEERS = ("auto", "product_fused")
CASES = [
    (Case(workload, training), peer)
    for workload in registry(DEVICE.type == "cpu")
    if workload.family == "workload"
    for training in (False, True)
    for peer in PEERS
    if peer == "auto" or not training  # an epilogue has no gradient
]


@pytest.mark.skipif(DEVICE.type == "cpu", reason="kernels are a GPU's")
@pytest.mark.parametrize(("case", "peer"), CASES, ids=str)
def test_kernels(benchmark: Any, ledger: Ledger, case: Case, peer: str) -> None:
    free(DEVICE)
    inputs = make_inputs(case.workload, DEVICE).requires_grad_(case.training)
    chosen = peer_of(peer, case, DEVICE)
    with torch.set_grad_enabled(case.training):
        copies = [prepare(chosen, copy) for copy in rotated(inputs)]
        for call in copies:
            call()
        calls = [copies[i % len(copies)] for i in range(PASSES)]
        found = benchmark.pedantic(profiled, (calls, DEVICE, host_seconds(calls[0], DEVICE)))
    line: dict[str, Any] = {
        "case": case.workload.name,
        "direction": case.direction,
        "peer": peer,
        "us": sum(share.us for share in found),
        "kernels": found,
    }
    ledger.write(benchmark, "kernels", line)
