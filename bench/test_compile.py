"""One call of each of the library's plans on W1 to W5: what it compiles stays in Triton's cache.

pytest bench/test_compile.py -n 8     # before the benchmarks, so that they compile nothing
"""

from __future__ import annotations

import pytest
import torch

from bench.inputs import make_inputs
from bench.machine import DEVICE
from bench.peers import OTHERS, names_for, peer_of, prepare
from bench.workloads import Case, registry

CASES = [
    pytest.param(case, name, id=f"{case}-{name}")
    for workload in registry(on_cpu=DEVICE.type == "cpu")
    if workload.family == "workload"
    for case in (Case(workload, False), Case(workload, True))
    for name in names_for(case, DEVICE)
    if name not in OTHERS
]


@pytest.mark.parametrize(("case", "name"), CASES)
def test_plan_compiles(case: Case, name: str) -> None:
    inputs = make_inputs(case.workload, DEVICE).requires_grad_(case.training)
    peer = peer_of(name, case, DEVICE)
    with torch.set_grad_enabled(case.training):
        prepare(peer, inputs).once(case.training)()
