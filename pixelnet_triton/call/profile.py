"""What a device can do: the rates that turn work into time."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any

from .work import Work

__all__ = ["PER_THREAD", "RATES", "DeviceProfile"]


@dataclass(frozen=True)
class DeviceProfile:
    """Rates of one device.

    Args:
        name: of the device. source: "measured ..." or "model ...", and where it comes from.
        kind: ``"cpu"`` or ``"gpu"``: which back end's work is counted.
        dense_flops_64, dense_flops_32, dense_flops_16: FLOP/s of matrix products of that many bits.
        fused_flops_32, fused_flops_16: FLOP/s of products inside a kernel that also gathers.
        map_reads, strided_reads, projected_reads, scatters, collects, streams: bytes/s of those
            kinds of work (:class:`~pixelnet_triton.call.work.Work`).
        sampled_values: values/s interpolated by PyTorch's own sampling kernels.
        located_points: points/s whose corners are found.
        operator_seconds: seconds for each kernel or operator.
        threads: of the CPU, that the rates hold for; 0 for a GPU.
        capability: of an NVIDIA GPU, ten times the major version and the minor one: 80, 90, 100;
            None for all else.
    """

    name: str
    source: str
    kind: str
    dense_flops_64: float
    dense_flops_32: float
    dense_flops_16: float
    fused_flops_32: float
    fused_flops_16: float
    map_reads: float
    strided_reads: float
    projected_reads: float
    scatters: float
    collects: float
    streams: float
    sampled_values: float
    located_points: float
    operator_seconds: float
    threads: int = 0
    capability: int | None = None

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
        dense = {8: self.dense_flops_64, 4: self.dense_flops_32, 2: self.dense_flops_16}[itemsize]
        fused = {8: self.dense_flops_64, 4: self.fused_flops_32, 2: self.fused_flops_16}[itemsize]
        return Work(
            dense_flops=1 / dense,
            fused_flops=1 / fused,
            map_reads=1 / self.map_reads,
            strided_reads=1 / self.strided_reads,
            projected_reads=1 / self.projected_reads,
            scatters=1 / self.scatters,
            collects=1 / self.collects,
            streams=1 / self.streams,
            sampled_values=1 / self.sampled_values,
            located_points=1 / self.located_points,
            operators=self.operator_seconds,
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
    "dense_flops_64",
    "dense_flops_32",
    "dense_flops_16",
    "fused_flops_32",
    "fused_flops_16",
    "map_reads",
    "strided_reads",
    "projected_reads",
    "scatters",
    "collects",
    "streams",
    "sampled_values",
    "located_points",
)
RATES = (*PER_THREAD, "operator_seconds")
