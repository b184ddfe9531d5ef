"""What this machine offers the library: versions, devices, back ends, settings.

    python -m pixelnet_triton.env_report          # for people, and for bug reports
    python -m pixelnet_triton.env_report --json   # for programs

Works without Triton and without a GPU, and says so.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
from typing import Any

import torch

from .tools.machine import cpu_name
from .tools.settings import triton_interprets

__all__ = ["VARIABLES", "environment", "format_report", "main"]

#: Environment variables that change what the library, its tests or Triton do: docs/environment.md.
VARIABLES = (
    "PIXELNET_TRITON_AUTOTUNE",
    "PIXELNET_TRITON_BACKEND",
    "PIXELNET_TRITON_STRICT",
    "PIXELNET_TRITON_PROFILE",
    "PIXELNET_TRITON_CACHE",
    "PIXELNET_TRITON_DIRECT",
    "XDG_CACHE_HOME",
    "WORLD_SIZE",
    "PIXELNET_TEST_DEVICE",
    "PIXELNET_SIMULATOR_TARGET",
    "PIXELNET_SIMULATOR_SEED",
    "CXX",
    "FAKE_CUDA_REACHED",
    "PIXELNET_BENCH_RESULTS",
    "PIXELNET_DATA",
    "PIXELNET_CHECKPOINTS",
    "HYPOTHESIS_PROFILE",
    "TRITON_INTERPRET",
    "TRITON_CACHE_DIR",
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
)

PACKAGES = ("pixelnet-triton", "torch", "triton", "numpy")


def environment() -> dict[str, Any]:
    """The facts as a dictionary that `json` can write.

    Keys: ``python``, ``platform``, ``versions`` (None where a package is missing), ``cpu``,
    ``devices`` (one dictionary per GPU), ``backends`` (name to a phrase) and ``variables``.

    Example:
        >>> from pixelnet_triton.env_report import environment
        >>> sorted(environment())
        ['backends', 'cpu', 'devices', 'platform', 'python', 'variables', 'versions']
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        # torch says itself which build it is (+cpu, +cu130); its metadata may leave that out
        "versions": {name: _version(name) for name in PACKAGES} | {"torch": str(torch.__version__)},
        "cpu": {
            "name": cpu_name(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        },
        "devices": [_gpu(index) for index in range(torch.cuda.device_count())],
        "backends": _backends(),
        "variables": {name: os.environ.get(name) for name in VARIABLES},
    }


def format_report(facts: dict[str, Any]) -> str:
    """The facts of :func:`environment` as lines of text."""
    cpu = facts["cpu"]
    rows = [("python", facts["python"]), ("platform", facts["platform"])]
    rows += [(name, version or "not installed") for name, version in facts["versions"].items()]
    rows.append(
        (
            "cpu",
            f"{cpu['name']}, {cpu['cores']} cores, torch uses {cpu['threads']} threads, "
            f"{cpu['vector_instructions']}",
        )
    )
    rows += [
        (
            f"gpu {index}",
            f"{gpu['name']}, {gpu['architecture']}, {gpu['memory_gib']} GiB, "
            f"{gpu['multiprocessors']} multiprocessors",
        )
        for index, gpu in enumerate(facts["devices"])
    ]
    rows += [(f"backend {name}", phrase) for name, phrase in facts["backends"].items()]
    rows += [(name, "not set" if v is None else v) for name, v in facts["variables"].items()]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}} {value}" for name, value in rows)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        # run from the source tree without installation, or really not there
        return "source tree" if package == "pixelnet-triton" else None


def _gpu(index: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(index)
    hip_name = getattr(properties, "gcnArchName", None) if torch.version.hip else None
    return {
        "name": properties.name,
        "architecture": hip_name or f"sm_{properties.major}{properties.minor}",
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "multiprocessors": properties.multi_processor_count,
    }


def _backends() -> dict[str, str]:
    """What each back end would do with a tensor of its device."""
    if importlib.util.find_spec("triton") is None:
        triton = "unavailable: triton is not installed (pip install 'pixelnet-triton[gpu]')"
    elif triton_interprets():
        triton = "interpreter: kernels run on the CPU, slowly, for tests"
    elif torch.cuda.is_available():
        triton = "available for tensors on a GPU"
    else:
        triton = "idle: triton is installed, but torch finds no GPU"
    return {"torch": "available for tensors on the CPU", "triton": triton}


def main(arguments: list[str] | None = None) -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(
        prog="python -m pixelnet_triton.env_report",
        description="Print versions, devices, back ends and settings.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    facts = environment()
    as_json = parser.parse_args(arguments).json
    print(json.dumps(facts, indent=2) if as_json else format_report(facts))


if __name__ == "__main__":
    main()
