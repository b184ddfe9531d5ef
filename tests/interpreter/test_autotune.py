"""Tuning, with a clock of the test's own: what is asked, chosen, kept and left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from pixelnet_triton import sparse_hypercolumn
from pixelnet_triton.call import Geometry, Sampling
from pixelnet_triton.gpu.tuning import Autotuner, autotune, kind_of, tuning_path
from pixelnet_triton.kernels.band import TILES as BAND_TILES
from pixelnet_triton.kernels.fused_linear import TILES as LINEAR_TILES
from pixelnet_triton.kernels.gather import TILES as ROW_TILES
from pixelnet_triton.kernels.gather import gather
from pixelnet_triton.kernels.select import Question, Tile, set_tuner, tuner

CPU = torch.device("cpu")


class Clock:
    """Runs what it is asked to time, and says that the `fastest`-th of each table is fastest."""

    def __init__(self, fastest: int) -> None:
        self.fastest = fastest
        self.tiles: list[Tile] = []

    def __call__(self, function: Any) -> float:
        function()
        tile = function.args[-1]
        self.tiles.append(tile)
        table = next(t for t in (ROW_TILES, LINEAR_TILES, BAND_TILES) if tile in t)
        return 1.0 if table.index(tile) == self.fastest % len(table) else 2.0


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


def test_every_tile_is_tried_once_and_the_fastest_kept() -> None:
    expected = call()
    clock = tuned()
    torch.testing.assert_close(call(), expected)
    assert clock.tiles == list(ROW_TILES)
    call()
    assert len(clock.tiles) == len(ROW_TILES)
    content = json.loads(tuning_path(CPU).read_text())
    assert list(content["choices"].values()) == [asdict(ROW_TILES[1])]


def test_a_later_process_reads_the_choice() -> None:
    tuned()
    call()
    clock = tuned()  # a tuner that has seen nothing
    call()
    assert clock.tiles == []


def test_points_share_a_choice_up_to_a_power_of_two() -> None:
    clock = tuned()
    call(points=17)
    once = len(clock.tiles)
    call(points=30)
    assert len(clock.tiles) == once
    call(points=40)
    assert len(clock.tiles) == 2 * once


def test_dtypes_and_products_are_kinds_of_their_own() -> None:
    clock = tuned()
    call()
    call(dtype=torch.float16)
    assert len(clock.tiles) == 2 * len(ROW_TILES)
    weight = torch.randn(24, 40)
    call(weight=weight, plan="one_pass")
    assert clock.tiles[-len(LINEAR_TILES) :] == list(LINEAR_TILES)


def test_trials_leave_the_gradient_as_it_is() -> None:
    value = call()
    expected = torch.autograd.grad(value.square().sum(), _leaf(value))[0]
    clock = tuned()
    value = call()
    gradient = torch.autograd.grad(value.square().sum(), _leaf(value))[0]
    torch.testing.assert_close(gradient, expected)
    assert clock.tiles == [*ROW_TILES, *BAND_TILES]  # the gather, and its transpose


def _leaf(value: torch.Tensor) -> torch.Tensor:
    (node,) = [n for n, _ in value.grad_fn.next_functions if hasattr(n, "variable")]
    return node.variable


def test_deterministic_algorithms_leave_the_tables_rules() -> None:
    clock = tuned()
    torch.use_deterministic_algorithms(True)
    call()
    assert clock.tiles == []


def test_tiles_that_do_not_fit_are_left_out() -> None:
    from triton.runtime.errors import OutOfResources

    def clock(function: Any) -> float:
        if function.args[-1] is not ROW_TILES[2]:
            raise OutOfResources(1, 0, "shared memory")
        return 1.0

    set_tuner(Autotuner(clock, any_device=True))
    call()
    (choice,) = json.loads(tuning_path(CPU).read_text())["choices"].values()
    assert choice == asdict(ROW_TILES[2])


@pytest.mark.parametrize("content", ["", "[]", '{"choices": {}}', "{" * 100_000])
def test_a_spoilt_file_is_ignored_and_written_anew(content: str) -> None:
    tuning_path(CPU).write_text(content)
    clock = tuned()
    with pytest.warns(RuntimeWarning, match="holds no tuned tiles"):
        call()
    assert clock.tiles == list(ROW_TILES)
    assert json.loads(tuning_path(CPU).read_text())["choices"]


def test_choices_of_other_versions_and_of_other_tables_do_not_count() -> None:
    tuned()
    call()
    content = json.loads(tuning_path(CPU).read_text())
    (kind,) = content["choices"]
    content["choices"][kind]["rows"] = 48
    tuning_path(CPU).write_text(json.dumps(content))
    clock = tuned()
    call()
    assert len(clock.tiles) == len(ROW_TILES)
    content["versions"]["triton"] = "1.0"
    content["choices"][kind] = asdict(ROW_TILES[1])
    tuning_path(CPU).write_text(json.dumps(content))
    clock = tuned()
    call()
    assert len(clock.tiles) == len(ROW_TILES)


def test_tensors_elsewhere_than_on_a_gpu_are_left_alone() -> None:
    autotune()
    try:
        call()
        assert not tuning_path(CPU).exists()
    finally:
        autotune(False)
    assert tuner() is None


def test_the_environment_switches_it_on_when_kernels_are_loaded() -> None:
    code = (
        "from pixelnet_triton.gpu.backend import load\n"
        "from pixelnet_triton.kernels.select import tuner\n"
        "print(tuner() is not None, end=' ')\n"
        "load()\n"
        "print(tuner() is not None)"
    )
    for value, expected in (("1", "False True"), ("0", "False False")):
        variables = {**os.environ, "PIXELNET_TRITON_AUTOTUNE": value}
        completed = subprocess.run(
            [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True
        )
        assert completed.stdout.strip() == expected


def sampled(features: list[torch.Tensor], points: torch.Tensor) -> Sampling:
    return Sampling(features, points, None, Geometry(((1.0, 0.0, 1.0, 0.0),)))


def test_a_tile_that_is_given_is_not_asked_about() -> None:
    clock = tuned()
    s = sampled([torch.randn(1, 8, 4, 4)], torch.rand(6, 2))
    gather(s, tile=ROW_TILES[0])
    gather(s, ROW_TILES[0])
    assert clock.tiles == []


def test_kinds_name_what_matters() -> None:
    seen: list[Question] = []
    set_tuner(lambda question: seen.append(question))
    gather(sampled([torch.zeros(1, 8, 4, 4)], torch.rand(6, 2)))
    assert kind_of(seen[0]) == ("gather; float32; P8; D0; 1x8x4x4 apart; in order; bilinear border")
