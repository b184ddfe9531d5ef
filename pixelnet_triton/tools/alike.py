"""When choices may rest on nothing that was measured."""

from __future__ import annotations

import torch

__all__ = ["must_be_alike"]


def must_be_alike() -> bool:
    """Must two processes, or two runs, choose alike? Then nothing measured may enter."""
    return torch.are_deterministic_algorithms_enabled() or (
        torch.distributed.is_available() and torch.distributed.is_initialized()
    )
