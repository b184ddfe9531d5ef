"""An ensemble of first layers: ten on one gather in one call, against ten calls.

    pytest bench/test_ensemble.py --benchmark-only
    PIXELNET_TEST_DEVICE=cpu pytest bench/test_ensemble.py --benchmark-only

DatasetGAN (arXiv 2104.06490) trains ten classifiers of pixels on the same features. Each peer is
compared with the float64 reference before it is timed (accuracy.py), and takes turns with the one
call (timing.py), whose rounds are those of the same test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.accuracy import check, expected_results, full_float32
from bench.inputs import Inputs, make_inputs, rotated
from bench.ledger import Ledger, in_turns
from bench.machine import DEVICE
from bench.measure import free
from bench.peers import Peer, prepare
from bench.results import append
from bench.timing import clock
from bench.workloads import WORKLOADS, Workload, for_cpu
from pixelnet_triton import sparse_hypercolumn

MEMBERS, WIDTH = 10, 128  # DatasetGAN's number of networks, and the width of their first layers

# torch.compile imports parts of torch that are deprecated themselves.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


def workload() -> Workload:
    """W5's maps and points; the weight holds all members, one under the other."""
    sizes = replace(WORKLOADS[4], name="ensemble", family="ensemble", dtype="bfloat16")
    sizes = replace(for_cpu(sizes), dtype="float32") if DEVICE.type == "cpu" else sizes
    return replace(sizes, out_features=MEMBERS * WIDTH, value=MEMBERS)


def one_call(inputs: Inputs) -> Tensor:
    """(B, N, E D)."""
    weight, bias = inputs.weight.view(MEMBERS, WIDTH, -1), inputs.bias.view(MEMBERS, WIDTH)
    return _layer(inputs, weight, bias).flatten(2)


def ten_calls(inputs: Inputs) -> Tensor:
    members = zip(inputs.weight.split(WIDTH), inputs.bias.split(WIDTH), strict=True)
    return torch.cat([_layer(inputs, weight, bias) for weight, bias in members], -1)


def one_gather(inputs: Inputs) -> Tensor:
    """Hypercolumns in memory, and ten products."""
    h = sparse_hypercolumn(inputs.maps, inputs.points, inputs.image_size)
    members = zip(inputs.weight.split(WIDTH), inputs.bias.split(WIDTH), strict=True)
    return torch.cat([F.relu(F.linear(h, weight, bias)) for weight, bias in members], -1)


def _layer(inputs: Inputs, weight: Tensor, bias: Tensor) -> Tensor:
    return sparse_hypercolumn(
        inputs.maps, inputs.points, inputs.image_size, weight=weight, bias=bias, activation="relu"
    )


PEERS: dict[str, Callable[[Inputs], Tensor]] = {
    "one call": one_call,
    "ten calls": ten_calls,
    "one gather, ten products": one_gather,
}


@pytest.mark.benchmark(timer=clock(DEVICE))
@pytest.mark.parametrize("training", [False, True], ids=["forward", "training"])
@pytest.mark.parametrize("name", PEERS)
def test_ensemble(benchmark: Any, ledger: Ledger, name: str, training: bool) -> None:
    case = workload()
    inputs = make_inputs(case, DEVICE).requires_grad_(training)
    with torch.set_grad_enabled(training):
        calls = {}
        for peer_name in dict.fromkeys(("one call", name)):
            peer = Peer(peer_name, PEERS[peer_name])
            with full_float32():
                error, allowed = check(peer, expected_results(inputs, training), training)
            assert error <= allowed, f"{peer_name}: relative error {error:.2g} of {allowed:.2g}"
            copies = [copy.requires_grad_(training) for copy in rotated(inputs)]
            calls[peer_name] = [prepare(peer, copy).once(training) for copy in copies]
            for call in calls[peer_name]:
                call()
        direction = "training" if training else "forward"
        benchmark.group = f"ensemble-{direction}: {case.sizes()}"
        samples = in_turns(benchmark, calls, name)
    if samples:
        figures, once = samples[name].summary(), samples["one call"].summary()
        figures |= {f"{key}_of_one_call": once[key] for key in ("median", "cold_median")}
        identity = {"direction": direction, "peer": name, "sizes": case.sizes()}
        line = append("ensemble", ledger.run, {**asdict(case), **identity, **figures})
        benchmark.extra_info.update(line)
    free(DEVICE)
