"""An ensemble of first layers: ten on one gather in one call, against ten calls.

    pytest bench/test_ensemble.py --benchmark-only
    PIXELNET_TEST_DEVICE=cpu pytest bench/test_ensemble.py --benchmark-only

DatasetGAN (arXiv 2104.06490) trains ten classifiers of pixels on the same features. Each peer
(peers.py) takes turns with the one call.
"""

from __future__ import annotations

from typing import Any

import pytest

from bench.ledger import Ledger
from bench.machine import DEVICE
from bench.peers import ENSEMBLE
from bench.timing import clock
from bench.workloads import Case, ensemble


@pytest.mark.benchmark(timer=clock(DEVICE))
@pytest.mark.parametrize("training", [False, True], ids=["forward", "training"])
@pytest.mark.parametrize("name", ENSEMBLE)
def test_ensemble(benchmark: Any, ledger: Ledger, name: str, training: bool) -> None:
    case = Case(ensemble(DEVICE.type == "cpu"), training)
    lines = ledger.measure(benchmark, case, ("one call", name))
    line = {"name": case.workload.name, **lines[name]}
    line.pop("flops", None)  # as if every layer were gathered, which the library may not do
    for key in ("median", "cold_median"):
        line[f"{key}_of_one_call"] = lines["one call"].get(key)
    ledger.write(benchmark, "ensemble", line)
