"""Backbones of other libraries, as they come. Those not installed are skipped."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pixelnet_triton import HypercolumnLinear, sparse_hypercolumn
from pixelnet_triton.integrations import feature_maps, maps_of_tokens
from pixelnet_triton.models import PixelMLP, PixelNet


def library(name: str) -> Any:
    """The module, or a skip: torchvision may be missing, or built for another torch."""
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError, AttributeError) as error:
        pytest.skip(f"{name} cannot be imported: {error}")


def assert_usable(maps: list[Tensor], channels: list[int], image_size: tuple[int, int]) -> None:
    """The maps are those of the backbone, and train a layer and the backbone through it."""
    assert [f.shape[1] for f in maps] == channels
    layer = HypercolumnLinear(channels, 8)
    layer(maps, torch.randint(0, 32, (maps[0].shape[0], 5, 2)), image_size).sum().backward()
    assert layer.weight.grad.abs().sum() > 0


class TestKinds:
    nchw = (torch.randn(2, 3, 6, 8), torch.randn(2, 5, 3, 4))

    def test_lists_and_tuples(self) -> None:
        for output in (self.nchw, list(self.nchw)):
            maps = feature_maps(output)
            assert all(a is b for a, b in zip(maps, self.nchw, strict=True))

    def test_a_dictionary_in_its_order(self) -> None:
        maps = feature_maps({"coarse": self.nchw[1], "fine": self.nchw[0]})
        assert [f.shape[1] for f in maps] == [5, 3]

    def test_nhwc_is_seen_as_channels_last_without_a_copy(self) -> None:
        output = torch.randn(2, 6, 8, 3)
        (only,) = feature_maps([output], layout="NHWC")
        assert only.shape == (2, 3, 6, 8)
        assert only.data_ptr() == output.data_ptr()
        assert only.is_contiguous(memory_format=torch.channels_last)

    def test_an_unknown_layout_is_refused(self) -> None:
        with pytest.raises(ValueError, match="layout='NLC' is unknown; use one of"):
            feature_maps(self.nchw, layout="NLC")


class TestTokens:
    def test_each_patch_is_a_cell_of_a_view(self) -> None:
        tokens = torch.randn(2, 3 + 4 * 5, 8, requires_grad=True)
        (only,) = maps_of_tokens(tokens, (4, 5), prefix=3)
        assert only.shape == (2, 8, 4, 5)
        assert torch.equal(only[1, :, 2, 3], tokens[1, 3 + 2 * 5 + 3])
        assert only.data_ptr() == tokens[:, 3:].data_ptr()
        assert only.stride()[1:] == (1, 5 * 8, 8)
        points = torch.tensor([[[3, 2]], [[0, 0]]])
        sparse_hypercolumn([only], points, (4, 5)).sum().backward()
        of_patches = torch.zeros(2, 23)
        of_patches[0, 3 + 2 * 5 + 3] = of_patches[1, 3] = 1
        assert torch.equal(tokens.grad, of_patches[..., None].expand(2, 23, 8))

    def test_several_without_a_prefix_are_channels_last(self) -> None:
        maps = maps_of_tokens((torch.randn(2, 20, 8), torch.randn(2, 20, 6)), torch.Size((4, 5)))
        assert [f.shape[1] for f in maps] == [8, 6]
        assert all(f.is_contiguous(memory_format=torch.channels_last) for f in maps)

    @pytest.mark.parametrize(
        ("tokens", "grid", "error", "message"),
        [
            (torch.randn(1, 21, 8), (4, 5), ValueError, r"has 21 tokens.*pass prefix=1"),
            (torch.randn(1, 19, 8), (4, 5), ValueError, r"has 19 tokens.*divided by the patch"),
            (torch.randn(1, 8, 4, 5), (4, 5), ValueError, r"\(1, 8, 4, 5\); expected \(B, L, C\)"),
            ([(torch.randn(1, 20, 8), 0)], (4, 5), TypeError, r"tokens\[0\] is a tuple.*pair\[0\]"),
        ],
    )
    def test_what_is_no_grid_is_refused(
        self, tokens: Any, grid: tuple[int, int], error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            maps_of_tokens(tokens, grid)

    def test_feature_maps_name_the_way(self) -> None:
        with pytest.raises(ValueError, match="maps_of_tokens"):
            feature_maps([torch.randn(1, 20, 8)])
        with pytest.raises(TypeError, match=r"\[pair\[0\] for pair in output\]"):
            feature_maps([(torch.randn(1, 8, 4, 5), torch.randn(1, 8))])


class TestTimm:
    def test_tokens_of_a_vision_transformer(self) -> None:
        timm = library("timm")
        model = timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=64)
        tokens = model.forward_features(torch.randn(2, 3, 64, 64))
        maps = maps_of_tokens(tokens, model.patch_embed.grid_size, model.num_prefix_tokens)
        assert_usable(maps, [model.num_features], (64, 64))

    def test_inside_a_pixelnet(self) -> None:
        """NHWC maps, channels from timm's own description, dense prediction."""
        timm = library("timm")
        backbone = timm.create_model(
            "swin_tiny_patch4_window7_224", features_only=True, pretrained=False, img_size=64
        )
        head = PixelMLP(backbone.feature_info.channels(), (16,), out_features=3)
        model = PixelNet(backbone, head, layout=backbone.output_fmt)
        images = torch.randn(1, 3, 64, 64)
        assert model(images, torch.randint(64, (1, 7, 2))).shape == (1, 7, 3)
        assert model.predict(images).shape == (1, 3, 64, 64)

    @pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "swin_tiny_patch4_window7_224"])
    def test_features_only(self, name: str) -> None:
        timm = library("timm")
        size = 224 if name.startswith("swin") else 64
        model = timm.create_model(name, features_only=True, pretrained=False)
        maps = feature_maps(model(torch.randn(1, 3, size, size)), layout=model.output_fmt)
        assert_usable(maps, model.feature_info.channels(), (size, size))
        if name.startswith("swin"):
            assert str(getattr(model.output_fmt, "value", model.output_fmt)) == "NHWC"
        for feature, reduction in zip(maps, model.feature_info.reduction(), strict=True):
            assert feature.shape[2] == size // reduction


