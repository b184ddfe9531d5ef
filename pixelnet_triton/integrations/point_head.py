"""`PointHead`: mmsegmentation's PointRend head, with its first layer fused.

At point p, with the fine-grained features f(p) of several maps and the coarse logits c(p),

    x_1 = relu(W_1 [f, c] + b_1)        x_k = relu(W_k [x_(k-1), c] + b_k)        y = W [x_K, c] + b

(PointRend, arXiv 1912.08193). The first product is the library's fused layer over all maps and
the coarse logits; the sampled features are not written to memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..functional import sparse_hypercolumn
from ..modules import check_channels, listed_channels
from ..tools.settings import whole_number
from .linear import linear_parameters, warn_of_hooks
from .point_sample import point_features

__all__ = ["PointHead"]


class PointHead(nn.Module):
    """Logits at points from fine-grained maps and coarse logits.

    The parameters have the names and shapes of mmsegmentation's ``PointHead`` without norm layers
    (``fcs.0.conv.weight``, ..., ``fc_seg.bias``), so its checkpoints load.

    Args:
        in_channels: channels of the fine-grained maps, in order.
        channels: width of the hidden layers. num_classes: of the coarse logits and the result.
        num_fcs: number of hidden layers, at least 1.
        coarse_pred_each_layer: whether the coarse logits enter every layer, or the first alone.
        align_corners: as for :func:`.point_sample`.

    Forward hooks of the layers inside are not called: a warning says so. Those of the head are.

    Raises:
        TypeError, ValueError: channels or counts that are no integers of at least 1; when called,
            maps with other channels, or in another order.

    Example:
        >>> import torch
        >>> from pixelnet_triton.integrations import PointHead
        >>> head = PointHead([64, 256], channels=128, num_classes=19)
        >>> maps = [torch.randn(2, 64, 56, 56), torch.randn(2, 256, 28, 28)]
        >>> head(maps, torch.randn(2, 19, 28, 28), torch.rand(2, 100, 2)).shape
        torch.Size([2, 19, 100])
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        num_classes: int,
        num_fcs: int = 3,
        coarse_pred_each_layer: bool = True,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = listed_channels(in_channels)
        channels = whole_number("channels", channels)
        num_classes = whole_number("num_classes", num_classes)
        num_fcs = whole_number("num_fcs", num_fcs)
        self.coarse_pred_each_layer = coarse_pred_each_layer
        self.align_corners = align_corners
        later = channels + (num_classes if coarse_pred_each_layer else 0)
        widths = [sum(self.in_channels) + num_classes, *[later] * (num_fcs - 1)]
        self.fcs = nn.ModuleList(
            nn.ModuleDict({"conv": nn.Conv1d(width, channels, kernel_size=1)}) for width in widths
        )
        self.fc_seg = nn.Conv1d(later, num_classes, kernel_size=1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As mmsegmentation: He's normal (fan out) for the layers, N(0, 0.01) for the last."""
        for fc in self.fcs:
            weight, bias = linear_parameters(fc.get_submodule("conv"))
            nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(cast(Tensor, bias))
        nn.init.normal_(self.fc_seg.weight, std=0.01)
        nn.init.zeros_(cast(Tensor, self.fc_seg.bias))

    def forward(
        self, features: Sequence[Tensor], coarse_logits: Tensor, point_coords: Tensor
    ) -> Tensor:
        """Logits ``(N, K, P)``.

        Args:
            features: maps ``(N, C_i, H_i, W_i)``. coarse_logits: ``(N, K, H', W')``.
            point_coords: ``(N, P, 2)`` of (x, y) in [0, 1].
        """
        check_channels(features, self.in_channels)
        first, *later = [fc.get_submodule("conv") for fc in self.fcs]
        for i, conv in enumerate((first, *later)):
            warn_of_hooks(conv, f"fcs.{i}.conv", self)
        warn_of_hooks(self.fc_seg, "fc_seg", self)
        weight, bias = linear_parameters(first)
        x = sparse_hypercolumn(
            [*features, coarse_logits],
            point_coords,
            (1, 1),  # of no effect for coordinates in [0, 1]
            weight=weight,
            bias=bias,
            activation="relu",
            align_corners=self.align_corners,
            padding_mode="zeros",
            coordinates="unit",
        )
        coarse = None
        if self.coarse_pred_each_layer:
            coarse = point_features([coarse_logits], point_coords, self.align_corners)
            coarse = coarse.transpose(1, 2)  # (N, P, K)
        for conv in later:
            weight, bias = linear_parameters(conv)
            x = F.relu(F.linear(_beside(x, coarse), weight, bias))
        logits = F.linear(_beside(x, coarse), *linear_parameters(self.fc_seg))
        return logits.transpose(1, 2)


def _beside(x: Tensor, coarse: Tensor | None) -> Tensor:
    return x if coarse is None else torch.cat([x, coarse.to(x.dtype)], dim=-1)
