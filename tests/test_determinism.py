"""The same bits from run to run, whether or not `torch.use_deterministic_algorithms` asks for it.

Many points on few cells, so that every cell's gradient is a sum of many terms whose order would
show in the last bits.
"""

from __future__ import annotations

import pytest
import torch

from pixelnet_triton import sparse_hypercolumn

from .cases import Case, build, case_id
from .check import check_case, evaluate, upstream_gradient

CROWDED = ((24, 6, 7), (16, 3, 4), (8, 1, 1))
CASES = [
    Case("gather", CROWDED, points=600, image_size=(12, 14)),
    Case("channels_last", CROWDED, points=600, image_size=(12, 14), layout="channels_last"),
    Case("ragged", CROWDED, points=1200, image_size=(12, 14), ragged=True),
    Case("duplicates", CROWDED, points=600, image_size=(12, 14), spread="duplicates"),
    Case("linear", CROWDED, points=600, image_size=(12, 14), out_features=32),
    Case("relu", CROWDED, points=600, image_size=(12, 14), out_features=32, activation="relu"),
    Case("bfloat16", CROWDED, points=600, image_size=(12, 14), dtype=torch.bfloat16).linear(),
]
RUNS = 4


@pytest.mark.parametrize("asked", [False, True], ids=["unasked", "asked"])
@pytest.mark.parametrize("plan", ["auto", "gather", "project"])
@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_gradients_are_the_same_bits(
    case: Case, plan: str, asked: bool, device: torch.device
) -> None:
    inputs = build(case, device)
    grad = upstream_gradient(inputs)
    torch.use_deterministic_algorithms(asked)
    first = evaluate(sparse_hypercolumn, inputs, grad, plan=plan)
    for _ in range(RUNS - 1):
        again = evaluate(sparse_hypercolumn, inputs, grad, plan=plan)
        for name, result in again.items():
            assert torch.equal(result, first[name]), name


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_deterministic_gradients_are_right(case: Case, device: torch.device) -> None:
    torch.use_deterministic_algorithms(True)
    check_case(case, device)
