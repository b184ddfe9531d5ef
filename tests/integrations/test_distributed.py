"""DDP and FSDP2 as torchrun starts them: two processes, gloo, the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from .distributed_worker import of_one_process
from .launch import torchrun

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="this build of torch has no torch.distributed"
)
Gradients = dict[str, Tensor]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Gradients]]:
    """For each rank: engine to name to gradient. One start of torchrun serves all tests."""
    folder: Path = tmp_path_factory.mktemp("gradients")
    torchrun("-m", "tests.integrations.distributed_worker", str(folder))
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
def test_gradients_are_those_of_one_process(engine: str, ranks: list[dict[str, Gradients]]) -> None:
    """Both ranks hold the gradients of the joined batch."""
    if engine not in ranks[0]:
        pytest.skip("this torch has no FSDP2 on the CPU")
    expected = of_one_process()
    for rank in ranks:
        assert rank[engine].keys() == expected.keys()
        for name, gradient in rank[engine].items():
            torch.testing.assert_close(gradient, expected[name], msg=lambda m, n=name: f"{n}: {m}")


def test_bits_are_the_same_on_all_ranks_and_in_all_runs(
    ranks: list[dict[str, Gradients]],
) -> None:
    """With deterministic algorithms: between processes, and between two runs in each."""
    first, second = ranks
    for engine in first:
        for name, gradient in first[engine].items():
            assert gradient.abs().sum() > 0, f"{engine} {name}: nothing to compare"
            assert torch.equal(gradient, second[engine][name]), f"{engine} {name}: ranks differ"
    for name, gradient in first["ddp"].items():
        assert torch.equal(gradient, first["ddp again"][name]), f"{name}: runs differ"


def test_bits_are_those_of_this_process(ranks: list[dict[str, Gradients]]) -> None:
    """Another process, started another way, with another random state."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        mine = of_one_process()
    finally:
        torch.set_num_threads(threads)
    for name, gradient in mine.items():
        assert torch.equal(gradient, ranks[0]["one"][name]), name
