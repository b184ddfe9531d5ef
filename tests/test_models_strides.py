"""Strides and unused parameters of networks in general, as running them finds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pixelnet_triton.models import ImageNormalization, PixelMLP, PixelNet, TappedBackbone
from pixelnet_triton.models.wrapped import WrappedBackbone


def strided(size: Any, stride: Any, padding: Any = 0) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, size, stride=stride, padding=padding))


def strides_of(network: nn.Module, *layers: str) -> tuple[Any, ...]:
    return TappedBackbone(network, layers or ("0",)).strides


@pytest.mark.parametrize("stride", [*range(1, 27), 28, 32, 48, 56, 64])
def test_any_stride_is_found(stride: int) -> None:
    assert strides_of(strided(stride, stride)) == (stride,)
    assert strides_of(strided(2 * stride + 1, stride, stride)) == (stride,)


def test_halves_and_pairs_are_found() -> None:
    upsampled = nn.Sequential(
        nn.Conv2d(3, 4, 14, stride=14),
        nn.Upsample(scale_factor=4),
        nn.MaxPool2d(2),
    )
    assert strides_of(upsampled, "0", "1", "2") == (14, 3.5, 7)
    assert strides_of(strided((16, 8), (16, 8))) == ((16, 8),)


def test_a_stride_that_is_not_sure_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'0' returns maps of 2 cells .*Pass strides= yourself"):
        strides_of(strided(50, 50))


def test_points_lie_on_maps_of_any_stride() -> None:
    """The map has the x of each cell's middle, which a point between them gets back."""
    ramp = torch.arange(224.0).expand(1, 3, 224, 224)
    network = nn.Sequential(nn.AvgPool2d(14), nn.Conv2d(3, 1, 1))
    with torch.no_grad():
        network[1].weight.fill_(1 / 3)
        network[1].bias.zero_()
    backbone = TappedBackbone(network, ("1",))
    model = PixelNet(backbone, PixelMLP((1,), (), out_features=1))
    with torch.no_grad():
        model.head.first.weight.fill_(1)
        model.head.first.bias.zero_()
        points = torch.tensor([[[20.0, 100.0], [200.0, 100.0]]])
        torch.testing.assert_close(model(ramp, points).flatten(), torch.tensor([20.0, 200.0]))


def test_pairs_may_be_given() -> None:
    backbone = TappedBackbone(strided((16, 8), (16, 8)), ("0",), strides=((16, 8),))
    assert backbone(torch.rand(1, 3, 32, 8))[0].shape == (1, 4, 2, 1)
    with pytest.raises(ValueError, match=r"images is 8 x 32 pixels; a map has a stride of \(16, 8"):
        backbone(torch.rand(1, 3, 8, 32))
    with pytest.raises(ValueError, match=r"shift=1 with strides=\(\(16, 8\),\); expected whole"):
        TappedBackbone(strided((16, 8), (16, 8)), ("0",), shift=1)


def test_a_shift_moves_by_every_stride() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.Conv2d(4, 4, 1))
    wide = nn.Sequential(nn.Identity(), nn.Conv2d(3, 4, 6, stride=6))

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = network, wide

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.a(x), self.b(x)

    backbone = TappedBackbone(Both(), ("a", "b"), shift=-1)
    x = torch.rand(1, 3, 48, 48)
    for one, part in zip(backbone(x), (network, wide), strict=True):
        plain = part(x[:, :, 1:, 1:])
        rows = plain.shape[2]
        torch.testing.assert_close(one[:, :, :rows, :rows], plain)


class Checkpointed(nn.Module):
    """Its second layer lies in a checkpoint."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(n, 4, 2, stride=2) for n in (3, 4, 4))
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.a(x))
        return self.c(checkpoint(self.b, x, use_reentrant=self.reentrant))


@pytest.mark.parametrize("layers", [("a", "b"), ("a", "b", "c")], ids="".join)
@pytest.mark.parametrize("reentrant", [False, True])
def test_taps_in_a_checkpoint_keep_their_gradients(
    reentrant: bool, layers: tuple[str, ...]
) -> None:
    network = Checkpointed(reentrant)
    backbone = TappedBackbone(
        network, layers, channels=(4,) * len(layers), strides=(2, 4, 8)[: len(layers)]
    )
    sum(m.square().sum() for m in backbone(torch.rand(1, 3, 16, 16))).backward()
    assert network.a.weight.grad is not None
    assert network.b.weight.grad is not None
    if reentrant:
        with pytest.raises(ValueError, match=r"cannot be found out: .*Pass channels= and strides="):
            TappedBackbone(network, layers)


def test_a_network_that_catches_exceptions_is_tapped() -> None:
    class Careful(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            try:
                return super().forward(x)
            except Exception as error:
                raise RuntimeError("block failed") from error

    assert strides_of(Careful(nn.Conv2d(3, 4, 2, stride=2), nn.Tanh())) == (2,)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad])
def test_unused_parameters_are_found_whatever_the_mode(mode: Callable[[], Any]) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 2, stride=2), nn.Conv2d(4, 4, 1))
    with mode():
        TappedBackbone(network, ("0",))
    assert [p.requires_grad for p in network.parameters()] == [True, True, False, False]


def test_the_normalisation_may_lie_on_another_device() -> None:
    network = strided(2, 2).to("meta")
    backbone = TappedBackbone(network, ("0",), normalization=ImageNormalization.torchvision())
    assert backbone.strides == (2,)


def test_a_patch_size_is_compared_with_wrapped_maps_too() -> None:
    class Patches(nn.Module):
        channels = (4,)

        def __init__(self) -> None:
            super().__init__()
            self.config = type("Config", (), {"patch_size": 16})()
            self.conv = nn.Conv2d(3, 4, 8, stride=8)

        def forward(self, x: Tensor) -> list[Tensor]:
            return [self.conv(x)]

    images, points = torch.rand(1, 3, 64, 64), torch.rand(1, 5, 2)
    for backbone in (Patches(), WrappedBackbone(Patches())):
        model = PixelNet(backbone, PixelMLP((4,), (), out_features=2))
        with pytest.raises(ValueError, match="which is no stride of 16, its patch"):
            model(images, points)
    tapped = TappedBackbone(Patches(), ("conv",), strides=(8,))
    assert PixelNet(tapped, PixelMLP((4,), (), out_features=2))(images, points).shape == (1, 5, 2)
