"""`FusedLinear`: a linear layer or 1x1 convolution that exists already, as the fused first layer.

    y_p = act(W h_p + b),    W and b those of nn.Linear, nn.Conv1d or nn.Conv2d with kernel size 1

The parameters stay where they are, in the wrapped module: optimisers, checkpoints, parametrisations
(spectral norm, weight norm) and weight sharing go on as before.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ..call import ImageSize, Options
from ..call.check_options import check_names
from ..functional import sparse_hypercolumn

__all__ = ["FusedLinear", "linear_parameters", "warn_of_hooks"]

_OPTIONS = Options._fields[2:]  # after image_size and activation


class FusedLinear(nn.Module):
    """The first layer on hypercolumns at sparse points, with the parameters of `linear`.

    Args:
        linear: ``nn.Linear``, or ``nn.Conv1d`` / ``nn.Conv2d`` with kernel size 1, stride 1, no
            padding and one group; its input channels are those of all maps, in their order.
        activation: None, ``"relu"`` or ``"gelu"``, applied in the same call.
        options: strides, interpolation, align_corners, padding_mode, coordinates or plan of
            :func:`pixelnet_triton.sparse_hypercolumn`.

    Forward hooks of `linear` are not called, since its input is never made: a warning says so.
    Those of the `FusedLinear` itself are.

    Raises:
        TypeError, ValueError: `linear` is another module, or no pointwise linear map; an option
            or the activation is unknown.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from pixelnet_triton.integrations import FusedLinear
        >>> conv = nn.Conv1d(64 + 256, 128, kernel_size=1)
        >>> layer = FusedLinear(conv, activation="relu")
        >>> maps = [torch.randn(2, 64, 56, 56), torch.randn(2, 256, 14, 14)]
        >>> layer(maps, torch.randint(0, 224, (2, 100, 2)), (224, 224)).shape
        torch.Size([2, 100, 128])
        >>> layer.linear.weight is conv.weight
        True
    """

    def __init__(self, linear: nn.Module, activation: str | None = None, **options: Any) -> None:
        super().__init__()
        # What cannot be served is refused here, not in the first step.
        _check_linear(linear)
        for name in options:
            if name not in _OPTIONS:
                raise TypeError(f"FusedLinear has no option {name!r}; use one of {_OPTIONS}")
        stand_in = torch.empty(0)  # reading a parametrised weight may change it
        check_names(Options((1, 1), activation, **options), stand_in)
        self.linear = linear
        self.activation = activation
        self.options = options

    def forward(
        self,
        features: Sequence[Tensor],
        points: Tensor,
        image_size: ImageSize,
        batch_index: Tensor | None = None,
    ) -> Tensor:
        """``(B, N, D)`` for points ``(B, N, 2)``; ``(P, D)`` for ``(P, 2)`` and `batch_index`."""
        weight, bias = linear_parameters(self.linear)
        warn_of_hooks(self.linear, "linear", self)
        return sparse_hypercolumn(
            features,
            points,
            image_size,
            weight=weight,
            bias=bias,
            activation=self.activation,
            batch_index=batch_index,
            **self.options,
        )

    def extra_repr(self) -> str:
        settings = {"activation": self.activation, **self.options}
        return ", ".join(f"{name}={value}" for name, value in settings.items())


def linear_parameters(module: nn.Module) -> tuple[Tensor, Tensor | None]:
    """``(weight (D, C), bias (D,) or None)`` of a pointwise linear module, as views.

    Each is read once: a parametrisation is evaluated by that, and spectral norm's iterates.

    Raises:
        TypeError: the module is none of Linear, Conv1d and Conv2d, or has a forward of its own.
        ValueError: its parameters have no shape yet, a hook makes one of them, or it looks at more
            than one point.
    """
    _check_linear(module)
    return cast(Tensor, module.weight).flatten(1), cast("Tensor | None", module.bias)


def warn_of_hooks(linear: nn.Module, name: str, owner: nn.Module) -> None:
    """Warn of hooks that `owner.forward`, which calls this, passes over."""
    hooks = len(linear._forward_hooks) + len(linear._forward_pre_hooks)
    if hooks > 0 and not torch.compiler.is_compiling():
        warnings.warn(
            f"{name} has {hooks} forward hooks, which are not called: only its weight and bias are "
            f"used. Register them on the {type(owner).__name__}",
            stacklevel=5,  # the caller of the module: two functions of torch lie in between
        )


def _check_linear(module: nn.Module) -> None:
    """Raise for what :func:`linear_parameters` refuses; evaluates no parametrisation."""
    if isinstance(module, (nn.Conv1d, nn.Conv2d)):
        _check_pointwise(module)
    elif not isinstance(module, nn.Linear):
        # The class with its module: quantised and other layers are called Linear, too.
        name = f"{type(module).__module__}.{type(module).__qualname__}"
        raise TypeError(
            f"linear is a {name}; expected torch.nn.Linear, or torch.nn.Conv1d or torch.nn.Conv2d "
            "with kernel_size=1. Pass the layer itself, without norm or activation around it"
        )
    if isinstance(module._parameters.get("weight"), nn.parameter.UninitializedParameter):
        raise ValueError(
            f"{type(module).__name__} has no shape yet; give its input channels, or call it once"
        )
    base = next(c for c in (nn.Conv1d, nn.Conv2d, nn.Linear) if isinstance(module, c))
    if type(module).forward is not base.forward or "forward" in module.__dict__:
        raise TypeError(
            f"linear is a {type(module).__name__}, whose forward is its own; only its weight and "
            "bias would be used. Merge it into a plain layer first"
        )
    if not module._forward_pre_hooks:
        return
    for name in ("weight", "bias"):
        if name not in module._parameters and not is_parametrized(module, name):
            raise ValueError(
                f"linear is a {type(module).__name__} whose {name} is made by a hook before each "
                "forward, which is not called. Use weight_norm and spectral_norm of "
                "torch.nn.utils.parametrizations, or make pruning permanent "
                f"(prune.remove(linear, {name!r}))"
            )


def _check_pointwise(module: nn.Conv1d | nn.Conv2d) -> None:
    for name, number in (("kernel_size", 1), ("stride", 1), ("padding", 0)):
        came = getattr(module, name)
        if not isinstance(came, str) and any(n != number for n in came):
            raise ValueError(
                f"linear is a {type(module).__name__} with {name}={came}; the first layer on "
                f"single points needs {name}={number}"
            )
    if module.groups != 1:
        raise ValueError(
            f"linear is a {type(module).__name__} with groups={module.groups}; expected groups=1"
        )
