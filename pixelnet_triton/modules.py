"""`HypercolumnLinear`: the module over :func:`pixelnet_triton.sparse_hypercolumn`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from .call import ImageSize, Plan, Stride
from .call.check_options import check_names, check_plan, check_strides
from .call.checks import check_maps
from .call.options import Options
from .functional import sparse_hypercolumn
from .tools.settings import whole_number

__all__ = ["HypercolumnLinear", "check_channels", "listed_channels"]


class HypercolumnLinear(nn.Module):
    """The MLP's first layer on hypercolumns at sparse points: ``act(W h_p + b)``.

    Its state dict has ``weight (D, sum C_i)`` and ``bias (D,)`` as
    ``nn.Linear(sum(in_channels), out_features)`` has, so trained linear layers load; they are
    initialised the same way. An ensemble of E first layers has ``weight (E, D, sum C_i)`` and
    ``bias (E, D)``, as :func:`torch.func.stack_module_state` makes them of E such layers.

    Args:
        in_channels: channels C_i of each layer, in order.
        out_features: D; or (E, D) for an ensemble, as one product of E D outputs.
        bias: whether to add a learned bias.
        activation: None, ``"relu"`` or ``"gelu"``.
        strides, interpolation, align_corners, padding_mode, coordinates, plan: as in
            :func:`pixelnet_triton.sparse_hypercolumn`.
        device, dtype: of the parameters.

    Raises:
        TypeError, ValueError: in_channels or out_features are no such integers, or an option is
            none; when called, the maps have other channels, or come in another order.

    Example:
        >>> import torch
        >>> from pixelnet_triton import HypercolumnLinear
        >>> layer = HypercolumnLinear([64, 256], 128, activation="relu")
        >>> maps = [torch.randn(2, 64, 56, 56), torch.randn(2, 256, 14, 14)]
        >>> layer(maps, torch.randint(0, 224, (2, 100, 2)), (224, 224)).shape
        torch.Size([2, 100, 128])
        >>> ten = HypercolumnLinear([64, 256], (10, 128), activation="relu")
        >>> ten(maps, torch.randint(0, 224, (2, 100, 2)), (224, 224)).shape
        torch.Size([2, 100, 10, 128])
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_features: int | tuple[int, int],
        bias: bool = True,
        activation: str | None = None,
        *,
        strides: Sequence[Stride] | None = None,
        interpolation: str = "bilinear",
        align_corners: bool = False,
        padding_mode: str = "border",
        coordinates: str = "pixel",
        plan: str | Plan = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = listed_channels(in_channels)
        widths = out_features if isinstance(out_features, Sequence) else (out_features,)
        if widths is out_features and len(widths) != 2:
            raise ValueError(f"out_features={out_features!r}; expected D, or (E, D)")
        rows = tuple([whole_number("out_features", n) for n in widths])
        self.out_features = rows if len(rows) == 2 else rows[0]
        self.activation = activation
        self.strides = strides
        self.interpolation = interpolation
        self.align_corners = align_corners
        self.padding_mode = padding_mode
        self.coordinates = coordinates
        self.plan = plan
        shape = (*rows, sum(self.in_channels))
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self._check_options()
        if bias:
            self.bias = nn.Parameter(torch.empty(rows, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as :class:`torch.nn.Linear` does: uniform within 1 / sqrt(sum C_i)."""
        bound = 1 / math.sqrt(self.weight.shape[-1])
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def _check_options(self) -> None:
        """Now rather than in the first call, which may come after hours of loading."""
        options = Options(
            image_size=None,
            activation=self.activation,
            interpolation=self.interpolation,
            padding_mode=self.padding_mode,
            coordinates=self.coordinates,
        )
        check_names(options, self.weight)
        if self.strides is not None:
            check_strides(self.strides, len(self.in_channels), self.align_corners)
        check_plan(self.plan, len(self.in_channels))

    def forward(
        self,
        features: Sequence[Tensor],
        points: Tensor,
        image_size: ImageSize,
        batch_index: Tensor | None = None,
    ) -> Tensor:
        """``(B, N, D)`` for points ``(B, N, 2)``; ``(P, D)`` for ``(P, 2)`` and `batch_index`.

        An ensemble's ``(B, N, E, D)`` or ``(P, E, D)``.
        """
        check_channels(features, self.in_channels)
        return sparse_hypercolumn(
            features,
            points,
            image_size,
            weight=self.weight,
            bias=self.bias,
            activation=self.activation,
            batch_index=batch_index,
            strides=self.strides,
            interpolation=self.interpolation,
            align_corners=self.align_corners,
            padding_mode=self.padding_mode,
            coordinates=self.coordinates,
            plan=self.plan,
        )

    def extra_repr(self) -> str:
        return (
            f"in_channels={list(self.in_channels)}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, activation={self.activation}"
        )


def listed_channels(in_channels: Iterable[int]) -> tuple[int, ...]:
    """The channels of each map; raises for what is no list of integers of at least 1."""
    if not isinstance(in_channels, Iterable):
        raise TypeError(
            f"in_channels={in_channels!r}; expected a list, the channels of each map. For a single "
            f"map pass [{in_channels!r}]"
        )
    channels = tuple([whole_number(f"in_channels[{i}]", n) for i, n in enumerate(in_channels)])
    if not channels:
        raise ValueError("in_channels is empty; expected the channels of at least one map")
    return channels


def check_channels(features: Sequence[Tensor], in_channels: tuple[int, ...]) -> None:
    """Raise for maps in another order, whose sum of channels is that of the weight all the same."""
    check_maps(features)
    if any(f.dim() != 4 for f in features):
        return  # which is refused with what maps should be
    came = [f.shape[1] for f in features]
    if came != list(in_channels):
        raise ValueError(
            f"features have {came} channels but in_channels={list(in_channels)}; pass the maps in "
            "the order of in_channels"
        )
