"""Runs of `fit`: in half precision, resumed with other settings, and those that would never end."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pixelnet_triton.data import collate
from pixelnet_triton.models import NetworkConfig, PixelNet, build
from pixelnet_triton.sampling import BiasedSampler, UniformSampler
from pixelnet_triton.training import (
    Edges,
    PixelNetModule,
    Recipe,
    Segmentation,
    StepLoader,
    Task,
    fit,
)
from tests.test_training import QUIET, TASKS, network, scenes

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")
LABELS, RECIPE = TASKS["labels"], Recipe(lr=0.05)


def described(width: float = 1 / 16, weights: str | None = None) -> PixelNet:
    """A network that its checkpoint describes."""
    options = {"layers": ["conv1_2"], "width": width, "weights": weights}
    head = {"hidden_features": [4], "out_features": 2}
    return build(NetworkConfig("vgg16", options, head, "softmax"), pretrained=False)


def run(
    folder: Path,
    *,
    model: PixelNet | None = None,
    task: Task = LABELS,
    recipe: Recipe = RECIPE,
    seed: int = 0,
    images: int = 2,
    count: int = 12,
    **options: Any,
) -> PixelNetModule:
    model = described() if model is None else model
    module = PixelNetModule(model, task, recipe=recipe, seed=seed)
    loader = StepLoader(scenes("labels", count), images)
    fit(module, loader, folder=folder, **{"steps": 1, **QUIET, **options})
    return module


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
@pytest.mark.parametrize("kind", ["labels", "edges", "depth"])
def test_metrics_count_alike_in_every_precision(kind: str, precision: str, tmp_path: Path) -> None:
    """Sums are of float64, a curve has 100 thresholds, and what is counted is float32."""

    class Watched(PixelNetModule):
        def on_validation_epoch_start(self) -> None:
            super().on_validation_epoch_start()
            update = self.metrics.update

            def watched(prediction: torch.Tensor, target: torch.Tensor) -> None:
                seen.append((prediction.dtype, target.dtype))
                update(prediction, target)

            self.metrics.update = watched

    seen: list[tuple[torch.dtype, torch.dtype]] = []
    task = TASKS[kind]
    module = Watched(network(task), task, recipe=Recipe(lr=0.01))
    data = StepLoader(scenes(kind), 2)
    fit(module, data, data, folder=tmp_path, steps=4, precision=precision, **QUIET)
    expected = torch.float32 if kind == "depth" else torch.int64
    assert set(seen) == {(torch.float32, expected)}
    assert len(seen) == 2 + 4  # before the training, and after it
    metric, new = module.metrics, task.metrics()
    for name in new._defaults:
        assert getattr(metric, name).dtype == getattr(new, name).dtype, name
    if kind == "edges":
        assert len(metric.thresholds.unique()) == 100


class TestResuming:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"recipe": Recipe(lr=0.01)}, r"recipe\.lr was 0\.05 and is 0\.01\. Go on with those"),
            ({"seed": 1}, "seed was 0 and is 1"),
            ({"task": Segmentation(2, UniformSampler(65))}, r"task\.sampler\.n was 64 and is 65"),
            ({"model": described(1 / 8)}, r"network\.backbone_options\.width was 0\.0625 and is"),
        ],
    )
    def test_with_other_settings_is_refused(
        self, change: dict[str, Any], message: str, tmp_path: Path
    ) -> None:
        run(tmp_path)
        before = (tmp_path / "last.ckpt").read_bytes()
        with pytest.raises(ValueError, match=rf"last\.ckpt is of a run with other.*{message}"):
            run(tmp_path, steps=2, resume=True, **change)
        assert (tmp_path / "last.ckpt").read_bytes() == before

    def test_may_be_longer_and_computed_otherwise(self, tmp_path: Path) -> None:
        run(tmp_path)
        weights = described(weights="/elsewhere/vgg16.pth")  # the checkpoint has them
        run(tmp_path, model=weights, steps=2, resume=True, precision="bf16-mixed")
        state = torch.load(tmp_path / "last.ckpt", weights_only=True)
        assert state["global_step"] == 2

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"images": 4}, "images_per_batch is 4, but 2 in the checkpoint"),
            ({"count": 14}, "length is 14, but 12 in the checkpoint"),
        ],
    )
    def test_with_other_mini_batches_is_refused(
        self, change: dict[str, Any], message: str, tmp_path: Path
    ) -> None:
        """Five mini-batches of two were seen: of four there are three in all."""
        run(tmp_path, steps=5)
        with pytest.raises(ValueError, match=message):
            run(tmp_path, steps=8, resume=True, **change)

    @pytest.mark.parametrize("part", [0, 0.5])
    def test_of_a_damaged_checkpoint_names_it(self, part: float, tmp_path: Path) -> None:
        run(tmp_path)
        last = tmp_path / "last.ckpt"
        content = last.read_bytes()
        last.write_bytes(content[: int(part * len(content))])
        with pytest.raises(ValueError, match=r"last\.ckpt cannot be read: .*; it is damaged"):
            run(tmp_path, steps=2, resume=True)


class TestCheckpoints:
    def test_are_renamed_in_their_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`shutil.move` copies from another file system, of TMPDIR; half a file would be seen."""

        def moved(*_: Any) -> None:
            raise AssertionError("moved")

        monkeypatch.setattr("shutil.move", moved)
        run(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", "logs"}

    def test_that_cannot_be_written_leave_the_last_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(checkpoint: Any, path: Any) -> None:
            Path(path).write_bytes(b"half")
            raise OSError("no space left on device")

        run(tmp_path)
        before = (tmp_path / "last.ckpt").read_bytes()
        monkeypatch.setattr(torch, "save", full)
        with pytest.raises(OSError, match="no space"):
            run(tmp_path, steps=2, resume=True)
        assert (tmp_path / "last.ckpt").read_bytes() == before

    def test_with_numpys_numbers_can_be_loaded(self, tmp_path: Path) -> None:
        recipe = Recipe(
            lr=np.logspace(-3, -1, 3)[0], decay_at=tuple(np.array([0.5, 0.8], np.float32))
        )
        sampler = BiasedSampler(64, positive_fraction=np.float64(0.25), ignore_index=np.int64(9))  # type: ignore[arg-type]
        task = Segmentation(np.int64(2), sampler)  # type: ignore[arg-type]
        module = run(tmp_path, recipe=recipe, task=task, seed=np.int64(3))  # type: ignore[arg-type]
        loaded = PixelNetModule.load_from_checkpoint(tmp_path / "last.ckpt")
        assert (loaded.recipe, loaded.task, loaded.seed) == (recipe, task, 3)
        assert isinstance(PixelNet.load(tmp_path / "last.ckpt"), PixelNet)
        numbers = [*dataclasses.astuple(module.recipe), *module.recipe.decay_at, module.seed]
        assert {type(number) for number in numbers} == {float, int, str, tuple}


@pytest.mark.parametrize("seed", [-1, 0.5, "1989"])
def test_a_seed_is_an_integer_from_0(seed: Any) -> None:
    with pytest.raises(ValueError, match=rf"seed={seed!r}; expected an integer of at least 0"):
        PixelNetModule(described(), LABELS, seed=seed)
    with pytest.raises(ValueError, match=rf"seed={seed!r}; expected an integer of at least 0"):
        StepLoader(scenes("labels"), seed=seed)


@pytest.mark.parametrize("label", [0, 1])
def test_edges_have_an_ignored_label_of_its_own(label: int) -> None:
    with pytest.raises(ValueError, match=rf"sampler.ignore_index={label} is the label of"):
        Edges(BiasedSampler(64, ignore_index=label))


@pytest.mark.parametrize("classes", [0, 1.5, "2"])
def test_classes_are_an_integer(classes: Any) -> None:
    with pytest.raises(ValueError, match=r"classes=.*; expected an integer of at least 1"):
        Segmentation(classes)


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), "0.1", torch.tensor(0.1)])
def test_a_rate_is_a_finite_number(rate: Any) -> None:
    with pytest.raises(ValueError, match=r"lr=.*; expected a finite number >= 0"):
        Recipe(lr=rate)


