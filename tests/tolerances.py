"""The one tolerance of the test suite.

A result is right when its error against the float64 reference is at most twice the error that
plain PyTorch makes in the same dtype,

    error(library) <= 2 * error(plain) + floor * max |reference|,

in the largest and in the root mean square deviation. The floor covers results that plain
PyTorch happens to get exactly. It is a few units in the last place and depends on the dtype
alone: not on the machine, the device, the case, or on which tensor is compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LUCK", "TOLERANCES", "Tolerance", "assert_close_to_reference", "coarsest"]


@dataclass(frozen=True)
class Tolerance:
    """ratio: how many times plain PyTorch's error. floor: relative to the largest entry."""

    floor: float
    ratio: float = 2.0


TOLERANCES = {
    # The reference is float64 too: it knows positions hundreds of cells from the origin to some
    # hundred units in the last place only, and cannot judge beyond that.
    torch.float64: Tolerance(floor=4096 * torch.finfo(torch.float64).eps),
    torch.float32: Tolerance(floor=4 * torch.finfo(torch.float32).eps),
    # One unit in the last place: two roundings, of which plain PyTorch may escape one.
    torch.float16: Tolerance(floor=1 * torch.finfo(torch.float16).eps),
    torch.bfloat16: Tolerance(floor=1 * torch.finfo(torch.bfloat16).eps),
}

# Among thousands of drawn cases there are results of a few numbers that plain PyTorch gets right
# to the last bit, so that the last bit decides. In the fuzz test alone, an error of up to so many
# times the limit counts only if the case fails for two of eight other draws of its numbers.
LUCK = 8.0


def coarsest(*dtypes: torch.dtype) -> torch.dtype:
    """The floating dtype with the largest unit in the last place."""
    return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)


def assert_close_to_reference(
    actual: Tensor,
    expected: Tensor,
    plain: Tensor,
    *,
    dtype: torch.dtype,
    name: str,
) -> None:
    """Assert that `actual` is as near to `expected` as the rule of this module asks.

    Args:
        actual: the library's result. expected: the reference's, in float64.
        plain: what plain PyTorch computes in the dtype of the inputs.
        dtype: the row of the table, the coarsest dtype that took part.
        name: what is compared, for the message.
    """
    assert actual.shape == expected.shape, f"{name}: {tuple(actual.shape)}"
    if expected.numel() == 0:
        return
    actual, plain = actual.detach().double(), plain.detach().double()
    assert torch.isfinite(expected).all(), f"{name}: the reference itself is not finite"
    assert torch.isfinite(actual).all(), (
        f"{name}: {int((~torch.isfinite(actual)).sum())} of {actual.numel()} not finite"
    )
    tolerance = TOLERANCES[dtype]
    floor = tolerance.floor * expected.abs().max().item()
    for measure, error, allowed in _errors(actual, expected, plain):
        limit = tolerance.ratio * allowed + floor
        assert error <= limit, (
            f"{name}: {measure} error {error:.3g} exceeds {limit:.3g} "
            f"(plain PyTorch: {allowed:.3g}, largest entry {expected.abs().max().item():.3g}); "
            f"worst at {_worst(actual, expected)}"
        )


def _errors(actual: Tensor, expected: Tensor, plain: Tensor) -> Iterator[tuple[str, float, float]]:
    actual_error, plain_error = (actual - expected), (plain - expected)
    yield "largest", actual_error.abs().max().item(), plain_error.abs().max().item()
    yield (
        "root mean square",
        actual_error.square().mean().sqrt().item(),
        plain_error.square().mean().sqrt().item(),
    )


def _worst(actual: Tensor, expected: Tensor) -> str:
    at = int((actual - expected).abs().argmax())
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(at), expected.shape))
    return f"{index}: {actual[index].item():.6g} instead of {expected[index].item():.6g}"
