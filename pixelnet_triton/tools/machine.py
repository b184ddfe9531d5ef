"""What tells one device from another."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import torch

__all__ = ["cpu_name", "device_name", "device_slug", "slug"]


def cpu_name() -> str:
    """The processor's marketing name, which `platform` does not know on Linux."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def device_name(device: torch.device) -> str:
    """A home folder may be shared by many machines: a CPU's name has its instructions too."""
    if device.type != "cpu":
        return torch.cuda.get_device_name(device)
    return f"{cpu_name()} {torch.backends.cpu.get_cpu_capability()}"


def device_slug(device: torch.device, more: str = "") -> str:
    """The device's name, fit for that of a file."""
    return slug(f"{device_name(device)}{more}")


def slug(name: str) -> str:
    """A name, fit for that of a file or a folder.

    >>> slug("NVIDIA H200 (2)")
    'nvidia-h200-2'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