def test_every_validation_measures_all_images(tmp_path: Path) -> None:
    """Lightning's check before the training takes two mini-batches of the same loader."""
    seen: list[tuple[int, list[float]]] = []

    class Watched(PixelNetModule):
        def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
            super().validation_step(batch, batch_index)
            images = batch["image"].mean((1, 2, 3)).tolist()
            seen.append((-1 if self.trainer.sanity_checking else self.global_step, images))

    module = Watched(described(), LABELS)
    options = {"val_check_interval": 2, "check_val_every_n_epoch": None, **QUIET}
    loaders = [StepLoader(scenes("labels"), 2) for _ in range(2)]
    fit(module, *loaders, folder=tmp_path, steps=6, **options)
    by_step = {step: [images for at, images in seen if at == step] for step in dict(seen)}
    assert {step: len(batches) for step, batches in by_step.items()} == {-1: 2, 2: 4, 4: 4, 6: 4}
    assert by_step[2] == by_step[4] == by_step[6]
    assert by_step[2][:2] == by_step[-1]


def test_epochs_without_mini_batches_end_the_training(tmp_path: Path) -> None:
    """A generator can be gone through once."""

    class Once:
        def __init__(self) -> None:
            self.batches, self.begun = iter([collate(scenes("labels")[:2])] * 3), 0

        def __iter__(self) -> Iterator[dict[str, Any]]:
            self.begun += 1
            assert self.begun < 20, "it goes on for ever"
            return self.batches

    once = Once()
    with pytest.raises(ValueError, match=r"train gave no mini-batch in two epochs.*begins anew"):
        fit(PixelNetModule(described(), LABELS), once, folder=tmp_path, steps=6, **QUIET)


class TestOptions:
    @pytest.mark.parametrize("name", ["max_steps", "max_epochs"])
    def test_of_the_length_are_refused_by_name(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=rf"{name}=3: the length .* steps=1.*leave {name} out"):
            run(tmp_path, **{name: 3})
        assert not list(tmp_path.iterdir())

    def test_a_logger_may_be_another_or_none(self, tmp_path: Path) -> None:
        run(tmp_path, logger=False, use_distributed_sampler=False)
        assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
