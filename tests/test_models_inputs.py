"""What models make of their images: normalisation, other channels, patches that do not divide."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pixelnet_triton import sparse_hypercolumn
from pixelnet_triton.models import VGG16, ImageNormalization, PixelMLP, PixelNet
from pixelnet_triton.models.backbones import backbone_strides


class TestNormalization:
    def test_constants_are_those_of_the_weights(self) -> None:
        """torchvision's documentation of vgg16; the means of the Caffe VGG-16, in BGR."""
        mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
        deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
        images = torch.rand(2, 3, 5, 7)
        torch.testing.assert_close(
            ImageNormalization.torchvision()(images), (images - mean) / deviation
        )
        caffe = torch.tensor([103.939, 116.779, 123.68])[:, None, None]
        torch.testing.assert_close(
            ImageNormalization.caffe()(images), images[:, [2, 1, 0]] * 255 - caffe
        )

    @pytest.mark.parametrize("name", ["torchvision", "caffe"])
    def test_vgg_takes_the_one_it_is_asked_for(self, name: str) -> None:
        module = VGG16(("conv1_1",), width=1 / 16, normalization=name).normalization
        images = torch.rand(1, 3, 4, 4)
        assert torch.equal(module(images), getattr(ImageNormalization, name)()(images))

    @pytest.mark.parametrize(
        ("change", "remedy"),
        [
            (lambda x: 255 * x, "divide images of 0 to 255 by 255"),
            (lambda x: (x - 0.45) / 0.22, "normalization=None"),
        ],
        ids=["0 to 255", "normalised"],
    )
    @pytest.mark.parametrize("make", [ImageNormalization.torchvision, ImageNormalization.caffe])
    def test_other_ranges_are_warned_of_once(
        self,
        make: Callable[[], ImageNormalization],
        change: Callable[[Tensor], Tensor],
        remedy: str,
    ) -> None:
        module = make()
        images = torch.linspace(0, 1, 192).view(1, 3, 8, 8)
        with pytest.warns(UserWarning, match=rf"images ranges over .*\[0, 1\].*{remedy}") as seen:
            module(change(images))
        assert len(seen) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            module(change(images))

    def test_colours_and_noise_are_not_warned_of(self) -> None:
        images = torch.linspace(0, 1, 192).view(1, 3, 8, 8)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for changed in (images * 1.3, images - 0.1, images[:, :, :0], images.half()):
                ImageNormalization.torchvision()(changed)
            # a scale below 1 says that images are not in [0, 1]
            ImageNormalization((0.5,) * 3, (0.2,) * 3, scale=1 / 255)(images * 255)

    def test_a_graph_does_not_look_at_values(self) -> None:
        images = 255 * torch.rand(1, 3, 8, 8)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            module = ImageNormalization.torchvision()
            compiled = torch.compile(module, backend="eager", fullgraph=True)
            seen = compiled(images)
            torch.export.export(ImageNormalization.torchvision(), (images,))
        with pytest.warns(UserWarning, match="images ranges over"):  # as it is in a plain call
            torch.testing.assert_close(seen, ImageNormalization.torchvision()(images))

    def test_the_dtype_is_the_images(self) -> None:
        for dtype in (torch.bfloat16, torch.float16, torch.float64):
            images = torch.rand(1, 3, 4, 4, dtype=dtype)
            assert ImageNormalization.torchvision()(images).dtype == dtype

    def test_bad_images_are_named(self) -> None:
        module = ImageNormalization.torchvision()
        with pytest.raises(TypeError, match=r"images is torch.uint8; .*\.float\(\) / 255"):
            module(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
        for channels in (1, 4):
            with pytest.raises(ValueError, match=rf"\(1, {channels}, 4, 4\); expected \(B, 3, H"):
                module(torch.zeros(1, channels, 4, 4))

    def test_the_constants_come_along_from_the_meta_device(self) -> None:
        with torch.device("meta"):
            module = nn.Sequential(ImageNormalization.caffe())
        images = torch.rand(1, 3, 4, 4)
        expected = ImageNormalization.caffe()(images)
        module.to_empty(device="cpu")
        assert torch.equal(module(images), expected)
        torch.testing.assert_close(module.double()(images.double()).float(), expected)

    def test_half_precision_does_not_round_the_constants(self) -> None:
        images = torch.rand(1, 3, 4, 4).bfloat16()
        expected = ImageNormalization.torchvision()(images.float()).bfloat16()
        assert torch.equal(ImageNormalization.torchvision().bfloat16()(images), expected)


class TestOtherChannels:
    def weights(self) -> dict[str, Tensor]:
        return {"features.0.weight": torch.randn(64, 3, 3, 3), "features.0.bias": torch.randn(64)}

    @pytest.mark.parametrize("channels", [1, 2, 4, 6, 13])
    def test_equal_channels_give_what_three_gave(self, channels: int) -> None:
        """So activations keep their size, whatever the number of channels."""
        weights, grey = self.weights(), torch.rand(2, 1, 8, 8)
        expected = VGG16(("conv1_1",)).load_torchvision(weights)(grey.expand(-1, 3, -1, -1))
        backbone = VGG16(("conv1_1",), in_channels=channels).load_torchvision(weights)
        assert backbone.conv1_1.weight.shape == (64, channels, 3, 3)
        torch.testing.assert_close(backbone(grey.expand(-1, channels, -1, -1)), expected)

    def test_the_first_three_of_more_stay_colours(self) -> None:
        weights = self.weights()
        backbone = VGG16(("conv1_1",), in_channels=4).load_torchvision(weights)
        colours = backbone.conv1_1.weight[:, :3]
        torch.testing.assert_close(colours, weights["features.0.weight"] * 3 / 4)

    def test_three_are_loaded_as_they_are(self) -> None:
        weights = self.weights()
        backbone = VGG16(("conv1_1",)).load_torchvision(weights)
        assert torch.equal(backbone.conv1_1.weight, weights["features.0.weight"])

    def test_trains_in_a_network(self) -> None:
        backbone = VGG16(("conv1_2", "conv2_2"), width=1 / 16, in_channels=5)
        model = PixelNet(backbone, PixelMLP(backbone.channels, (4,), out_features=2))
        model(torch.rand(1, 5, 8, 8), torch.zeros(1, 3, 2)).sum().backward()
        assert backbone.conv1_1.weight.grad is not None

    def test_bad_input(self) -> None:
        with pytest.raises(ValueError, match=r"in_channels=0; expected an integer of at least 1"):
            VGG16(in_channels=0)
        with pytest.raises(ValueError, match=r"normalization='caffe'.*in_channels=1; pass normali"):
            VGG16(in_channels=1, normalization="caffe")
        with pytest.raises(ValueError, match=r"\(1, 3, 8, 8\); expected \(B, 1, H, W\)"):
            VGG16(("conv1_1",), width=1 / 16, in_channels=1)(torch.rand(1, 3, 8, 8))
        few = {"features.0.weight": torch.ones(64, 5, 3, 3), "features.0.bias": torch.ones(64)}
        with pytest.raises(ValueError, match=r"features\.0\.weight has shape \(64, 5, 3, 3\)"):
            VGG16(("conv1_1",), in_channels=1).load_torchvision(few)


class Patches(nn.Module):
    """A backbone of one map: the x of each patch's centre, in pixels."""

    channels = (1,)

    def __init__(self, patch: int, **config: Any) -> None:
        super().__init__()
        self.patch = patch
        self.config = types.SimpleNamespace(patch_size=patch, **config)

    def forward(self, images: Tensor) -> list[Tensor]:
        rows, columns = images.shape[2] // self.patch, images.shape[3] // self.patch
        centres = torch.arange(columns) * self.patch + (self.patch - 1) / 2
        return [centres.expand(len(images), 1, rows, columns)]


def head_of(maps: int = 1) -> PixelMLP:
    return PixelMLP([1] * maps, (), out_features=1)


class TestPatches:
    @pytest.mark.parametrize("size", [(56, 84), (55, 83), (57, 97)])
    def test_points_lie_on_their_patches(self, size: tuple[int, int]) -> None:
        """The remainder belongs to no patch where 14 does not divide the image."""
        model = PixelNet(Patches(14), head_of())
        assert model.head.first.strides == (14,)
        maps = model.features(torch.rand(1, 3, *size))
        x = torch.arange(7.0, 60.0, 1.5)
        points = torch.stack([x, torch.full_like(x, 20.0)], dim=-1)[None]
        at = sparse_hypercolumn(maps, points, size, strides=model.head.first.strides)
        torch.testing.assert_close(at[0, :, 0], x)

    def test_transformers_vit(self) -> None:
        transformers = pytest.importorskip("transformers")
        config = transformers.Dinov2Config(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=56,
            patch_size=14, out_features=["stage1", "stage2"],
        )  # fmt: skip
        backbone = transformers.Dinov2Backbone(config).eval()
        model = PixelNet(backbone, PixelMLP([16, 16], (8,), out_features=3)).eval()
        assert model.head.first.strides == (14, 14)
        images, points = torch.rand(1, 3, 55, 83), torch.tensor([[[62.5, 6.5]]])
        maps = backbone(images).feature_maps
        assert maps[0].shape[2:] == (3, 5)
        expected = model.head.rest(
            model.head.first([m[..., :1, 4:5] for m in maps], points * 0, (14, 14))
        )
        torch.testing.assert_close(model(images, points), expected)

    def test_timm_vit_and_hierarchy(self) -> None:
        """feature_info's reductions count where all of them are the patch's own resolution."""

        def of_timm(reductions: list[int]) -> Any:
            net = nn.Module()
            net.patch_embed = nn.Module()
            net.patch_embed.patch_size = (16, 16)
            info = types.SimpleNamespace(
                channels=lambda: [1] * len(reductions), reduction=lambda: reductions
            )
            net.feature_info = info
            return net

        assert backbone_strides(of_timm([16, 16])) == (16, 16)
        assert backbone_strides(of_timm([4, 8, 16, 32])) is None

    @pytest.mark.parametrize("more", [{"depths": [2, 2]}, {"add_fpn": True}], ids=str)
    def test_pyramids_go_by_the_ratio(self, more: dict[str, Any]) -> None:
        assert backbone_strides(Patches(4, **more)) is None

    def test_a_wrong_patch_size_is_named(self) -> None:
        backbone = Patches(8)
        backbone.config.patch_size = 16
        model = PixelNet(backbone, head_of())
        with pytest.raises(ValueError, match=r"is \(4, 4\) cells.*\(32, 32\).*16, its patch size"):
            model(torch.rand(1, 3, 32, 32), torch.zeros(1, 1, 2))
        backbone.strides = [8]  # type: ignore[assignment]
        PixelNet(backbone, head_of())(torch.rand(1, 3, 32, 32), torch.zeros(1, 1, 2))

    def test_the_heads_strides_win(self) -> None:
        head = PixelMLP([1], (), out_features=1, strides=[7])
        model = PixelNet(Patches(14), head)
        assert model.head.first.strides == [7]
        model(torch.rand(1, 3, 28, 28), torch.zeros(1, 1, 2))


class TestListsOfImages:
    """As loaders of differently sized images give them."""

    IMAGES = (torch.rand(3, 40, 60), torch.rand(3, 64, 48))

    def network(self) -> PixelNet:
        backbone = VGG16(("conv1_2", "conv3_3"), width=1 / 8)
        return PixelNet(backbone, PixelMLP(backbone.channels, (8,), out_features=2)).eval()

    @pytest.mark.parametrize("kind", [list, tuple])
    def test_are_refused_with_the_remedy(self, kind: Callable[[Any], Any]) -> None:
        network, images = self.network(), kind(self.IMAGES)
        message = (
            r"images is a (list|tuple) of \(3, 40, 60\), \(3, 64, 48\); .*F\.pad.*image\[None\]"
        )
        for call in (
            network.predict,
            network.features,
            network.backbone,
        ):
            with pytest.raises(ValueError, match=message):
                call(images)

    def test_the_remedies_work(self) -> None:
        network, points = self.network(), torch.rand(2, 5, 2) * 20
        height, width = (max(image.shape[i] for image in self.IMAGES) for i in (1, 2))
        padded = [
            nn.functional.pad(image, (0, width - image.shape[2], 0, height - image.shape[1]))
            for image in self.IMAGES
        ]
        together = network(torch.stack(padded), points)
        alone = [network(i[None], p[None])[0] for i, p in zip(self.IMAGES, points, strict=True)]
        torch.testing.assert_close(together, torch.stack(alone))
