"""Checkpoints that are enough by themselves: network, task, recipe, seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

pytest.importorskip("lightning")

from pixelnet_triton.models import VGG16, NetworkConfig, PixelMLP, PixelNet, build
from pixelnet_triton.sampling import BiasedSampler, ClassBalancedSampler, UniformSampler
from pixelnet_triton.training import (
    Depth,
    Edges,
    Normals,
    PixelNetModule,
    Recipe,
    Segmentation,
    StepLoader,
    fit,
)
from pixelnet_triton.training.saved import task_from_dict, task_to_dict

TASKS = [
    Segmentation(3, UniformSampler(20, ignore_index=7)),
    Segmentation(4, ClassBalancedSampler(20, num_classes=4)),
    Edges(BiasedSampler(20, positive_fraction=0.25, positive=2)),
    Normals(),
    Depth(UniformSampler(30)),
]
RECIPE = Recipe(lr=0.02, decay_at=(0.5,))


def network(task: Any) -> PixelNet:
    options = {"layers": ["conv1_2", "conv3_3"], "width": 1 / 16, "batch_norm": True}
    head = {"hidden_features": [6], "out_features": task.out_features, "init": "kaiming"}
    return build(NetworkConfig("vgg16", options, head, task.output))


class Samples:
    """Four images of noise with labels."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(index)
        image = torch.rand(3, 16, 16, generator=generator)
        target = torch.randint(2, (16, 16), generator=generator)
        return {"image": image, "target": target, "kind": "labels", "name": str(index)}


def trained(task: Any, folder: Path, model: PixelNet | None = None) -> PixelNetModule:
    module = PixelNetModule(
        network(task) if model is None else model,
        task,
        recipe=RECIPE,
        seed=5,
        channels_last=False,
    )
    loader = StepLoader(Samples(), 2, seed=5)
    options = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    fit(module, loader, folder=folder, steps=2, log_every_n_steps=1, **options)
    return module


@pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
def test_a_task_is_as_it_was(task: Any) -> None:
    assert task_from_dict(task_to_dict(task)) == task


@pytest.mark.parametrize("task", [TASKS[0], TASKS[2]], ids=["Segmentation", "Edges"])
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_the_file_is_enough(task: Any, tmp_path: Path) -> None:
    module = trained(task, tmp_path)
    loaded = PixelNetModule.load_from_checkpoint(tmp_path / "last.ckpt")
    assert (loaded.task, loaded.recipe, loaded.seed) == (task, RECIPE, 5)
    assert loaded.memory_format == torch.contiguous_format
    assert loaded.model.config == module.model.config
    assert loaded.state_dict().keys() == module.state_dict().keys()
    for name, tensor in module.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    images = torch.rand(1, 3, 17, 23)
    expected = module.model.predict(images)
    assert torch.equal(PixelNet.load(tmp_path / "last.ckpt").predict(images), expected)
    loaded.model.save(tmp_path / "model.safetensors")
    assert torch.equal(PixelNet.load(tmp_path / "model.safetensors").predict(images), expected)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_what_the_file_cannot_say_is_given(tmp_path: Path) -> None:
    class Mine(Edges):
        more: ClassVar[int] = 1

    def by_hand() -> PixelNet:
        backbone = VGG16(("conv1_1",), width=1 / 16)
        return PixelNet(backbone, PixelMLP(backbone.channels, (), out_features=1), output="sigmoid")

    path = tmp_path / "last.ckpt"
    module = trained(Mine(), tmp_path, by_hand())
    with pytest.raises(ValueError, match=r"does not describe its model.*pass model="):
        PixelNetModule.load_from_checkpoint(path)
    with pytest.raises(ValueError, match=r"does not describe its task.*pass task="):
        PixelNetModule.load_from_checkpoint(path, model=by_hand())
    with pytest.raises(ValueError, match=r"last\.ckpt has weights and no configuration"):
        PixelNet.load(path)
    loaded = PixelNetModule.load_from_checkpoint(path, model=by_hand(), task=Edges(), seed=6)
    assert (loaded.seed, loaded.recipe) == (6, RECIPE)
    for name, tensor in module.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name


def test_bad_descriptions() -> None:
    assert task_to_dict(object()) is None
    assert task_to_dict(Edges(lambda labels, **options: None)) is None  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"is none that this version knows.*Pass task="):
        task_from_dict({"name": "Flow"})
    with pytest.raises(ValueError, match=r"is none that this version knows"):
        task_from_dict({"name": "Normals", "classes": 3})


def test_other_checkpoints(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"no entry 'pixelnet_triton'.*PixelNetModule wrote"):
        PixelNetModule.load_from_checkpoint(tmp_path / "last.ckpt")
