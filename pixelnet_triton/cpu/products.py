"""Matrix products, and the dtype that goes into them.

bfloat16 operands go as they are where the CPU has matrix units for them (Intel's AMX): they
multiply at eight times the rate of float32 and sum in it. Everything else is multiplied in the
dtype that it is computed in.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["add_product", "compute_dtype", "multiplies_half", "product_dtype"]


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """What features of `dtype` are interpolated and summed in: faster than half, more accurate."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@lru_cache(maxsize=1)
def _has_matrix_units() -> bool:
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return supported is not None and torch.backends.mkldnn.is_available() and bool(supported())


def multiplies_half(dtype: torch.dtype) -> bool:
    """Is that a dtype of half precision which this CPU multiplies in units of its own?"""
    return dtype == torch.bfloat16 and _has_matrix_units()


def product_dtype(dtype: torch.dtype) -> torch.dtype:
    """What the operands of products are, for features of `dtype`."""
    return dtype if multiplies_half(dtype) else compute_dtype(dtype)


def add_product(out: Tensor, left: Tensor, right: Tensor, onto: Tensor | None) -> None:
    """out = onto + left @ right; `onto` is `out` itself, a row, or None.

    A product of bfloat16 is rounded once before it is added to something wider.
    """
    if left.dtype != out.dtype:
        # `out=` because autocast, already obeyed by the caller, leaves it alone.
        product = torch.mm(left, right, out=torch.empty_like(out, dtype=left.dtype))
        if onto is None:
            out.copy_(product)
        else:
            torch.add(onto, product, out=out)
    elif onto is None:
        torch.mm(left, right, out=out)
    else:
        torch.addmm(onto, left, right, out=out)
