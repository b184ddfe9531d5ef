"""When choices may rest on nothing that was measured."""

from __future__ import annotations

import os

import torch

__all__ = ["must_be_alike"]


def must_be_alike() -> bool:
    """Must two processes, or two runs, choose alike? Then nothing measured may enter.

    That is so for a rank of a job, also before it joins the others: what is chosen then is kept.
    """
    if torch.are_deterministic_algorithms_enabled():
        return True
    launched = os.environ.get("WORLD_SIZE", "1") != "1"
    return launched or (torch.distributed.is_available() and torch.distributed.is_initialized())
