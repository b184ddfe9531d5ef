"""A good call, changes that make it bad, and what the message must say.

A message names the argument, what came and what was expected; each row's pattern asks for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from pixelnet_triton import sparse_hypercolumn

__all__ = ["Bad", "good_call", "ragged"]


def good_call() -> dict[str, Any]:
    """Two images, two maps, 8 channels in all."""
    return {
        "features": [torch.randn(2, 3, 6, 8), torch.randn(2, 5, 3, 4)],
        "points": torch.rand(2, 7, 2),
        "image_size": (12, 16),
        "weight": torch.randn(4, 8),
        "bias": torch.randn(4),
    }


def ragged(**changes: Any) -> dict[str, Any]:
    return {"points": torch.rand(5, 2), "batch_index": torch.tensor([0, 1, 1, 0, 1]), **changes}


@dataclass(frozen=True)
class Bad:
    """`changes` to `good_call()` raise `error` with a message that matches `message`."""

    name: str
    changes: dict[str, Any]
    error: type[Exception]
    message: str

    def check(self) -> None:
        """Assert it."""
        with pytest.raises(self.error, match=self.message):
            sparse_hypercolumn(**good_call() | self.changes)
