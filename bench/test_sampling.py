"""What a draw costs: 2,000 pixels of each of five images of 224 x 224, the paper's mini-batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from bench.machine import DEVICE
from pixelnet_triton import sampling

N, SHAPE = 2000, (5, 224, 224)
torch.manual_seed(1)
LABELS = torch.randint(0, 21, SHAPE, device=DEVICE)
LABELS[torch.rand(SHAPE, device=DEVICE) < 0.1] = 255
EDGES = torch.where(LABELS == 255, 255, (LABELS < 2).long())
SCORES = torch.rand(SHAPE, device=DEVICE)

DRAWS: dict[str, Callable[[], object]] = {
    "uniform": lambda: sampling.UniformSampler(N)(LABELS),
    "uniform, rows": lambda: sampling.UniformSampler(N, order="rows")(LABELS),
    "uniform, morton": lambda: sampling.UniformSampler(N, order="morton")(LABELS),
    "stratified": lambda: sampling.StratifiedSampler(N)(LABELS),
    "biased": lambda: sampling.BiasedSampler(N)(EDGES),
    "class-balanced": lambda: sampling.ClassBalancedSampler(N, 21)(LABELS),
    "uncertainty": lambda: sampling.UncertaintySampler(N)(LABELS, score=SCORES),
}


@pytest.mark.parametrize("name", DRAWS)
def test_sampler(benchmark: Any, name: str) -> None:
    def until_done() -> None:
        DRAWS[name]()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    benchmark(until_done)
