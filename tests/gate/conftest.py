"""Where kernels can run: on a GPU, or in Triton's interpreter."""

from __future__ import annotations

import os

import pytest
import torch

from pixelnet_triton.tools.settings import triton_interprets

__all__ = ["needs_kernels"]

needs_kernels = pytest.mark.skipif(
    not triton_interprets()
    and not os.environ.get("PIXELNET_TEST_DEVICE", "cpu").startswith("cuda"),
    reason="kernels run with TRITON_INTERPRET=1 or PIXELNET_TEST_DEVICE=cuda",
)


@pytest.fixture
def a_device_with_tma(device: torch.device) -> None:
    """Of NVIDIA's GPUs Hopper and later."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (9, 0):
        pytest.skip("needs TMA")
