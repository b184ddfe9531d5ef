"""`python -m pixelnet_triton.explain`: what a call gets, in words, without computing anything."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pixelnet_triton import plan_hypercolumn
from pixelnet_triton.explain import main
from pixelnet_triton.planner.profiles import SHIPPED

CALL = ["64@56x28", "256@14", "--points", "500", "--outputs", "64", "--images", "2"]


def test_on_the_cpu_it_names_back_end_plan_and_route(capsys: pytest.CaptureFixture[str]) -> None:
    main(CALL)
    text = capsys.readouterr().out
    assert "plan for 1000 points on 2 images, 64 outputs, float32, forward and backward" in text
    assert "0: 64 @ 56 x 28" in text
    assert "route: cpu: forward " in text
    assert "not gpu: it computes on a GPU; the tensors are on the CPU" in text


def test_for_a_gpu_it_names_kernels_and_tiles(capsys: pytest.CaptureFixture[str]) -> None:
    main([*CALL, "--profile", "H200", "--dtype", "bfloat16", "--plan", "one_pass", "--inference"])
    text = capsys.readouterr().out
    assert "route: gpu: forward fused_linear" in text
    assert "kernel fused_linear: tile " in text
    assert "backward" not in text.split("\n", 1)[1]


@pytest.mark.parametrize(("capability", "why"), [(90, "on Hopper"), (100, "enough outputs")])
def test_the_tile_is_that_of_the_device(capability: int, why: str) -> None:
    profile = replace(SHIPPED["H200"], capability=capability)
    plan = plan_hypercolumn(
        [(2, 64, 56, 56)], 2000, 256, plan="one_pass", dtype=torch.bfloat16, profile=profile
    )
    (note,) = [n for n in plan.estimate.notes if "fused_linear" in n]
    assert why in note


@pytest.mark.parametrize(("layout", "why"), [(1, "worked out once"), (0, "one by one")])
def test_the_tile_is_that_of_the_layout(layout: int, why: str) -> None:
    memory_format = (torch.contiguous_format, torch.channels_last)[layout]
    maps = [torch.empty(2, 64, 56, 56, dtype=torch.bfloat16).to(memory_format=memory_format)]
    plan = plan_hypercolumn(maps, 2000, 256, plan="two_step", profile="H200")
    (note,) = [n for n in plan.estimate.notes if "gather" in n]
    assert why in note


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--dtype", "float31"], "no dtype of torch"),
        (["--profile", "H9000"], "profile='H9000' is unknown"),
        (["--device", "meta"], "supported are cpu and cuda devices"),
        (["--plan", "best"], "plan='best' is unknown"),
        (["--device", "cuda:99"], "device='cuda:99', but torch finds"),
        (["--dtype", "float64", "--profile", "H200"], "no kernels of float64"),
    ],
)
def test_bad_arguments_are_named(
    changes: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*CALL, *changes])
    assert message in capsys.readouterr().err


def test_a_bad_layer_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["64x56", "--points", "5", "--outputs", "6"])
    assert "layer '64x56'" in capsys.readouterr().err
