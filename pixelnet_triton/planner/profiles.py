"""Profiles of devices that nobody calibrated: shipped, or derived from what the driver says.

`source` tells which, and starts with "measured" or "model".
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ..call.profile import DeviceProfile

__all__ = ["SHIPPED", "derived_profile", "shipped_profile"]

_H200 = DeviceProfile(
    name="NVIDIA H200",
    source="measured: fitted to 161 routes of eleven calls in bfloat16 on 2026-11-27, torch 2.11, "
    "Triton 3.6, median error 8 % over the 98 that are routes still; rates of float32 are a model",
    kind="gpu",
    dense_flops_64=50e12,
    dense_flops_32=50e12,
    dense_flops_16=806e12,
    fused_flops_32=40e12,
    fused_flops_16=282e12,
    map_reads=10.7e12,
    strided_reads=1.5e12,  # not measured
    projected_reads=5.4e12,
    scatters=1.9e12,
    collects=4.9e12,
    streams=3.6e12,
    sampled_values=1e15,  # this kind of work and the next take no time of their own on a GPU
    located_points=1e15,
    operator_seconds=4.1e-6,
    capability=90,
)

SHIPPED = {
    "H200": _H200,
    "H100": replace(
        _H200,
        name="NVIDIA H100",
        source="model: an H200 with memory at 3.0 TB/s instead of 4.3",
        streams=2.5e12,
    ),
    "cpu": DeviceProfile(
        name="CPU with AVX-512",
        source="measured: two cores of an Intel(R) Xeon(R) Processor (AVX512, AMX), torch 2.13, "
        "float32, 2026-11-25",
        kind="cpu",
        dense_flops_64=144e9,  # not fitted: half of float32's
        dense_flops_32=287e9,
        dense_flops_16=2000e9,  # of bfloat16 in AMX; else half precision is multiplied in float32
        fused_flops_32=287e9,
        fused_flops_16=287e9,
        map_reads=21.1e9,
        strided_reads=4.5e9,
        projected_reads=120e9,
        scatters=110e9,
        collects=146e9,
        streams=13.7e9,
        sampled_values=384e6,
        located_points=17.8e6,
        operator_seconds=3.27e-6,
        threads=2,
    ),
}


def shipped_profile(device: torch.device) -> DeviceProfile:
    """The profile of a device that nobody calibrated: by its name, or derived from its driver."""
    if device.type == "cpu":
        return SHIPPED["cpu"]
    properties = torch.cuda.get_device_properties(device)
    for key, profile in SHIPPED.items():
        if profile.kind == "gpu" and key in properties.name:
            return profile
    return derived_profile(properties)


def derived_profile(properties: Any) -> DeviceProfile:
    """Rates from a GPU's clock, multiprocessors and memory, as a share of what they could be.

    The shares are those that turn the H200's figures into its shipped profile. Missing figures
    (they depend on the version of torch and on the vendor) are taken from a mid-range GPU.
    """
    processors = properties.multi_processor_count
    clock = getattr(properties, "clock_rate", 0) * 1e3 or 1.5e9  # kHz
    memory_clock = getattr(properties, "memory_clock_rate", 0) * 1e3 or 5e9
    width = getattr(properties, "memory_bus_width", 0) / 8 or 48  # bytes
    memory = 2 * memory_clock * width
    flops = processors * clock * _FLOPS_PER_CLOCK.get(getattr(properties, "major", 8), 4096)
    vector = processors * clock * 256  # 128 float32 lanes, multiply and add
    cache = processors * clock * 64  # bytes a clock between a multiprocessor and the L2 cache
    return replace(
        _H200,
        name=properties.name,
        source="model: derived from its clock, multiprocessors and memory",
        dense_flops_64=0.8 * vector,
        dense_flops_32=0.8 * vector,
        dense_flops_16=0.75 * flops,
        fused_flops_32=0.65 * vector,
        fused_flops_16=0.26 * flops,
        map_reads=0.64 * cache,
        strided_reads=0.1 * cache,
        projected_reads=0.32 * cache,
        scatters=0.11 * cache,
        collects=0.29 * cache,
        streams=0.75 * memory,
        capability=_capability(properties),
    )


def _capability(properties: Any) -> int | None:
    """AMD's major and minor versions are another count."""
    major, minor = getattr(properties, "major", None), getattr(properties, "minor", 0)
    return None if major is None or torch.version.hip is not None else 10 * major + minor


# Half-precision FLOPs of the matrix units of one multiprocessor, per clock, by compute capability.
_FLOPS_PER_CLOCK = {7: 1024, 8: 2048, 9: 4096, 10: 8192, 12: 2048}
