"""What a draw costs: 2,000 pixels of each of five images of 224 x 224, the paper's mini-batch.

    pytest bench/test_sampling.py --benchmark-only

Beside the samplers, three ways to draw uniformly that `sampling/draw.py` does not take: a sort of
random keys, a permutation per image, and NumPy's choice among the valid pixels of each image. The
last is the fastest on a CPU by far, but loops over images, and on a GPU would wait for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from bench.machine import DEVICE
from pixelnet_triton.sampling import (
    BiasedSampler,
    ClassBalancedSampler,
    StratifiedSampler,
    UncertaintySampler,
    UniformSampler,
)

N, IMAGES, SIDE = 2000, 5, 224
torch.manual_seed(1)
LABELS = torch.randint(0, 21, (IMAGES, SIDE, SIDE), device=DEVICE)
LABELS[torch.rand(LABELS.shape, device=DEVICE) < 0.1] = 255
EDGES = torch.where(LABELS == 255, 255, (LABELS < 2).long())
SCORES = torch.rand(LABELS.shape, device=DEVICE)
UNCERTAINTY = UncertaintySampler(N)

DRAWS: dict[str, Callable[[], object]] = {
    "uniform": lambda: UniformSampler(N)(LABELS),
    "uniform, rows": lambda: UniformSampler(N, order="rows")(LABELS),
    "uniform, morton": lambda: UniformSampler(N, order="morton")(LABELS),
    "stratified": lambda: StratifiedSampler(N)(LABELS),
    "biased": lambda: BiasedSampler(N)(EDGES),
    "class-balanced": lambda: ClassBalancedSampler(N, 21)(LABELS),
    "uncertainty": lambda: UNCERTAINTY(LABELS, score=SCORES),
}


@pytest.mark.parametrize("name", DRAWS)
def test_sampler(benchmark: Any, name: str) -> None:
    benchmark(_until_done(DRAWS[name]))


def sort() -> None:
    keys = torch.rand(IMAGES, SIDE * SIDE, device=DEVICE)
    keys.masked_fill_(LABELS.flatten(1) == 255, -1).argsort(dim=1, descending=True)[:, :N]


def permutations() -> None:
    for labels in LABELS.flatten(1):
        known = (labels != 255).nonzero().flatten()
        known[torch.randperm(len(known), device=DEVICE)[:N]]


def numpy_choice() -> None:
    generator = np.random.default_rng()
    for labels in LABELS.flatten(1).cpu().numpy():
        generator.choice(np.flatnonzero(labels != 255), N, replace=False)


@pytest.mark.parametrize("draw", [sort, permutations, numpy_choice])
def test_other_ways(benchmark: Any, draw: Callable[[], None]) -> None:
    benchmark(_until_done(draw))


def _until_done(act: Callable[[], object]) -> Callable[[], None]:
    """The act, with the wait for a GPU that its time includes."""

    def run() -> None:
        act()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    return run
