"""What the benchmarks do on a GPU alone, run on a CPU against a recorded one.

The benchmarks themselves are run so by `selfcheck --dry`, which takes these tests along.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.autograd import DeviceType

from bench import compare_side, machine
from bench.accuracy import arithmetic
from bench.compare import selected
from bench.kernels import shares
from bench.measure import Preparation
from bench.memory import peak_bytes
from bench.peers import names_for
from bench.table4 import Network, Sizes, Training
from bench.timing import clock, in_turns, time_calls
from bench.workloads import Case, Workload

from .fake_cuda import FakeCuda, OnCpu

GPU = torch.device("cuda", 0)
SMALL = Workload(
    "small", ((3, 8, 8), (5, 4, 4)), (16, 16), images=2, points=7, out_features=11, dtype="bfloat16"
)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    fake = FakeCuda()
    fake.install(monkeypatch)
    with OnCpu():
        yield fake


@pytest.mark.parametrize("name", ["cuda", "cuda:0", ""])
def test_the_device_has_an_index_and_is_current(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("PIXELNET_TEST_DEVICE", name)
    assert machine.chosen_device() == GPU
    assert cuda.calls["set_device"] == 1
    assert machine.identity(GPU)["device"] == "A GPU that is not there"


def test_clocks_are_events(cuda: FakeCuda) -> None:
    ticks = clock(GPU)
    start = ticks()
    assert 0 < ticks() - start < 1
    assert len(time_calls([lambda: None] * 3, GPU, 1e-4)) == 3
    assert cuda.calls["synchronize"] == 1


def test_cold_calls_rotate_and_warm_ones_do_not(cuda: FakeCuda) -> None:
    made: list[int] = []
    in_turns({"peer": [lambda i=i: made.append(i) for i in range(3)]}, GPU)  # type: ignore[misc]
    asked = made[5:]  # after the host's time, and one call that tells how many a turn has
    assert asked == [0] * 5 + [0, 1, 2, 0] + [0] * 5 + [1, 2, 0, 1]


def test_every_cold_call_finds_the_caches_full_of_something_else(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a single copy of the inputs, and whoever times it: a patch was timed cold, and warm
    what it was compared with."""
    made: list[str] = []
    monkeypatch.setattr("bench.timing.CALLS", {"cuda": 3})
    monkeypatch.setattr("bench.timing.SLOT", {"cuda": 1e9})
    monkeypatch.setattr("bench.timing.make_cold", lambda *args: made.append("cold"))
    calls = {name: [lambda name=name: made.append(name)] for name in ("before", "after")}

    class Clock:
        enabled = False

        def pedantic(self, call: Any, setup: Any, rounds: int) -> None:
            for _ in range(rounds):
                arguments, _options = setup()
                call(*arguments)

    in_turns(calls, GPU, Clock())  # type: ignore[arg-type]
    turn = made[-(1 + 4 + 2 * 3 + 1 + 4 + 2) :]
    warm_and_cold = ["cold", *["before"] * 4, *["cold", "before"] * 3]
    assert turn == [*warm_and_cold, "cold", *["after"] * 4, "cold", "after"]


def test_roofs_and_memory(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SIZES", {"cpu": (1, 1), "cuda": (64, 1)})
    assert machine.measured_roofs(GPU, torch.bfloat16)["flops"] > 0
    assert peak_bytes(lambda: None, GPU) == 4096
    assert cuda.calls["reset_peak_memory_stats"] == 1


@pytest.mark.parametrize("training", [False, True])
def test_a_whole_case(cuda: FakeCuda, training: bool) -> None:
    case = Case(SMALL, training)
    names = [*names_for(case, GPU), "one_pass", "point_sample", "dense"]
    for line in Preparation(case, GPU).measure(names).values():
        assert line["samples"] == line["cold_samples"] > 1
        json.dumps(line)


def test_what_does_not_fit_is_told(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("bench.measure.peak_bytes", full)
    (line,) = Preparation(Case(SMALL, False), GPU).measure(["auto"]).values()
    assert line["problem"] == "out of memory"


@pytest.mark.parametrize("mode", ["dense", "sparse", "backbone"])
def test_a_row_of_table4(cuda: FakeCuda, mode: str) -> None:
    training = Training(
        Network(mode, 1), Sizes(side=64, samples_per_image=10, hidden=8, width=1 / 16), GPU
    )
    training.update()
    cuda.peak += 1 << 28  # a buffer of the timing, between two updates
    training.update()
    assert training.figures()["memory_bytes"] == 4096


@pytest.mark.parametrize("tf32", [False, True])
def test_a_row_of_table4_has_one_arithmetic(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tf32: bool
) -> None:
    """Convolutions, of which the dense rows' hidden layers are made, and products alike."""
    sizes, seen = Sizes(side=64, samples_per_image=10, hidden=8, width=1 / 16), []

    def loss(self: Training) -> torch.Tensor:
        precision = torch.get_float32_matmul_precision()
        seen.append((torch.backends.cudnn.allow_tf32, precision))
        return torch.zeros((), requires_grad=True)

    monkeypatch.setattr(Training, "_loss", loss)
    for default in (False, True):
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", default)
        Training(Network("sparse", 1, tf32=tf32), sizes, GPU).update()
        assert torch.backends.cudnn.allow_tf32 == default
        assert torch.get_float32_matmul_precision() == "highest", "as it was"
    assert seen == [(tf32, "high" if tf32 else "highest")] * 2


def test_checks_are_made_without_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with arithmetic(tf32=False):
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest", "and products have none by default"


@pytest.mark.parametrize("word", ["small-16", "host"])
def test_a_side_of_a_comparison(cuda: FakeCuda, word: str) -> None:
    side = compare_side.Side(GPU)
    for case in selected([word], on_cpu=False):
        assert side.prepare(case)[0] > 0
        assert len(side.time(4)) == 4


def test_shares_of_kernels_are_those_of_one_pass() -> None:
    def event(name: str, us: float, device: DeviceType = DeviceType.CUDA) -> SimpleNamespace:
        time_range = SimpleNamespace(elapsed_us=lambda: us)
        return SimpleNamespace(name=name, device_type=device, time_range=time_range)

    launch = event("cudaLaunchKernel", 90.0, DeviceType.CPU)
    events = [
        launch,
        event("gather", 3.0),
        event("mm", 8.0),
        event("gather", 5.0),
        event("mm", 9.0),
    ]
    assert shares([*events, event("gather", 4.0)], passes=2) == [("mm", 1, 8.5), ("gather", 1.5, 6)]
