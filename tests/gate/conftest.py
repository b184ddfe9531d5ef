"""Where kernels can run: on a GPU, or in Triton's interpreter."""

from __future__ import annotations

import os

import pytest

__all__ = ["needs_kernels"]

needs_kernels = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1"
    and not os.environ.get("PIXELNET_TEST_DEVICE", "cpu").startswith("cuda"),
    reason="kernels run with TRITON_INTERPRET=1 or PIXELNET_TEST_DEVICE=cuda",
)
