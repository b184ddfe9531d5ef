"""Tuning, with a clock of the test's own: what is asked, chosen, kept and left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from pixelnet_triton import sparse_hypercolumn
from pixelnet_triton.autotune import Autotuner, autotune, kind_of, tuning_path
from pixelnet_triton.kernels import tuning
from pixelnet_triton.kernels.configs import GATHER_CONFIGS, LINEAR_CONFIGS
from pixelnet_triton.kernels.gather import gather
from pixelnet_triton.kernels.scatter import scatter_atomic
from pixelnet_triton.kernels.tuning import Launch, set_tuner, tunable

CPU = torch.device("cpu")


class Clock:
    """Runs what it is asked to time, and says that the `fastest`-th of each table is fastest."""

    def __init__(self, fastest: int) -> None:
        self.fastest = fastest
        self.configs: list[Any] = []

    def __call__(self, function: Any) -> float:
        function()
        self.configs.append(function.keywords["config"])
        table = next(t for t in (GATHER_CONFIGS, LINEAR_CONFIGS) if self.configs[-1] in t)
        return 1.0 if table.index(self.configs[-1]) == self.fastest % len(table) else 2.0


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PIXELNET_TRITON_CACHE", str(tmp_path))
    yield
    set_tuner(None)


def tuned(fastest: int = 1) -> Clock:
    clock = Clock(fastest)
    set_tuner(Autotuner(clock, any_device=True))
    return clock


def call(points: int = 20, dtype: torch.dtype = torch.float32, **options: Any) -> torch.Tensor:
    torch.manual_seed(0)
    feature = torch.randn(2, 40, 5, 6, dtype=dtype, requires_grad=True)
    at = torch.rand(2, points, 2) * 5
    return sparse_hypercolumn([feature], at, (5, 6), **options)


def test_every_configuration_is_tried_once_and_the_fastest_kept() -> None:
    expected = call()
    clock = tuned()
    torch.testing.assert_close(call(), expected)
    assert clock.configs == list(GATHER_CONFIGS)
    call()
    assert len(clock.configs) == len(GATHER_CONFIGS)
    content = json.loads(tuning_path(CPU).read_text())
    assert list(content["choices"].values()) == [asdict(GATHER_CONFIGS[1])]


def test_a_later_process_reads_the_choice() -> None:
    tuned()
    call()
    clock = tuned()  # a tuner that has seen nothing
    call()
    assert clock.configs == []


def test_points_share_a_choice_up_to_a_power_of_two() -> None:
    clock = tuned()
    call(points=17)
    once = len(clock.configs)
    call(points=30)
    assert len(clock.configs) == once
    call(points=40)
    assert len(clock.configs) == 2 * once


def test_dtypes_and_products_are_kinds_of_their_own() -> None:
    clock = tuned()
    call()
    call(dtype=torch.float16)
    assert len(clock.configs) == 2 * len(GATHER_CONFIGS)
    weight = torch.randn(24, 40)
    call(weight=weight, plan="one_pass")
    assert clock.configs[-len(LINEAR_CONFIGS) :] == list(LINEAR_CONFIGS)


def test_what_a_kernel_adds_to_is_not_added_to_by_trials() -> None:
    value = call()
    expected = torch.autograd.grad(value.square().sum(), _leaf(value))[0]
    clock = tuned()
    value = call()
    found = torch.autograd.grad(value.square().sum(), _leaf(value))[0]
    torch.testing.assert_close(found, expected)
    assert len(clock.configs) == 2 * len(GATHER_CONFIGS)  # gather, and its scatter


def _leaf(value: torch.Tensor) -> torch.Tensor:
    (node,) = [n for n, _ in value.grad_fn.next_functions if hasattr(n, "variable")]
    return node.variable


def test_deterministic_algorithms_leave_the_tables_rules() -> None:
    clock = tuned()
    torch.use_deterministic_algorithms(True)
    call()
    assert clock.configs == []


def test_configurations_that_do_not_fit_are_left_out() -> None:
    from triton.runtime.errors import OutOfResources

    def clock(function: Callable[[], object]) -> float:
        if function.keywords["config"] is not GATHER_CONFIGS[2]:
            raise OutOfResources(1, 0, "shared memory")
        return 1.0

    set_tuner(Autotuner(clock, any_device=True))
    call()
    (choice,) = json.loads(tuning_path(CPU).read_text())["choices"].values()
    assert choice == asdict(GATHER_CONFIGS[2])


@pytest.mark.parametrize("content", ["", "[]", '{"choices": {}}', "{" * 100_000])
def test_a_spoilt_file_is_ignored_and_written_anew(content: str) -> None:
    tuning_path(CPU).write_text(content)
    clock = tuned()
    with pytest.warns(RuntimeWarning, match="holds no tuned configurations"):
        call()
    assert clock.configs == list(GATHER_CONFIGS)
    assert json.loads(tuning_path(CPU).read_text())["choices"]


def test_choices_of_other_versions_and_of_other_tables_do_not_count() -> None:
    tuned()
    call()
    content = json.loads(tuning_path(CPU).read_text())
    (kind,) = content["choices"]
    content["choices"][kind]["block_p"] = 48
    tuning_path(CPU).write_text(json.dumps(content))
    clock = tuned()
    call()
    assert len(clock.configs) == len(GATHER_CONFIGS)
    content["versions"]["triton"] = "1.0"
    content["choices"][kind] = asdict(GATHER_CONFIGS[1])
    tuning_path(CPU).write_text(json.dumps(content))
    clock = tuned()
    call()
    assert len(clock.configs) == len(GATHER_CONFIGS)


def test_tensors_elsewhere_than_on_a_gpu_are_left_alone() -> None:
    autotune()
    try:
        call()
        assert not tuning_path(CPU).exists()
    finally:
        autotune(False)
    assert tuning._tuner is None


def test_the_environment_switches_it_on() -> None:
    code = (
        "import pixelnet_triton.gpu\n"
        "from pixelnet_triton.kernels import tuning\n"
        "print(tuning._tuner is not None)"
    )
    for value, expected in (("1", "True"), ("0", "False")):
        variables = {**os.environ, "PIXELNET_TRITON_AUTOTUNE": value}
        found = subprocess.run(
            [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True
        )
        assert found.stdout.strip() == expected


def test_a_configuration_that_is_given_is_not_asked_about() -> None:
    clock = tuned()
    maps = [torch.randn(1, 8, 4, 4)]
    arguments = (maps, torch.rand(6, 2), None, [(1.0, 0.0, 1.0, 0.0)], True, True)
    gather(*arguments, config=GATHER_CONFIGS[0])
    gather(*arguments, GATHER_CONFIGS[0])
    assert clock.configs == []


def test_kinds_name_what_matters() -> None:
    seen: list[Launch] = []
    set_tuner(lambda launch: seen.append(launch))
    grad, points = torch.randn(6, 8), torch.rand(6, 2)
    sums = [torch.zeros(1, 8, 4, 4)]
    affine = [(1.0, 0.0, 1.0, 0.0)]
    scatter_atomic(grad, [0], sums, points, None, affine, True, True)
    assert kind_of(seen[0]) == (
        "scatter_atomic grad=float32[P8,8] accumulators=(float32[1,8,4,4]) "
        "points=float32[P8,2] batch_index=None bilinear=True border=True"
    )


def test_marked_functions_keep_their_names_and_documentation() -> None:
    @tunable((1, 2))
    def launcher(x: int, config: int | None = None) -> tuple[int, int | None]:
        """What it does."""
        return x, config

    assert launcher.__name__ == "launcher"
    assert launcher.__doc__ == "What it does."
    assert launcher(5) == (5, None)
    set_tuner(lambda launch: launch.table[1])
    assert launcher(x=5) == (5, 2)
    assert launcher(5, config=1) == (5, 1)
    assert launcher(5, 1) == (5, 1)
