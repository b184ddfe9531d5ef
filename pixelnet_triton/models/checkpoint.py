"""A network in one file: weights as safetensors, with its configuration in the header."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .described import check_described, plain_name
from .weights import check_fits

if TYPE_CHECKING:
    from .config import NetworkConfig
    from .pixelnet import PixelNet

__all__ = ["KEY", "VERSION", "described", "load", "read_lightning", "save"]

#: Where the configuration lies: in a header of safetensors as JSON, in Lightning's as a dict.
KEY = "pixelnet_triton"
VERSION = 1


def save(model: PixelNet, path: str | os.PathLike[str]) -> None:
    """:meth:`PixelNet.save`, which says what it does."""
    config = described(model)
    if config is None:
        raise ValueError(
            "the model has no config, without which its file could not be loaded. Build it from a "
            "NetworkConfig (pixelnet_triton.models.build), or say what it is made of with "
            "PixelNet(..., config=NetworkConfig(...)), where register_backbone names a backbone of "
            "your own; torch.save(model.state_dict(), path) keeps the weights alone"
        )
    # A copy each: channels_last and tied weights are not for safetensors.
    tensors = {
        name: _whole(name, tensor).to("cpu", copy=True).contiguous()
        for name, tensor in _plain_names(model.state_dict()).items()
    }
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"path={str(path)!r} is a folder; expected the name of a file in it")
    check_described(model, config, tensors)
    header = {"version": VERSION, "network": config.to_dict()}
    unfinished = path.with_name(path.name + ".part")
    metadata = {"format": "pt", KEY: json.dumps(header)}
    # As bytes, not by `save_file`, which leaves a file that nobody but its owner may read.
    unfinished.write_bytes(_safetensors().save(tensors, metadata))
    unfinished.replace(path)


def described(model: PixelNet) -> NetworkConfig | None:
    """The model's configuration, with head, output and layout as they are since it was built."""
    config = _as_set(model)
    if config is None:
        return None
    # A head may be replaced by one of other widths, for other classes.
    head, made = dict(config.head), model.head
    usual = {"hidden_features": [4096, 4096], "batch_norm": False}
    for name, value in (
        ("hidden_features", list(made.hidden_features)),
        ("out_features", made.out_features),
        ("batch_norm", made.norm is not None),
    ):
        if head.get(name, usual.get(name)) != value:
            head[name] = value
    return dataclasses.replace(config, head=head)


def _as_set(model: PixelNet) -> NetworkConfig | None:
    if model.config is None:
        return None
    return dataclasses.replace(model.config, output=model.output, layout=model.layout)


def _plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without what compiled and checkpointed parts of a model add to names."""
    return {plain_name(name): tensor for name, tensor in state.items()}


def _whole(name: str, tensor: Tensor) -> Tensor:
    if hasattr(tensor, "full_tensor"):
        raise ValueError(
            f"model has {name} spread over several processes (a DTensor); expected whole weights. "
            "Take get_model_state_dict(model, options=StateDictOptions(full_state_dict=True)) of "
            "torch.distributed.checkpoint.state_dict, load it into a model that is not sharded, "
            "and save that"
        )
    return tensor.detach()


def load(path: str | os.PathLike[str], device: torch.device | str) -> PixelNet:
    """:meth:`PixelNet.load`, which says what it does."""
    from .config import NetworkConfig, build  # which need PixelNet

    path = Path(path)
    if path.is_dir():
        raise ValueError(
            f"path={str(path)!r} is a folder; expected a file in it, such as model.safetensors or "
            "last.ckpt"
        )
    if zipfile.is_zipfile(path):
        checkpoint = read_lightning(path)
        header: dict[str, Any] = checkpoint[KEY]
        prefix = "model."
        tensors: dict[str, Tensor] = {
            name.removeprefix(prefix): tensor
            for name, tensor in checkpoint["state_dict"].items()
            if name.startswith(prefix)
        }
    else:
        header, tensors = _read_safetensors(path)
    if header.get("network") is None:
        raise ValueError(
            f"{path} has weights and no configuration, since its model had none. Build the model "
            "as it was built for training, and load the weights with load_state_dict"
        )
    model = build(NetworkConfig.from_dict(header["network"]), pretrained=False)
    tensors = _plain_names(tensors)
    check_fits(tensors, model.state_dict(), f"the network that {path} describes")
    for name, tensor in model.state_dict(keep_vars=True).items():
        tensor.data = tensor.data.to(tensors[name].dtype)
    model.load_state_dict(tensors)
    return model.to(device).eval()


def read_lightning(path: str | os.PathLike[str], map_location: Any = "cpu") -> dict[str, Any]:
    """A checkpoint of :class:`pixelnet_triton.training.PixelNetModule`, with the key :data:`KEY`.

    Raises:
        ValueError: the file is another one, or holds more than plain values and tensors, which
            loading would have to run.
    """
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors and plain values, and is not loaded: {error}"
        ) from error
    if not isinstance(checkpoint, dict) or not {KEY, "state_dict"} <= set(checkpoint):
        raise ValueError(
            f"{path} has no entry {KEY!r}; expected a file of PixelNet.save, or a checkpoint that "
            "PixelNetModule wrote. A state dict is loaded into a model with load_state_dict"
        )
    _check_version(path, checkpoint[KEY])
    return checkpoint


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from_torch = _safetensors()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(
            f"{path} is no file of safetensors: {error}; expected a file of PixelNet.save, or a "
            "checkpoint that PixelNetModule wrote"
        ) from error
    if KEY not in metadata:
        raise ValueError(
            f"{path} has no entry {KEY!r} in its header; expected a file of PixelNet.save. Weights "
            "alone are loaded into a model with load_state_dict"
        )
    header = json.loads(metadata[KEY])
    _check_version(path, header)
    return header, from_torch.load_file(path)


def _check_version(path: Any, header: Any) -> None:
    version = header.get("version") if isinstance(header, dict) else None
    if version != VERSION:
        raise ValueError(
            f"{path} has version {version!r} of the format; this pixelnet_triton reads {VERSION}. "
            "Install the version that wrote it"
        )


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "PixelNet.save and PixelNet.load need safetensors, which is not installed: "
            "pip install 'pixelnet-triton[train]'"
        ) from error
    return safetensors.torch
