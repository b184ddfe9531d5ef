"""What a file says of its network is what the network is, or the file is not written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pixelnet_triton.models import (
    BACKBONES,
    VGG16,
    ImageNormalization,
    NetworkConfig,
    PixelMLP,
    PixelNet,
    build,
)
from tests.test_models_config import CONFIG, same_outputs


@pytest.fixture
def model() -> PixelNet:
    return build(CONFIG)


def test_a_head_of_other_widths_is_described(model: PixelNet, tmp_path: Path) -> None:
    model.output = None
    model.head = PixelMLP(model.head.in_channels, (), out_features=7, batch_norm=True)
    model.head.first.strides = model.backbone.strides
    model.save(tmp_path / "model.safetensors")
    loaded = PixelNet.load(tmp_path / "model.safetensors")
    assert (loaded.head.out_features, loaded.head.hidden_features) == (7, ())
    same_outputs(loaded, model)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("head.first.strides", (2, 8), r"head\.first\.strides is \(2, 8\), but \(1, 4\) in"),
        ("head.first.padding_mode", "zeros", r"head\.first\.padding_mode is zeros, but border"),
        ("backbone.normalization", None, r"backbone\.normalization is \{\}, but \{'backbone\.n"),
        ("backbone.normalization", ImageNormalization.lite(), r"normalization is .*\(127\.0,"),
    ],
)
def test_what_weights_do_not_tell_is_not_lost(
    place: str, value: Any, message: str, model: PixelNet, tmp_path: Path
) -> None:
    """Without a word the file would be of another network."""
    part, _, name = place.rpartition(".")
    setattr(model.get_submodule(part), name, value)
    with pytest.raises(ValueError, match=message):
        model.save(tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_saving_draws_no_random_numbers(model: PixelNet, tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    model.save(tmp_path / "model.safetensors")
    assert torch.equal(torch.rand(3), expected)


def test_makers_that_look_at_numbers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def maker() -> nn.Module:
        backbone = VGG16(("conv1_2",), width=1 / 16)
        assert backbone.conv1_1.weight.abs().max().item() > 0
        return backbone

    monkeypatch.setitem(BACKBONES, "looks", maker)
    model = build(NetworkConfig("looks", {}, {"hidden_features": [], "out_features": 2}))
    model.save(tmp_path / "model.safetensors")
    same_outputs(PixelNet.load(tmp_path / "model.safetensors"), model)


def test_a_folder_is_no_file(model: PixelNet, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder; expected the name of a file in it"):
        model.save(tmp_path)
    with pytest.raises(ValueError, match=r"is a folder; expected a file in it, such as model"):
        PixelNet.load(tmp_path)
    assert not tmp_path.with_name(f"{tmp_path.name}.part").exists()