class TestTorchvision:
    def test_feature_extractor(self) -> None:
        models = library("torchvision.models")
        extraction = library("torchvision.models.feature_extraction")
        nodes = {"layer1": "fine", "layer4": "coarse"}
        model = extraction.create_feature_extractor(models.resnet18(weights=None), nodes)
        maps = feature_maps(model(torch.randn(2, 3, 64, 64)))
        assert_usable(maps, [64, 512], (64, 64))

    def test_feature_pyramid(self) -> None:
        ops = library("torchvision.ops")
        pyramid = ops.FeaturePyramidNetwork([8, 16], 32)
        output = pyramid({"c2": torch.randn(2, 8, 16, 16), "c3": torch.randn(2, 16, 8, 8)})
        assert_usable(feature_maps(output), [32, 32], (64, 64))


class TestTransformers:
    def test_tokens_are_the_maps_that_the_backbone_makes_of_them(self) -> None:
        """Class token and registers first, as DINOv2 has them."""
        transformers = library("transformers")
        sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = transformers.Dinov2WithRegistersConfig(
            **sizes, image_size=56, patch_size=14, num_register_tokens=4, out_indices=[1, 2]
        )
        backbone = transformers.AutoBackbone.from_config(config).eval()
        expected = feature_maps(backbone(images := torch.randn(2, 3, 42, 56)))
        backbone.config.reshape_hidden_states = False
        tokens = backbone(images).feature_maps  # (2, 1 + 4 + 12, 8), layer norm applied
        maps = maps_of_tokens(tokens, (3, 4), prefix=1 + config.num_register_tokens)
        for one, other in zip(maps, expected, strict=True):
            assert torch.equal(one, other)
        assert_usable(maps, [8, 8], (42, 56))

    def test_auto_backbone(self) -> None:
        transformers = library("transformers")
        config = transformers.ResNetConfig(
            embedding_size=8,
            hidden_sizes=[8, 16, 24],
            depths=[1, 1, 1],
            out_features=["stage1", "stage3"],
        )
        model = transformers.AutoBackbone.from_config(config)
        maps = feature_maps(model(torch.randn(2, 3, 64, 64)))
        assert_usable(maps, list(model.channels), (64, 64))


def test_maps_of_a_plain_module_need_no_adapter() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            a = self.a(x)
            return a, self.b(a)

    assert_usable(feature_maps(Two()(torch.randn(2, 3, 32, 32))), [4, 6], (32, 32))
