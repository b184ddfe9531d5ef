"""What a network's modules return, found out by running it: channels, strides, what is unused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..tools.modes import evaluation_mode
from .backbones import feature_maps

__all__ = ["Probe", "probe"]

SIZES = (128, 192)  # pixels; their difference tells strides up to 64


@dataclass
class Probe:
    """What :func:`probe` finds: C_i and stride of each map, and parameters no map depends on."""

    channels: tuple[int, ...]
    strides: tuple[float, ...]
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
    """Run a network in evaluation mode on black images of two sizes, and look at its layers.

    A stride is the difference of the images' sizes over that of the maps', so that it is right
    also for maps that have a cell more or less than the image has strides.

    Raises:
        ValueError: a layer is not called, or more than once; its output is changed in place
            later, or is no map that grows with the image.
    """
    with evaluation_mode(network):
        small = _outputs(network, layers, layout, normalization, SIZES[0])
        unused = _unused(network, small)
        with torch.no_grad():
            large = _outputs(network, layers, layout, normalization, SIZES[1])
    strides = []
    for name, one, other in zip(layers, small, large, strict=True):
        cells = other.shape[2] - one.shape[2]
        if cells <= 0 or other.shape[3] - one.shape[3] != cells:
            raise ValueError(
                f"layers: {name!r} returns maps of {tuple(one.shape[2:])} cells for {SIZES[0]} x "
                f"{SIZES[0]} pixels and {tuple(other.shape[2:])} for {SIZES[1]} x {SIZES[1]}; "
                "expected maps that grow with the image. Name a module before the pooling"
            )
        stride = (SIZES[1] - SIZES[0]) / cells
        strides.append(int(stride) if stride.is_integer() else stride)
    return Probe(tuple(m.shape[1] for m in small), tuple(strides), unused)


def _outputs(
    network: nn.Module,
    layers: Sequence[str],
    layout: str,
    normalization: nn.Module | None,
    size: int,
) -> list[Tensor]:
    calls = {name: _Calls() for name in layers}
    hooks = [
        network.get_submodule(name).register_forward_hook(one.keep) for name, one in calls.items()
    ]
    weight = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
    images = torch.zeros(1, 3, size, size, dtype=weight.dtype, device=weight.device)
    try:
        network(images if normalization is None else normalization(images))
    except Exception as error:
        # A classifier for one size only may fail; the maps come before it.
        if not all(one.outputs for one in calls.values()):
            raise ValueError(
                f"the network fails on images (1, 3, {size}, {size}), on which channels and "
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
    gradients = torch.autograd.grad(sums, parameters, allow_unused=True)
    return [p for p, g in zip(parameters, gradients, strict=True) if g is None]
