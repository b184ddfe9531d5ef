"""Profiles on disk: one small JSON file for each device, in the user's cache folder.

PIXELNET_TRITON_PROFILE   a file to use for every device of its kind, CPU or GPU
PIXELNET_TRITON_CACHE     the folder, instead of $XDG_CACHE_HOME/pixelnet_triton
"""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import torch

from ..call.profile import DeviceProfile
from ..tools.cache import cache_folder, write_json
from ..tools.machine import device_slug
from .profiles import shipped_profile

__all__ = ["load_profile", "profile_for", "profile_path", "save_profile"]

# Ranks of one job may run with different numbers of threads, and still have to plan alike.
NOMINAL_THREADS = 4


def profile_path(device: torch.device) -> Path:
    """The file of a device's profile; a CPU has one for each number of threads."""
    threads = f" {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    return cache_folder() / f"profile-{device_slug(device, threads)}.json"


def save_profile(profile: DeviceProfile, path: Path) -> None:
    """Write a profile."""
    write_json(profile.as_dict(), path)


def load_profile(path: Path) -> DeviceProfile:
    """Read a profile.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is no profile.
    """
    try:
        profile = DeviceProfile.from_dict(json.loads(path.read_text(encoding="utf-8")))
        _check_words(profile)
    except (ValueError, TypeError, RecursionError) as error:  # the last: brackets without end
        raise ValueError(f"{path} is not a device profile: {error}") from error
    return profile


def _check_words(profile: DeviceProfile) -> None:
    """Raise `ValueError` for what is no rate: plans are remembered by these, so they must hash."""
    for name in ("name", "source"):
        if not isinstance(getattr(profile, name), str):
            raise ValueError(f"{name}={getattr(profile, name)!r}; expected text")
    if profile.capability is not None and type(profile.capability) is not int:
        raise ValueError(f"capability={profile.capability!r}; expected an integer, or null")
    least = 1 if profile.kind == "cpu" else 0
    if type(profile.threads) is not int or profile.threads < least:
        raise ValueError(f"threads={profile.threads!r}; expected an integer, at least {least}")


def profile_for(device: torch.device, *, shipped_only: bool = False) -> DeviceProfile:
    """The profile to plan with: forced by the environment, calibrated, shipped or derived.

    One that is forced is of one kind of device; rates of a GPU say nothing of a CPU.

    `shipped_only` leaves out what was calibrated on this machine and the number of threads, so
    that all ranks of a job get the same.
    """
    forced = os.environ.get("PIXELNET_TRITON_PROFILE")
    if forced:
        try:
            profile = load_profile(Path(forced))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"PIXELNET_TRITON_PROFILE={forced!r} cannot be used: {error}. Make a profile with "
                "pixelnet_triton.calibrate(), or unset the variable"
            ) from error
        if profile.kind == ("cpu" if device.type == "cpu" else "gpu"):
            return profile
    profile = shipped_profile(device)
    if shipped_only:
        return profile.with_threads(NOMINAL_THREADS)
    return _calibrated(device) or profile.with_threads(torch.get_num_threads())


def _calibrated(device: torch.device) -> DeviceProfile | None:
    try:
        return load_profile(profile_path(device))
    except FileNotFoundError:  # of the file, or of any place for one
        return None
    except (OSError, ValueError) as error:
        warnings.warn(
            f"{error}. It is ignored; pixelnet_triton.calibrate() writes it anew",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
