"""When choices may rest on nothing that was measured."""

from __future__ import annotations

import torch

__all__ = ["must_be_alike"]

_DISTRIBUTED = torch.distributed.is_available()


def must_be_alike() -> bool:
    """Must two processes, or two runs, choose alike? Then nothing measured may enter."""
    if torch.are_deterministic_algorithms_enabled():
        return True
    return _DISTRIBUTED and torch.distributed.is_initialized()
