"""torchvision's VGG-16 weights under the names and in the shapes of :class:`VGG16`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .weights import read_weights

if TYPE_CHECKING:
    from .vgg import VGG16

__all__ = ["load_torchvision"]

_CONVOLUTIONS = (2, 2, 3, 3, 3)  # of each block
_NORM_ENTRIES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
# Files older than PyTorch 0.4.1, vgg16_bn among them, do not have it.
_OPTIONAL_ENTRY = "num_batches_tracked"

_FIRST = "features.0.weight"  # (D, 3, 3, 3)

Source = str | os.PathLike[str] | Mapping[str, Tensor] | None


def load_torchvision(model: VGG16, source: Source) -> None:
    """:meth:`VGG16.load_torchvision`, which says what it does."""
    given = _for_channels(_read(source, model.batch_norm), model.in_channels)
    state = model.state_dict()
    names = _torchvision_names(model.batch_norm)
    _check(given, state, names)
    loaded = {
        name: given[names[name]].reshape(state[name].shape)
        for name in state
        if names.get(name) in given
    }
    model.load_state_dict(loaded, strict=False)
    for name in ("norm6", "norm7"):
        if name + ".weight" in state:
            _make_identity(model.get_submodule(name))


def _for_channels(given: Mapping[str, Tensor], channels: int) -> Mapping[str, Tensor]:
    """The weights with a first convolution for images of so many channels."""
    kernels = given.get(_FIRST)
    if channels == 3 or kernels is None or kernels.dim() != 4 or kernels.shape[1] != 3:
        return given
    mean = kernels.mean(1, keepdim=True)
    if channels < 3:
        adapted = mean.expand(-1, channels, -1, -1)
    else:
        adapted = torch.cat([kernels, mean.expand(-1, channels - 3, -1, -1)], dim=1)
    return {**given, _FIRST: adapted * (3 / channels)}


def _torchvision_names(batch_norm: bool) -> dict[str, str]:
    """torchvision's name of each entry of a complete :class:`VGG16`."""
    names = {}
    index = 0
    for block, convolutions in enumerate(_CONVOLUTIONS, start=1):
        for n in range(1, convolutions + 1):
            for entry in ("weight", "bias"):
                names[f"conv{block}_{n}.{entry}"] = f"features.{index}.{entry}"
            if batch_norm:
                for entry in _NORM_ENTRIES:
                    names[f"norm{block}_{n}.{entry}"] = f"features.{index + 1}.{entry}"
            index += 3 if batch_norm else 2  # convolution, normalisation, ReLU
        index += 1  # pooling
    for layer, index in (("conv6", 0), ("conv7", 3)):
        for entry in ("weight", "bias"):
            names[f"{layer}.{entry}"] = f"classifier.{index}.{entry}"
    return names


def _read(source: Source, batch_norm: bool) -> Mapping[str, Tensor]:
    if isinstance(source, Mapping):
        return source
    if source is None:
        return _from_torchvision(batch_norm)
    return read_weights(source)


def _from_torchvision(batch_norm: bool) -> Mapping[str, Tensor]:
    name = "vgg16_bn" if batch_norm else "vgg16"
    try:
        import torchvision
    except ImportError as error:
        raise ModuleNotFoundError(
            f"fetching the weights of {name} needs torchvision, which is not installed: "
            "pip install torchvision, or pass the path of a state dict"
        ) from error
    return getattr(torchvision.models, name)(weights="IMAGENET1K_V1").state_dict()


def _check(given: Mapping[str, Tensor], state: dict[str, Tensor], names: dict[str, str]) -> None:
    """Raise `ValueError` listing everything that does not fit, before anything is loaded."""
    known = {*names.values(), "classifier.6.weight", "classifier.6.bias"}
    problems = [f"unexpected {name}" for name in given if name not in known]
    for name, tensor in state.items():
        if name not in names or name.endswith(_OPTIONAL_ENTRY):
            continue
        theirs = names[name]
        if theirs not in given:
            problems.append(f"missing {theirs} (for {name})")
            continue
        # conv6 comes as a matrix over the flattened 7x7 window, conv7 as a matrix.
        expected = tensor.shape
        shape = given[theirs].shape
        flat = torch.Size((expected[0], expected[1:].numel())) if len(expected) > 1 else expected
        if shape != (flat if theirs.startswith("classifier") else expected):
            wanted = flat if theirs.startswith("classifier") else expected
            problems.append(f"{theirs} has shape {tuple(shape)}, {name} needs {tuple(wanted)}")
        elif not torch.isfinite(given[theirs]).all():
            # torchvision's IMAGENET1K_FEATURES has NaN for a classifier
            problems.append(f"{theirs} is not finite (for {name})")
    if problems:
        listed = "; ".join(problems[:12]) + ("; ..." if len(problems) > 12 else "")
        raise ValueError(
            f"source does not fit this VGG16: {len(problems)} entries: {listed}. Expected the "
            "state dict of torchvision's vgg16 (batch_norm=False) or vgg16_bn (batch_norm=True), "
            "and width=1"
        )


def _make_identity(norm: torch.nn.Module) -> None:
    """In evaluation mode (x - 0) / sqrt(1 - eps + eps) * 1 + 0."""
    assert isinstance(norm, torch.nn.BatchNorm2d)
    norm.reset_parameters()
    assert norm.running_var is not None
    norm.running_var.fill_(1 - norm.eps)
