"""What every launcher needs: the arguments of layers and points, and what runs the kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor
from triton import knobs

__all__ = [
    "LayerAffine",
    "channel_blocks",
    "launch_options",
    "layer_arguments",
    "point_arguments",
    "precision_arguments",
    "row_vector",
]

LayerAffine = tuple[float, float, float, float]


def layer_arguments(maps: Sequence[Tensor], affine: Sequence[LayerAffine]) -> dict[str, Any]:
    """Tuples over layers: pointers, (H_i, W_i), strides (batch, channel, row, column), affine.

    ``VECTORS`` says how many elements, at most 16 bytes, the offset of every cell is a multiple
    of. A dimension of size 1 gets stride 0, which is divisible by everything: torch may give it
    any stride, and a 1x1 map would lose its 16-byte loads.
    """
    strides = [
        tuple(0 if size == 1 else stride for size, stride in zip(m.shape, m.stride(), strict=True))
        for m in maps
    ]
    return {
        "maps": tuple(maps),
        "sizes": tuple((m.shape[2], m.shape[3]) for m in maps),
        "strides": tuple(strides),
        "affine": tuple(affine),
        "VECTORS": tuple(
            math.gcd(16 // m.element_size(), s[0], s[2], s[3])
            for m, s in zip(maps, strides, strict=True)
        ),
    }


def point_arguments(points: Tensor, batch_index: Tensor | None, batch: int) -> dict[str, Any]:
    """Points (P, 2) and the image of each: its own, or that of equal shares in order."""
    total = points.shape[0]
    points = points.contiguous()
    return {
        "points": points,
        # A pointer argument must point somewhere, also where the kernel does not read it.
        "batch_index": points if batch_index is None else batch_index.contiguous(),
        "total": total,
        "per_image": total if batch_index is not None else total // batch,
        "batch": batch,
        "RAGGED": batch_index is not None,
    }


def launch_options(config: Any = None) -> dict[str, Any]:
    """Options of a launch: the warps, stages and registers that `config` names, if it does.

    Contraction of a * b + c is asked for by name because Triton 3.9 warns where it is left open.
    """
    options: dict[str, Any] = {"enable_fp_fusion": True}
    for name in ("num_warps", "num_stages", "maxnreg"):
        value = getattr(config, name, None)
        if value is not None and (name != "maxnreg" or _takes_maxnreg()):
            options[name] = value
    return options


def _takes_maxnreg() -> bool:
    """Only NVIDIA's compiler limits registers; the interpreter has no compiler at all."""
    if knobs.runtime.interpret:
        return False
    return triton.runtime.driver.active.get_current_target().backend == "cuda"


def channel_blocks(channels: Sequence[int], block: int) -> tuple[tuple[int, ...], int]:
    """First block of each layer, and their number, when every layer is cut into blocks."""
    firsts = []
    total = 0
    for count in channels:
        firsts.append(total)
        total += triton.cdiv(count, block)
    return tuple(firsts), total


def precision_arguments(dtype: torch.dtype) -> dict[str, Any]:
    """How `tl.dot` treats its operands.

    float32 follows PyTorch's own switches for TF32. The interpreter computes bfloat16 products
    wrongly, so there the operands are widened after they were rounded, which means the same.
    """
    tf32 = (
        torch.backends.cuda.matmul.allow_tf32 or torch.get_float32_matmul_precision() != "highest"
    )
    return {
        "PRECISION": "tf32" if tf32 and dtype == torch.float32 else "ieee",
        "UPCAST": dtype == torch.bfloat16 and knobs.runtime.interpret,
    }


def row_vector(matrix: Tensor) -> int:
    """How many elements, at most 16 bytes, every row of a matrix starts at a multiple of."""
    if matrix.stride(1) != 1:
        return 1
    return math.gcd(16 // matrix.element_size(), matrix.stride(0))
