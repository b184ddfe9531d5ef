"""What the benchmarks measure: workloads, their inputs, the peers, and the work that these do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.inputs import make_inputs
from bench.memory import peak_bytes
from bench.peers import names_for, peer_of, prepare
from bench.planning import call_shape
from bench.workloads import (
    SWEEPS,
    WORKLOADS,
    Case,
    Workload,
    for_cpu,
    random_workloads,
    registry,
    small_workloads,
)

CPU = torch.device("cpu")
SMALL = Workload("small", ((3, 8, 8), (5, 4, 4)), (16, 16), images=2, points=7, out_features=11)


def test_work_by_hand() -> None:
    """The formulas of the docstrings, once with numbers."""
    assert SMALL.flops(14, training=False) == 2 * 14 * 8 * 11
    assert SMALL.flops(14, training=True) == 6 * 14 * 8 * 11
    touched = min(4 * 14, 2 * 64) * 3 + min(4 * 14, 2 * 16) * 5
    parameters, output = 9 * 11, 14 * 11
    forward = 4 * (touched + parameters + output) + 14 * 16
    assert SMALL.compulsory_bytes(14, training=False) == forward
    maps = 2 * 64 * 3 + 2 * 16 * 5
    backward = 4 * (2 * output + touched + parameters + maps + parameters)
    assert SMALL.compulsory_bytes(14, training=True) == forward + backward


PEERS = ["two_step", "project", "product", "grid_sample", "point_sample", "masked", "dense"]


@pytest.mark.parametrize("training", [False, True], ids=["forward", "training"])
@pytest.mark.parametrize("name", [*PEERS, "product_fused", "grid_sample_half"])
def test_peers_execute_the_products_they_declare_and_no_more(name: str, training: bool) -> None:
    """Counted operator by operator: a peer that computes twice would look slow for no reason."""
    if name == "product_fused" and training:
        pytest.skip("no backward pass")
    case = Case(SMALL, training)
    peer = peer_of(name, case, CPU)
    call = prepare(peer, make_inputs(SMALL, CPU).requires_grad_(training))
    fused = {torch.ops.aten._addmm_activation: _addmm_flops}
    counter = FlopCounterMode(display=False, custom_mapping=fused)
    with counter, torch.set_grad_enabled(training):
        call()
    assert counter.get_total_flops() == peer.work(case, CPU)["flops"]


def _addmm_flops(
    bias: object, left: list[int], right: list[int], *args: object, **kw: object
) -> int:
    return 2 * left[0] * left[1] * right[1]


def test_nothing_of_a_peer_outlives_its_use() -> None:
    """Peaks of the plain ways: samples and the matrix of them, then the matrix and the output."""
    workload = replace(SMALL, images=1, points=200, out_features=64, channels_last=False)
    h, y = (200 * n * 4 for n in (workload.channels, workload.out_features))
    with torch.no_grad():
        inputs = make_inputs(workload, CPU)
        peaks = {
            name: peak_bytes(
                prepare(peer_of(name, Case(workload, False), CPU), inputs).forward, CPU
            )
            for name in ("product", "product_fused", "grid_sample")
        }
    slack = 64 * 200 + 4096  # coordinates
    assert y <= peaks["product"] <= y + slack
    assert y <= peaks["product_fused"] <= y + slack
    assert peaks["grid_sample"] <= max(2 * h, h + y) + slack


def test_executed_work_of_peers() -> None:
    case = Case(SMALL, False)
    gathered, projected, dense = (
        peer_of(name, case, CPU).work(case, CPU)["flops"]
        for name in ("two_step", "project", "dense")
    )
    assert gathered == 2 * 14 * 8 * 11
    assert projected == 2 * (2 * 64 * 3 + 2 * 16 * 5) * 11
    assert dense == 2 * (2 * 256) * 8 * 11


@pytest.mark.parametrize("on_cpu", [True, False])
def test_registry(on_cpu: bool) -> None:
    workloads = registry(on_cpu)
    names = [workload.name for workload in workloads]
    assert len(set(names)) == len(names)
    assert {w.family for w in workloads} == {"workload", *SWEEPS}
    for workload in workloads:
        assert workload.points <= workload.image_size[0] * workload.image_size[1]
        assert workload.scaled == on_cpu, workload.name
    dtypes = {w.dtype for w in workloads if w.family == "workload"}
    assert dtypes == {"float32" if on_cpu else "bfloat16"}


def test_scaling_down_keeps_cells_per_point() -> None:
    for workload in WORKLOADS:
        small = for_cpu(workload)
        assert small.scaled
        assert max(small.image_size) <= 128
        assert small.images == 1
        fine, original = small.layers[0], workload.layers[0]
        before = original[1] * original[2] / workload.points
        assert fine[1] * fine[2] / small.points == pytest.approx(before, rel=0.01)


def test_inputs_are_distinct_pixels() -> None:
    inputs = make_inputs(SMALL, CPU)
    for points in inputs.points:
        assert len({tuple(p) for p in points.tolist()}) == SMALL.points
    assert all(m.is_contiguous(memory_format=torch.channels_last) for m in inputs.maps)


def test_random_layers_are_the_same_every_time_and_of_all_kinds() -> None:
    layers = random_workloads(60, seed=3)
    assert layers == random_workloads(60, seed=3)
    assert layers[:5] == random_workloads(5, seed=3)
    assert {w.ragged for w in layers} == {w.channels_last for w in layers} == {False, True}
    assert {len(w.layers) for w in layers} == {1, 2, 3, 4}
    for workload in (*layers[:20], *small_workloads()):
        inputs, shape = make_inputs(workload, CPU), call_shape(Case(workload, True), CPU)
        assert inputs.points.numel() == 2 * shape.points
        assert (inputs.batch_index is not None) == workload.ragged
        x, y = inputs.points.double().unbind(-1)
        assert min(x.min(), y.min()) >= -0.5
        assert max(x.max() / workload.image_size[1], y.max() / workload.image_size[0]) <= 1


def test_grid_sample_with_half_precision_coordinates_is_found_wrong() -> None:
    workload = next(w for w in registry(True) if w.value == "bfloat16")
    assert "grid_sample_half" in names_for(Case(workload, True), CPU)
