"""State dicts from files of torch or safetensors, read without running what is in them."""

from __future__ import annotations

import os
import pathlib
import pickle
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
    expected = "expected a state dict, names and tensors, as torch.save or safetensors write it"
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # of pickle, zip, torch or safetensors: none has a common base
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, pickle.UnpicklingError):  # which advises to run what is in the file
            reason = "it holds more than tensors and plain values"
        raise ValueError(f"{path} cannot be read: {reason}; {expected}") from error
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} holds a {type(state).__name__}; {expected}")
    others = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise ValueError(
            f"{path} holds {others[:5]}, which are no tensors; {expected}. If one of them is the "
            "state dict, pass it itself"
        )
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
            "state dict of the same network, without prefixes such as 'module.'"
        )
