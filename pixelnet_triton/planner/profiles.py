"""What a device can do: the rates that turn work into time.

A profile is measured (:func:`pixelnet_triton.calibrate`), shipped, or derived from what the
device's driver says of it; `source` tells which, and starts with "measured" or "model".
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any

import torch

from .work import Work

__all__ = ["SHIPPED", "DeviceProfile", "derived_profile", "shipped_profile"]


@dataclass(frozen=True)
class DeviceProfile:
    """Rates of one device.

    Args:
        name: of the device. source: "measured ..." or "model ...", and where it comes from.
        kind: ``"cpu"`` or ``"gpu"``: which back end's work is counted.
        product_64, product_32, product_16: FLOP/s of matrix products of that many bits.
        fused_32, fused_16: FLOP/s of products inside a kernel that also gathers.
        gather, strided, rows, scatter, collect, stream: bytes/s of those kinds of work
            (:class:`~pixelnet_triton.planner.work.Work`).
        sampled: values/s interpolated by PyTorch's own sampling kernels (a CPU's small calls).
        located: points/s whose corners are found.
        launch: seconds for each kernel or operator.
        threads: of the CPU, that the rates hold for; 0 for a GPU.
    """

    name: str
    source: str
    kind: str
    product_64: float
    product_32: float
    product_16: float
    fused_32: float
    fused_16: float
    gather: float
    strided: float
    rows: float
    scatter: float
    collect: float
    stream: float
    sampled: float
    located: float
    launch: float
    threads: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("cpu", "gpu"):
            raise ValueError(f"kind={self.kind!r} is unknown; use 'cpu' or 'gpu'")
        for name in RATES:
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise ValueError(f"{name}={value!r}; expected a positive, finite number")

    def __str__(self) -> str:
        threads = f", {self.threads} threads" if self.threads else ""
        return f"{self.name}{threads} ({self.source})"

    @lru_cache(maxsize=64)  # noqa: B019 -- profiles are few and immutable
    def costs(self, itemsize: int) -> Work:
        """Seconds per unit of each kind of work, for elements of `itemsize` bytes."""
        product = {8: self.product_64, 4: self.product_32, 2: self.product_16}[itemsize]
        fused = {8: self.product_64, 4: self.fused_32, 2: self.fused_16}[itemsize]
        return Work(
            product=1 / product,
            fused=1 / fused,
            gather=1 / self.gather,
            strided=1 / self.strided,
            rows=1 / self.rows,
            scatter=1 / self.scatter,
            collect=1 / self.collect,
            stream=1 / self.stream,
            sampled=1 / self.sampled,
            located=1 / self.located,
            launches=self.launch,
        )

    def with_threads(self, threads: int) -> DeviceProfile:
        """The same cores, more or fewer of them: rates in proportion, cost per operator as is.

        Memory scales less than that on machines with many cores; calibrate there.
        """
        if self.kind != "cpu" or threads == self.threads:
            return self
        factor = threads / self.threads
        scaled: dict[str, Any] = {n: getattr(self, n) * factor for n in PER_THREAD}
        return replace(self, threads=threads, **scaled)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> DeviceProfile:
        """Undo :meth:`as_dict`.

        Raises:
            ValueError: `values` has not exactly the fields of a profile, or one is no rate.
        """
        expected = {field.name for field in fields(DeviceProfile)}
        if not isinstance(values, dict) or set(values) != expected:
            raise ValueError(f"a profile has the fields {sorted(expected)}; came {values!r}"[:600])
        return DeviceProfile(**values)


PER_THREAD = (
    "product_64",
    "product_32",
    "product_16",
    "fused_32",
    "fused_16",
    "gather",
    "strided",
    "rows",
    "scatter",
    "collect",
    "stream",
    "sampled",
    "located",
)
RATES = (*PER_THREAD, "launch")

_H200 = DeviceProfile(
    name="NVIDIA H200",
    source="model: 790 TFLOP/s plain and 670 fused in bfloat16, L2 6 TB/s, memory 4.3 TB/s",
    kind="gpu",
    product_64=50e12,
    product_32=50e12,
    product_16=790e12,
    fused_32=40e12,
    fused_16=670e12,
    gather=6e12,
    strided=1.5e12,
    rows=6e12,
    scatter=3e12,
    collect=3e12,
    stream=4.3e12,
    sampled=1e15,  # this kind of work and the next take no time of their own on a GPU
    located=1e15,
    launch=1.5e-6,
)

SHIPPED = {
    "H200": _H200,
    "H100": replace(
        _H200,
        name="NVIDIA H100",
        source="model: an H200 with memory at 3.0 TB/s",
        stream=3.0e12,
    ),
    "cpu": DeviceProfile(
        name="CPU with AVX-512",
        source="measured: two cores of an Intel(R) Xeon(R) Processor (AVX512, AMX), torch 2.13, "
        "float32, 2026-11-25",
        kind="cpu",
        product_64=144e9,  # not fitted: half of float32's
        product_32=287e9,
        product_16=2000e9,  # of bfloat16 in AMX; else half precision is multiplied in float32
        fused_32=287e9,
        fused_16=287e9,
        gather=21.1e9,
        strided=4.5e9,
        rows=120e9,
        scatter=110e9,
        collect=146e9,
        stream=13.7e9,
        sampled=384e6,
        located=17.8e6,
        launch=3.27e-6,
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
        product_64=0.8 * vector,
        product_32=0.8 * vector,
        product_16=0.8 * flops,
        fused_32=0.65 * vector,
        fused_16=0.65 * flops,
        gather=0.4 * cache,
        strided=0.1 * cache,
        rows=0.4 * cache,
        scatter=0.2 * cache,
        collect=0.2 * cache,
        stream=0.9 * memory,
    )


# Half-precision FLOPs of the matrix units of one multiprocessor, per clock, by compute capability.
_FLOPS_PER_CLOCK = {7: 1024, 8: 2048, 9: 4096, 10: 8192, 12: 2048}
