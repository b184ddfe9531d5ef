"""State dicts from files of torch or safetensors, read without running what is in them."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["check_fits", "read_weights"]


def read_weights(path: str | os.PathLike[str]) -> Mapping[str, Tensor]:
    """The state dict in a file of safetensors, or of torch (read with ``weights_only=True``).

    Raises:
        ModuleNotFoundError: safetensors is needed and not installed.
        ValueError: the file holds something else.
    """
    path = pathlib.Path(path)
    if path.suffix == ".safetensors":
        try:
            from safetensors.torch import load_file
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{path} needs safetensors, which is not installed: pip install safetensors"
            ) from error
        return load_file(path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} holds a {type(state).__name__}; expected a state dict")
    return state


def check_fits(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], network: str) -> None:
    """Raise `ValueError` listing the entries that do not fit, before anything is loaded.

    Args:
        given: the state dict to load.
        expected: the network's own.
        network: its name, for the message.
    """
    problems = [
        f"{name} has shape {tuple(given[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in given and given[name].shape != tensor.shape
    ]
    problems += [f"unexpected {name}" for name in given if name not in expected]
    problems += [f"missing {name}" for name in expected if name not in given]
    if problems:
        listed = "; ".join(problems[:12]) + ("; ..." if len(problems) > 12 else "")
        raise ValueError(
            f"weights does not fit {network}: {len(problems)} entries: {listed}. Expected the "
            "state dict of the same network"
        )
