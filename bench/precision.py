"""Full float32 for checks: what a GPU makes of it otherwise, TF32, has ten bits of fraction."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import torch

__all__ = ["full_float32"]


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Products and convolutions of float32 in float32."""
    convolutions, products = torch.backends.cudnn, torch.get_float32_matmul_precision()
    with warnings.catch_warnings():
        # Newer versions of torch have another name for the switch, older ones this one alone.
        warnings.simplefilter("ignore")
        allowed = convolutions.allow_tf32
        torch.set_float32_matmul_precision("highest")
        convolutions.allow_tf32 = False
        try:
            yield
        finally:
            convolutions.allow_tf32 = allowed
            torch.set_float32_matmul_precision(products)
