"""Launch configurations: frozen, few, each with the evidence it rests on.

Without a measurement a configuration rests on what the compiler says of it (registers, spills,
shared memory, instructions: `tests/compile_gate`), which is written beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "FEATURE_GRADIENT_CONFIGS",
    "GATHER_CONFIGS",
    "LINEAR_CONFIGS",
    "SEGMENT_CONFIGS",
    "TRANSPOSED_CONFIGS",
    "WEIGHT_GRADIENT_CONFIGS",
    "GatherConfig",
    "GradientConfig",
    "LinearConfig",
    "SegmentConfig",
    "TransposedConfig",
    "feature_gradient_config",
    "gather_config",
    "linear_config",
    "transposed_config",
    "weight_gradient_config",
]


@dataclass(frozen=True)
class GatherConfig:
    """Tile of a kernel that moves rows: `block_p` points times `block_c` channels."""

    block_p: int
    block_c: int
    num_warps: int


GATHER_CONFIGS = (
    GatherConfig(block_p=16, block_c=64, num_warps=4),
    GatherConfig(block_p=16, block_c=128, num_warps=4),
    GatherConfig(block_p=32, block_c=32, num_warps=4),
)


@dataclass(frozen=True)
class SegmentConfig:
    """Tile of the sorted scatter: `block_e` corners at a time, `block_c` channels of one cell."""

    block_e: int
    block_c: int
    num_warps: int


SEGMENT_CONFIGS = (
    SegmentConfig(block_e=8, block_c=128, num_warps=2),
    SegmentConfig(block_e=16, block_c=64, num_warps=2),
)


def gather_config(maps: Sequence[Tensor]) -> GatherConfig:
    """128 channels a tile where every layer has as many, else 64 (or 32 for narrow maps)."""
    narrowest = min(m.shape[1] for m in maps)
    if narrowest >= 128:
        return GATHER_CONFIGS[1]
    return GATHER_CONFIGS[0] if narrowest >= 64 else GATHER_CONFIGS[2]


@dataclass(frozen=True)
class LinearConfig:
    """Tile of a fused product: `block_m` points, `block_d` outputs, `block_k` channels a step.

    `block_s` is the number of cells a step of an interpolation product takes.
    """

    block_m: int
    block_d: int
    block_k: int
    block_s: int
    num_warps: int
    num_stages: int
    maxnreg: int | None = None


# Compiled for sm_90 from bfloat16, five layers of which two are projected (registers a thread, none
# spilled): 64x256 202, 128x128 218, 64x128 of four warps 252, 64x128 of eight warps 216 in float32
# and 186 in TF32, 32x64 128. A tile of 128x256 spills 88 to 7,560 bytes, so it is not here.
LINEAR_CONFIGS = (
    LinearConfig(64, 256, 32, 32, num_warps=8, num_stages=3),
    LinearConfig(128, 128, 32, 32, num_warps=8, num_stages=3),
    LinearConfig(64, 128, 32, 32, num_warps=4, num_stages=3),
    LinearConfig(64, 128, 32, 32, num_warps=8, num_stages=3),
    # By itself the compiler aims at 96 registers here and spills four bytes under a GELU.
    LinearConfig(32, 64, 32, 32, num_warps=4, num_stages=2, maxnreg=128),
)


def linear_config(dtype: torch.dtype, out_features: int, points: int) -> LinearConfig:
    """Wide tiles where there are outputs to fill them; small ones for small problems."""
    if dtype == torch.float32:
        return LINEAR_CONFIGS[3]
    if out_features <= 64 or points < 512:
        return LINEAR_CONFIGS[4]
    return LINEAR_CONFIGS[2] if out_features <= 128 else LINEAR_CONFIGS[0]


@dataclass(frozen=True)
class GradientConfig:
    """Tile of a product of the backward: `block_m` x `block_n` results, `block_k` terms a step.

    `programs` is how many programs the weight gradient aims for when it splits the points.
    """

    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int
    programs: int = 264


# sm_90, bfloat16, registers a thread: 128x64 166, 64x64 128, 128x128 188, 32x32 62; none spilled.
WEIGHT_GRADIENT_CONFIGS = (
    GradientConfig(128, 64, 32, num_warps=4, num_stages=3),
    GradientConfig(64, 64, 32, num_warps=4, num_stages=3),
    GradientConfig(128, 128, 32, num_warps=8, num_stages=3),
    GradientConfig(32, 32, 32, num_warps=4, num_stages=2),
)

# sm_90, bfloat16: 128x64 190, 64x64 217, 32x32 56; none spilled. A tile of 128x128, whose four
# scatters follow each other, spills 1,336 bytes.
FEATURE_GRADIENT_CONFIGS = (
    GradientConfig(128, 64, 32, num_warps=4, num_stages=3),
    GradientConfig(64, 64, 32, num_warps=4, num_stages=3),
    GradientConfig(32, 32, 32, num_warps=4, num_stages=2),
)


def weight_gradient_config(dtype: torch.dtype) -> GradientConfig:
    """dW: rows are outputs, columns channels, terms points."""
    return WEIGHT_GRADIENT_CONFIGS[3 if dtype == torch.float32 else 0]


def feature_gradient_config(dtype: torch.dtype) -> GradientConfig:
    """dX: rows are points, columns channels, terms outputs."""
    return FEATURE_GRADIENT_CONFIGS[2 if dtype == torch.float32 else 1]


@dataclass(frozen=True)
class TransposedConfig:
    """Tile of Q = S^T G: `block_m` cells (raised to one map row), `block_d` outputs."""

    block_m: int
    block_d: int
    block_k: int
    num_warps: int
    num_stages: int


TRANSPOSED_CONFIGS = (
    TransposedConfig(64, 128, 32, num_warps=4, num_stages=3),
    TransposedConfig(32, 64, 32, num_warps=4, num_stages=2),
)


def transposed_config(dtype: torch.dtype) -> TransposedConfig:
    """Smaller tiles in float32, whose products take more registers."""
    return TRANSPOSED_CONFIGS[1] if dtype == torch.float32 else TRANSPOSED_CONFIGS[0]
