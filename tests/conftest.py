"""Fixtures of all tests, and the profile of the property tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "default",
    deadline=None,  # the first example pays for warming up
    derandomize=True,  # the same examples everywhere, so that a failure is nobody's luck
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("explore", deadline=None, derandomize=False, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def device() -> torch.device:
    """PIXELNET_TEST_DEVICE, the CPU unless set: one suite for every device."""
    return torch.device(os.environ.get("PIXELNET_TEST_DEVICE", "cpu"))


@pytest.fixture(autouse=True)
def _same_state_for_every_test() -> Iterator[None]:
    torch.manual_seed(0)
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(deterministic)


def takes_float64(device: torch.device) -> bool:
    """Only the CPU path computes in float64; the kernels refuse it."""
    kernels = os.environ.get("PIXELNET_TRITON_BACKEND") == "triton"
    return device.type == "cpu" and not kernels
