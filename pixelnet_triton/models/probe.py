"""What a network's modules return, found out by running it: channels, strides, what is unused."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..call import Stride
from ..tools.modes import evaluation_mode
from .backbones import feature_maps

__all__ = ["Probe", "probe"]

SIDE = 128  # pixels
# By how much larger images differ: a multiple of 64, which some networks ask for, and of most
# strides there are, of 3.5, 7, 14 and 28 too.
MORE = 1344


@dataclass
class Probe:
    """What :func:`probe` finds: C_i and stride of each map, and parameters no map depends on."""

    channels: tuple[int, ...]
    strides: tuple[Stride, ...]
    unused: list[nn.Parameter]


@dataclass
class _Calls:
    """The outputs of one module in a forward pass, and their version counters."""

    outputs: list[Any] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)

    def keep(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self.outputs.append(output)
        self.versions.append(output._version if isinstance(output, Tensor) else 0)


def probe(
    network: nn.Module, layers: Sequence[str], layout: str, normalization: nn.Module | None
) -> Probe:
    """Run a network in evaluation mode on black images, a small, a tall and a wide one.

    A stride is the difference of the images' sizes over that of the maps', so that it is right
    also for maps that have a cell more or less than the image has strides.

    Raises:
        ValueError: a layer is not called, or more than once; its output is changed in place
            later, or is no map that grows with the image.
    """
    with evaluation_mode(network):
        with torch.enable_grad():
            small = _outputs(network, layers, layout, normalization, (SIDE, SIDE))
            unused = _unused(network, small)
        with torch.no_grad():
            tall = _outputs(network, layers, layout, normalization, (SIDE + MORE, SIDE))
            wide = _outputs(network, layers, layout, normalization, (SIDE, SIDE + MORE))
    strides: list[Stride] = []
    for name, one, down, across in zip(layers, small, tall, wide, strict=True):
        vertical = _stride(name, one.shape[2], down.shape[2])
        horizontal = _stride(name, one.shape[3], across.shape[3])
        strides.append(vertical if vertical == horizontal else (vertical, horizontal))
    return Probe(tuple(m.shape[1] for m in small), tuple(strides), unused)


def _stride(name: str, few: int, many: int) -> float:
    """Pixels per cell of maps that have so many cells along the side of a small and a large image.

    Of a stride that divides the difference it is known exactly. Another is taken for the only whole
    number between the difference over a cell more and that over a cell less.
    """
    cells = many - few
    if cells <= 0:
        raise ValueError(
            f"layers: {name!r} returns maps of {few} cells along {SIDE} pixels and of {many} along "
            f"{SIDE + MORE}; expected maps that grow with the image. Name a module before the "
            "pooling"
        )
    stride = MORE / cells
    if stride <= 64 and (2 * stride).is_integer():
        return int(stride) if stride.is_integer() else stride
    least, most = MORE / (cells + 1), MORE / max(cells - 1, 1)
    whole = range(math.floor(least) + 1, math.ceil(most))
    if len(whole) != 1:
        raise ValueError(
            f"layers: {name!r} returns maps of {few} cells along {SIDE} pixels and of {many} along "
            f"{SIDE + MORE}, between which no stride is sure: it is between {least:.4g} and "
            f"{most:.4g}. Pass strides= yourself"
        )
    return whole[0]


def _outputs(
    network: nn.Module,
    layers: Sequence[str],
    layout: str,
    normalization: nn.Module | None,
    size: tuple[int, int],
) -> list[Tensor]:
    calls = {name: _Calls() for name in layers}
    hooks = [
        network.get_submodule(name).register_forward_hook(one.keep) for name, one in calls.items()
    ]
    weight = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
    images = torch.zeros(1, 3, *size, dtype=weight.dtype, device=weight.device)
    if normalization is not None:
        images = copy.deepcopy(normalization).to(weight.device)(images)
    try:
        network(images)
    except Exception as error:
        # A classifier for one size only may fail; the maps come before it.
        if not all(one.outputs for one in calls.values()):
            raise ValueError(
                f"the network fails on images {tuple(images.shape)}, on which channels and "
                f"strides were to be found: {type(error).__name__}: {error}. Pass channels= and "
                "strides= yourself"
            ) from error
    finally:
        for hook in hooks:
            hook.remove()
    for name, one in calls.items():
        _check(name, one)
    return feature_maps([one.outputs[0] for one in calls.values()], layout)


def _check(name: str, calls: _Calls) -> None:
    count = len(calls.outputs)
    if count != 1:
        raise ValueError(
            f"layers: the network calls {name!r} {count} times in a forward pass; expected once. "
            "Name a module that returns one map"
        )
    output = calls.outputs[0]
    if isinstance(output, Tensor) and output._version != calls.versions[0]:
        raise ValueError(
            f"layers: the output of {name!r} is changed in place afterwards, as by "
            "nn.ReLU(inplace=True). Name the module that changes it, or make that not in place"
        )


def _unused(network: nn.Module, maps: Sequence[Tensor]) -> list[nn.Parameter]:
    """Parameters that require gradients, and get none from any of the maps."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    sums = [m.sum() for m in maps if m.requires_grad]
    if not parameters or not sums:
        return []
    try:
        gradients = torch.autograd.grad(sums, parameters, allow_unused=True)
    except RuntimeError as error:  # as of a reentrant checkpoint
        raise ValueError(
            "layers: which parameters their maps do not depend on cannot be found out: "
            f"{error}. Pass channels= and strides= yourself, and freeze those parameters"
        ) from error
    return [p for p, g in zip(parameters, gradients, strict=True) if g is None]
