"""The example of each trainer runs as its first lines say, and learns."""

from __future__ import annotations

import importlib.util
import re

import pytest
import torch

from .launch import python, torchrun

NEEDS = {
    "lightning_trainer": "lightning",
    "hf_trainer": "transformers",
    "accelerate_loop": "accelerate",
}


def losses(printed: str) -> list[float]:
    return [float(number) for number in re.findall(r"^epoch \d: loss ([\d.]+)$", printed, re.M)]


@pytest.mark.parametrize("name", NEEDS)
def test_of_one_process(name: str) -> None:
    if importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed")
    history = losses(python("-m", f"examples.integrations.{name}"))
    assert len(history) == 4
    assert history[-1] < 0.8 * history[0]


@pytest.mark.parametrize("name", ["ddp", "fsdp2"])
def test_of_two_processes(name: str) -> None:
    if name == "fsdp2" and not hasattr(torch.cpu.Stream, "record_event"):
        pytest.skip("this torch has no FSDP2 on the CPU")
    history = losses(torchrun("-m", f"examples.integrations.{name}"))
    assert len(history) == 4
    assert history[-1] < 0.8 * history[0]
