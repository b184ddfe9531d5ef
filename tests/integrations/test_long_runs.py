"""What a run of days needs: bounded memory, threads, worker processes, files written by many."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pixelnet_triton import HypercolumnLinear, sparse_hypercolumn
from pixelnet_triton.env_report import VARIABLES
from pixelnet_triton.planner.profiles import SHIPPED
from pixelnet_triton.planner.store import load_profile, save_profile

from .launch import ROOT, python

# The long version: HYPOTHESIS_PROFILE=explore, as for the fuzz tests.
CALLS = 10_000 if os.environ.get("HYPOTHESIS_PROFILE") == "explore" else 3_000
assert "HYPOTHESIS_PROFILE" in VARIABLES, "the report of the environment lacks it"

MANY_SHAPES = """
import gc, random, sys
import torch
from pixelnet_triton import sparse_hypercolumn

def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

torch.set_num_threads(1)
random.seed(0)
calls = int(sys.argv[1])
for call in range(calls):
    if call == calls // 2:
        start, objects = resident(), len(gc.get_objects())
    batch, layers = random.randint(1, 2), random.randint(1, 3)
    maps = [
        torch.randn(batch, random.randint(1, 9), random.randint(1, 40), random.randint(1, 40))
        for _ in range(layers)
    ]
    points = 50 * torch.rand(batch, random.randint(0, 99), 2)
    size = (random.randint(1, 99), random.randint(1, 99))
    weight = torch.randn(random.randint(1, 9), sum(f.shape[1] for f in maps), requires_grad=True)
    for tensor in maps:
        tensor.requires_grad_(random.random() < 0.5)
    plan = random.choice(["auto", "gather", "project"])
    sparse_hypercolumn(maps, points, size, weight=weight, plan=plan).sum().backward()
print(resident() - start, len(gc.get_objects()) - objects)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory from /proc")
def test_memory_does_not_grow_with_the_shapes_seen() -> None:
    """The second half of thousands of calls, no two alike: about 40 KB of tensors each."""
    grown, objects = map(int, python("-c", MANY_SHAPES, str(CALLS)).split())
    assert grown < 8 << 20, f"{grown / (CALLS // 2):.0f} bytes a call"
    assert objects < 20_000, f"{objects} Python objects more"  # what the caches hold, and no more


def test_every_cache_has_a_bound() -> None:
    sparse_hypercolumn([torch.randn(1, 2, 3, 3)], torch.rand(1, 4, 2), (6, 6))
    caches = set()
    loaded = [m for name, m in sys.modules.items() if name.startswith("pixelnet_triton")]
    for module in loaded:
        for holder in (module, *[v for v in vars(module).values() if isinstance(v, type)]):
            for name, value in vars(holder).items():
                function = getattr(value, "__func__", value)
                if isinstance(function, functools._lru_cache_wrapper):
                    caches.add(f"{function.__module__}.{function.__qualname__}")
                    assert function.cache_parameters()["maxsize"], f"{module.__name__}.{name}"
    assert "pixelnet_triton.planner.choose._kept" in caches, "the search finds no caches"


def step(layer: HypercolumnLinear, seed: int) -> list[Tensor]:
    """Value and gradients of a call whose shapes depend on the seed."""
    random = torch.Generator().manual_seed(seed)
    maps = [
        torch.randn(2, 5, 3 + seed % 7, 9, generator=random, requires_grad=True),
        torch.randn(2, 3, 4, 2 + seed % 5, generator=random, requires_grad=True),
    ]
    points = 20 * torch.rand(2, 40 + seed, 2, generator=random)
    value = layer(maps, points, (20, 20))
    return [value, *torch.autograd.grad(value.square().sum(), [*maps, *layer.parameters()])]


def test_threads_do_not_disturb_each_other() -> None:
    """One module, eight threads, shapes that none of them has seen before."""
    layer = HypercolumnLinear([5, 3], 6)
    torch.use_deterministic_algorithms(True)
    with ThreadPoolExecutor(8) as pool:
        results_by_seed = list(pool.map(lambda seed: step(layer, seed), range(64)))
    for seed, results in enumerate(results_by_seed):
        for actual, expected in zip(results, step(layer, seed), strict=True):
            assert torch.equal(actual, expected), seed


class Hypercolumns(Dataset[Tensor]):
    """Samples hypercolumns in the worker, with a module that was pickled into it."""

    def __init__(self) -> None:
        self.layer = HypercolumnLinear([5, 3], 6).requires_grad_(False)

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Tensor:
        random = torch.Generator().manual_seed(index)
        maps = [torch.randn(1, c, 8, 8, generator=random) for c in (5, 3)]
        return self.layer(maps, 16 * torch.rand(1, 30, 2, generator=random), (16, 16))[0]


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # Python 3.12 on
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_data_loader_workers(method: str) -> None:
    """Forked after this process has computed, and spawned."""
    if method not in torch.multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    data = Hypercolumns()
    expected = [data[i] for i in range(len(data))]
    loader = DataLoader(
        data, batch_size=None, num_workers=2, multiprocessing_context=method, timeout=120
    )
    for actual, wanted in zip(loader, expected, strict=True):
        torch.testing.assert_close(actual, wanted)


WRITER = """
import sys
from pathlib import Path
from pixelnet_triton.planner.profiles import SHIPPED
from pixelnet_triton.planner.store import save_profile
for _ in range(300):
    save_profile(SHIPPED[sys.argv[2]], Path(sys.argv[1]))
"""


def test_a_profile_that_two_processes_write_at_once_is_always_whole(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    names = list(SHIPPED)[:2]
    save_profile(SHIPPED[names[0]], path)
    command = [sys.executable, "-c", WRITER, str(path)]
    writers = [subprocess.Popen([*command, name], cwd=ROOT) for name in names]
    seen: set[Any] = set()
    while any(writer.poll() is None for writer in writers):
        seen.add(load_profile(path).name)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen == {SHIPPED[name].name for name in names}, "the writers never met"
    assert [p.name for p in tmp_path.iterdir()] == ["profile.json"], "something is left behind"


def test_an_output_that_the_backward_needs_may_not_be_changed() -> None:
    layer = HypercolumnLinear([5], 6, activation="relu")
    value = layer([torch.randn(2, 5, 6, 6)], 12 * torch.rand(2, 30, 2), (12, 12))
    value.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.sum().backward()


def test_a_module_output_may_be_changed_in_place() -> None:
    """nn.ReLU(inplace=True) is what most networks have after a layer."""
    layer = HypercolumnLinear([5, 3], 6)
    maps = [torch.randn(2, 5, 6, 6), torch.randn(2, 3, 3, 3)]
    points = 12 * torch.rand(2, 30, 2)
    grads = []
    for relu in (torch.relu, torch.relu_):
        layer.zero_grad()
        relu(layer(maps, points, (12, 12))).sum().backward()
        grads.append(layer.weight.grad.clone())
    assert torch.equal(*grads)
    assert torch.equal(
        torch.relu_(layer(maps, points, (12, 12))),
        sparse_hypercolumn(
            maps, points, (12, 12), weight=layer.weight, bias=layer.bias, activation="relu"
        ),
    )
