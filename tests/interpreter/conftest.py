"""These tests send CPU tensors through the kernels, in Triton's interpreter."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _through_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    # The interpreter is chosen when Triton is first imported: too late to do it here.
    assert os.environ.get("TRITON_INTERPRET") == "1", "run with TRITON_INTERPRET=1"
    monkeypatch.setenv("PIXELNET_TRITON_BACKEND", "triton")
