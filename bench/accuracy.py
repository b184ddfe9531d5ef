"""The numerical check that a peer has to pass before it is timed.

Values and the gradients of every map, weight and bias are compared with the float64 reference.
The library is held to the rule of the test suite, tests/tolerances.py: at most twice the error
of plain PyTorch in the same dtype. Others are held to what their arithmetic can reach; one that
does not is shown with its error, and not timed. The check is made without TF32, which a GPU's
convolutions take; what is timed has it as its users have.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from pixelnet_triton.reference import sparse_hypercolumn as reference_hypercolumn
from tests.plain import plain_hypercolumn
from tests.tolerances import TOLERANCES, assert_close_to_reference

from .inputs import Inputs
from .peers import Peer, prepare


@contextlib.contextmanager
def arithmetic(tf32: bool) -> Iterator[None]:
    """All float32 convolutions and products with TF32, or none."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=tf32):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


class Expected:
    """What a peer's results have to be.

    Args:
        training: whether gradients are compared, too.
    """

    def __init__(self, inputs: Inputs, training: bool) -> None:
        self._inputs, self._training = inputs, training
        exact = inputs.double().requires_grad_(training)
        both = ((reference_hypercolumn, exact), (plain_hypercolumn, inputs))
        with torch.no_grad():
            z, rounded = (function(**at.sampling(), **at.linear()) for function, at in both)
        generator = torch.Generator(z.device).manual_seed(1)
        upstream = torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)
        # Entries that two right programs may see on either side of ReLU's step do not count.
        tolerance = TOLERANCES[inputs.weight.dtype]
        band = tolerance.ratio * (rounded - z).abs().max() + tolerance.floor * z.abs().max()
        self._upstream = torch.where(z.abs() <= band, 0, upstream)
        with arithmetic(tf32=False):
            self._reference, self._plain = (
                self._results(f(**at.sampling(), **at.linear(), activation="relu"), at.leaves())
                for f, at in both
            )

    def check(self, peer: Peer, strict: bool = True) -> tuple[float, float]:
        """(largest relative error, what is allowed).

        Args:
            strict: hold the library to the rule of its test suite.

        Raises:
            AssertionError: it breaks that rule.
        """
        call = prepare(peer, self._inputs)
        with arithmetic(tf32=False):
            rows = peer.rows_of(call.forward(), self._inputs.points)
            actual = self._results(rows, call.leaves)
        dtype, errors = self._inputs.weight.dtype, []
        assert {"value", *(("weight", "bias") if self._training else ())} <= actual.keys()
        for name in sorted(actual.keys() & self._reference.keys()):
            ours, exact = actual[name], self._reference[name]
            errors.append(((ours.double() - exact).abs().max() / exact.abs().max()).item())
            if strict and peer.plan:
                named = f"{peer.name}: {name}"
                assert_close_to_reference(ours, exact, self._plain[name], dtype=dtype, name=named)
        # Coordinates in [-1, 1] are rounded to float32's eps: up to eps * side / 2 cells.
        coordinates = torch.finfo(torch.float32).eps * max(self._inputs.image_size)
        worst = max(errors)
        return (worst if worst == worst else float("inf")), 8 * torch.finfo(dtype).eps + coordinates

    def _results(self, rows: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
        """The value and, by name, the gradients."""
        results = {"value": rows.detach()}
        if self._training:
            upstream = self._upstream.to(rows.dtype)
            grads = torch.autograd.grad(rows, list(leaves.values()), upstream)
            results.update(zip(leaves, grads, strict=True))
        return results
