"""`PixelMLP`: the multi-layer perceptron on hypercolumns at sparse points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..call import ImageSize, Plan, Stride
from ..functional import sparse_hypercolumn
from ..modules import HypercolumnLinear, listed_channels
from ..tools.settings import whole_number

__all__ = ["GaussianInit", "PixelMLP"]


@dataclass(frozen=True)
class GaussianInit:
    """Normal weights of deviation `std`, zero biases; the last layer may differ.

    Example:
        >>> from pixelnet_triton.models import GaussianInit, PixelMLP
        >>> normals = GaussianInit(std=1e-3, last_std=5e-4, last_bias=0.1)
        >>> PixelMLP([64], (32,), out_features=3, init=normals).rest[-1].bias.tolist()
        [0.10000000149011612, 0.10000000149011612, 0.10000000149011612]
    """

    std: float = 1e-3
    last_std: float | None = None
    last_bias: float = 0.0


_INITS = {
    "gaussian": GaussianInit(),
    "normals": GaussianInit(last_std=5e-4, last_bias=0.1),
    "kaiming": None,
}


class PixelMLP(nn.Module):
    r"""The predictor g of PixelNet (arXiv 1609.06694, section 3) at sparse points.

    .. math:: f_p = W_L\, a_{L-1} + b_L, \quad a_l = \mathrm{dropout}(\mathrm{relu}(W_l a_{l-1}
              + b_l)), \quad a_0 = h_p = [c_1(p), \dots, c_M(p)].

    The first layer is a :class:`~pixelnet_triton.HypercolumnLinear` with its ReLU: hypercolumns
    are never stored. With `batch_norm` :math:`a_0` is normalised, channel by channel, over the
    sampled points. In evaluation mode that is a rescaling of :math:`W_1`, and the layer remains
    fused; in training mode the statistics are those of the hypercolumns themselves, which are
    then gathered, (P, sum C_i), and kept for the backward pass.

    Args:
        in_channels: C_i of each map, in order.
        hidden_features: widths of the hidden layers. The paper's fc-3 is ``(4096, 4096)``, fc-2
            ``(4096,)``, and the linear predictor fc-1 ``()``.
        out_features: K, classes or values a pixel.
        dropout: probability, after each hidden layer.
        init: ``"gaussian"``, the paper's (normal, deviation 1e-3, biases 0); ``"normals"``, the
            authors' for surface normals (last layer: deviation 5e-4, bias 0.1); ``"kaiming"``
            (He et al., deviation sqrt(2 / fan_in), sqrt(1 / fan_in) for the last layer, which
            has no ReLU), the one for narrow layers; or a :class:`GaussianInit`.
        batch_norm: whether to normalise the hypercolumns. Linear predictors need it: the
            features of different layers differ in scale by orders of magnitude.
        strides: image pixels per cell of each map; None takes the ratio of the sizes, or the
            backbone's in a :class:`PixelNet`.
        plan: as in :func:`pixelnet_triton.sparse_hypercolumn`.

    Raises:
        TypeError, ValueError: widths that are no integers of at least 1, a dropout out of range, an
            unknown init, another number of strides than of maps.

    Example:
        >>> import torch
        >>> from pixelnet_triton.models import PixelMLP
        >>> head = PixelMLP([64, 256], (128, 128), out_features=21)
        >>> maps = [torch.randn(2, 64, 56, 56), torch.randn(2, 256, 14, 14)]
        >>> head(maps, torch.randint(0, 224, (2, 100, 2)), (224, 224)).shape
        torch.Size([2, 100, 21])
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        hidden_features: Sequence[int] = (4096, 4096),
        *,
        out_features: int,
        dropout: float = 0.5,
        init: str | GaussianInit = "gaussian",
        batch_norm: bool = False,
        strides: Sequence[Stride] | None = None,
        plan: str | Plan = "auto",
    ) -> None:
        super().__init__()
        self.in_channels = listed_channels(in_channels)
        _check_options(self.in_channels, hidden_features, dropout, init, strides)
        self.hidden_features = tuple(
            [whole_number(f"hidden_features[{i}]", n) for i, n in enumerate(hidden_features)]
        )
        self.out_features = whole_number("out_features", out_features)
        widths = (*self.hidden_features, self.out_features)
        self.init = init
        self.norm = nn.BatchNorm1d(sum(self.in_channels)) if batch_norm else None
        self.first = HypercolumnLinear(
            self.in_channels,
            widths[0],
            activation="relu" if hidden_features else None,
            strides=strides,
            plan=plan,
        )
        later_layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            if later_layers:
                later_layers.append(nn.ReLU(inplace=True))
            later_layers += [nn.Dropout(dropout), nn.Linear(fan_in, fan_out)]
        self.rest = nn.Sequential(*later_layers)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as `init` says."""
        layers: list[HypercolumnLinear | nn.Linear] = [self.first]
        layers += [m for m in self.rest if isinstance(m, nn.Linear)]
        rule = _INITS[self.init] if isinstance(self.init, str) else self.init
        for layer in layers:
            last = layer is layers[-1]
            if rule is None:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="linear" if last else "relu")
                nn.init.zeros_(layer.bias)
                continue
            std = rule.last_std if last and rule.last_std is not None else rule.std
            nn.init.normal_(layer.weight, std=std)
            nn.init.constant_(layer.bias, rule.last_bias if last else 0.0)
        if self.norm is not None:
            self.norm.reset_parameters()

    def forward(
        self,
        features: Sequence[Tensor],
        points: Tensor,
        image_size: ImageSize,
        batch_index: Tensor | None = None,
    ) -> Tensor:
        """Raw scores ``(B, N, K)`` at points ``(B, N, 2)``; ``(P, K)`` with `batch_index`.

        Arguments as for :func:`pixelnet_triton.sparse_hypercolumn`.
        """
        if self.norm is None:
            hidden = self.first(features, points, image_size, batch_index)
        elif self.norm.training:
            hidden = self._normalized(features, points, image_size, batch_index)
        else:
            weight, bias = self.first_layer()
            hidden = sparse_hypercolumn(
                features,
                points,
                image_size,
                weight=weight,
                bias=bias,
                activation=self.first.activation,
                batch_index=batch_index,
                strides=self.first.strides,
                plan=self.first.plan,
            )
        return self.rest(hidden)

    def first_layer(self) -> tuple[Tensor, Tensor]:
        """Weight (D, sum C_i) and bias (D,) of the first layer in evaluation mode.

        With batch normalisation, scale and shift of each channel are folded into them:
        W (a * h + c) + b = (W diag(a)) h + (W c + b).
        """
        weight, bias = self.first.weight, self.first.bias
        if self.norm is None:
            return weight, bias
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        shift = norm.bias - norm.running_mean * scale
        with torch.autocast(weight.device.type, enabled=False):  # once a call: in full precision
            return weight * scale, torch.addmv(bias, weight, shift)

    def _normalized(
        self,
        features: Sequence[Tensor],
        points: Tensor,
        image_size: ImageSize,
        batch_index: Tensor | None,
    ) -> Tensor:
        """The first layer on hypercolumns normalised by their own mean and variance."""
        assert self.norm is not None
        h = sparse_hypercolumn(
            features, points, image_size, batch_index=batch_index, strides=self.first.strides
        )
        z = F.linear(self.norm(h.flatten(0, -2)), self.first.weight, self.first.bias)
        if self.first.activation == "relu":
            z = F.relu(z, inplace=True)
        return z.unflatten(0, h.shape[:-1])

    def extra_repr(self) -> str:
        return f"hidden_features={self.hidden_features}, out_features={self.out_features}"


def _check_options(
    in_channels: Sequence[int],
    hidden_features: Sequence[int],
    dropout: float,
    init: str | GaussianInit,
    strides: Sequence[Stride] | None,
) -> None:
    if not isinstance(hidden_features, Sequence):
        raise TypeError(
            f"hidden_features={hidden_features!r}; expected a list or tuple of integers"
        )
    if strides is not None and len(strides) != len(in_channels):
        raise ValueError(
            f"strides={strides!r}; expected one for each of the {len(in_channels)} maps"
        )
    if not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout!r}; expected a probability in [0, 1)")
    if not isinstance(init, GaussianInit) and (not isinstance(init, str) or init not in _INITS):
        raise ValueError(
            f"init={init!r} is unknown; use one of {tuple(_INITS)} or a GaussianInit(...)"
        )
