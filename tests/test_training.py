"""The training recipe against the paper, and runs that begin anew, resume, and learn."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from pixelnet_triton.models import VGG16, PixelMLP, PixelNet
from pixelnet_triton.sampling import BiasedSampler, UniformSampler
from pixelnet_triton.training import (
    EDGE_RECIPE,
    Depth,
    Edges,
    Normals,
    PixelEdgeMetrics,
    PixelNetModule,
    Recipe,
    Segmentation,
    StepLoader,
    Task,
    derived_seed,
    fit,
    parameter_groups,
    rate_factor,
    step_decay,
)

QUIET = {
    "accelerator": "cpu",
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "log_every_n_steps": 1,
}


def samples(count: int) -> list[dict[str, Any]]:
    """Images whose every pixel is their index."""
    return [
        {
            "image": torch.full((3, 4, 4), float(i)),
            "target": torch.full((4, 4), i),
            "kind": "labels",
        }
        for i in range(count)
    ]


def images_of(batches: list[dict[str, Any]]) -> list[list[int]]:
    return [batch["target"][:, 0, 0].tolist() for batch in batches]


class TestRecipe:
    def test_defaults_are_the_papers(self) -> None:
        recipe = Recipe()
        assert (recipe.lr, recipe.momentum, recipe.weight_decay) == (1e-3, 0.9, 5e-4)
        factor = step_decay(recipe, 96)  # one step an epoch: 80 + 8 + 8
        rates = [recipe.lr * factor(epoch) for epoch in range(96)]
        assert rates == pytest.approx([1e-3] * 80 + [1e-4] * 8 + [1e-5] * 8)

    def test_edges_decay_after_15_and_20_of_25_epochs(self) -> None:
        factor = step_decay(EDGE_RECIPE, 25)
        assert [factor(e) for e in range(25)] == pytest.approx([1] * 15 + [0.1] * 5 + [0.01] * 5)

    def test_biases_learn_twice_as_fast_without_decay(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
        model[2].weight.requires_grad_(False)
        groups = {group["name"]: group for group in parameter_groups(model)}
        ids = {name: {id(p) for p in group["params"]} for name, group in groups.items()}
        assert ids["weights"] == {id(model[0].weight)}
        assert ids["biases"] == {id(model[0].bias), id(model[1].bias), id(model[2].bias)}
        assert ids["scales"] == {id(model[1].weight)}
        rates = {name: (group["lr"], group["weight_decay"]) for name, group in groups.items()}
        assert rates == {"weights": (1e-3, 5e-4), "biases": (2e-3, 0.0), "scales": (1e-3, 0.0)}

    def test_the_backbone_may_have_a_rate_of_its_own(self) -> None:
        backbone = VGG16(("conv1_2",), width=1 / 16, batch_norm=True)
        model = PixelNet(backbone, PixelMLP(backbone.channels, (4,), out_features=2))
        recipe = Recipe(lr=0.1, backbone_lr_multiplier=0.25)
        groups = {group["name"]: group for group in parameter_groups(model, recipe)}
        whole = {group["name"]: group for group in parameter_groups(model, Recipe(lr=0.1))}
        own = {id(p) for p in backbone.parameters()}
        for kind, group in whole.items():
            ids = {id(p) for p in group["params"]}
            for name, there, factor in (
                (kind, ids - own, 1),
                (f"backbone {kind}", ids & own, 0.25),
            ):
                assert {id(p) for p in groups.get(name, {"params": ()})["params"]} == there
                if there:
                    assert groups[name]["lr"] == pytest.approx(factor * group["lr"])
                    assert groups[name]["weight_decay"] == group["weight_decay"]
        # The head of this network has no scales.
        assert set(groups) == {
            "weights", "biases", "backbone weights", "backbone biases", "backbone scales",
        }  # fmt: skip

    def test_cosine_falls_to_zero_after_the_warm_up(self) -> None:
        factor = rate_factor(Recipe(schedule="cosine", warmup=0.1), 100)
        cosine = [(1 + math.cos(math.pi * step / 100)) / 2 for step in range(100)]
        rising = [min(1.0, (step + 1) / 10) for step in range(100)]
        expected = [c * r for c, r in zip(cosine, rising, strict=True)]
        assert [factor(step) for step in range(100)] == pytest.approx(expected)
        assert factor(100) == 0

    def test_the_default_schedule_is_the_papers(self) -> None:
        ours, papers = rate_factor(Recipe(), 96), step_decay(Recipe(), 96)
        assert [ours(step) for step in range(97)] == [papers(step) for step in range(97)]

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("lr", -1.0),
            ("decay_at", (0.9, 0.1)),
            ("decay_at", (0.5, 2.0)),
            ("backbone_lr_multiplier", -0.1),
            ("warmup", 1.0),
        ],
    )
    def test_names_what_is_out_of_range(self, field: str, value: object) -> None:
        with pytest.raises(ValueError, match=f"{field}=.*expected"):
            Recipe(**{field: value})

    def test_an_unknown_schedule_is_refused(self) -> None:
        with pytest.raises(ValueError, match="schedule='linear' is unknown; use one of"):
            Recipe(schedule="linear")


class TestStepLoader:
    def test_an_epoch_visits_each_image_once_and_the_next_in_another_order(self) -> None:
        loader = StepLoader(samples(12), 3, seed=1)
        first, second = images_of(list(loader)), images_of(list(loader))
        assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(12))
        assert first != second

    def test_is_a_function_of_the_seed(self) -> None:
        runs = [images_of(list(StepLoader(samples(12), 3, seed=seed))) for seed in (1, 1, 2)]
        assert runs[0] == runs[1] != runs[2]

    @pytest.mark.parametrize("done", [1, 4, 6])
    def test_goes_on_where_the_state_was_taken(self, done: int) -> None:
        def stream(loader: StepLoader) -> list[list[int]]:
            return images_of([*loader, *loader])

        whole = stream(StepLoader(samples(12), 3))
        loader = StepLoader(samples(12), 3)
        epochs = (batch for _ in range(2) for batch in loader)
        for _ in range(done):
            next(epochs)
        resumed = StepLoader(samples(12), 3)
        resumed.load_state_dict(loader.state_dict())
        assert stream(resumed)[: 8 - done] == whole[done:]

    def test_the_transform_draws_from_seed_epoch_and_image(self) -> None:
        def transform(sample: dict, *, generator: torch.Generator) -> dict:
            return {**sample, "image": torch.rand(3, 4, 4, generator=generator)}

        def drawn(workers: int) -> dict[int, float]:
            loader = StepLoader(samples(6), 2, transform=transform, workers=workers)
            return {
                int(target[0, 0]): float(image[0, 0, 0])
                for _ in range(1)
                for batch in loader
                for image, target in zip(batch["image"], batch["target"], strict=True)
            }

        assert len(set(drawn(0).values())) == 6
        assert drawn(0) == drawn(2)

    def test_pads_images_of_different_sizes_with_ignored_pixels(self) -> None:
        tall = {"image": torch.ones(3, 8, 4), "target": torch.ones(8, 4).long(), "kind": "labels"}
        batch = next(iter(StepLoader([*samples(1), tall], 2)))
        assert batch["target"].shape == (2, 8, 4)
        assert int((batch["target"] == 255).sum()) == 16

    def test_says_when_there_are_too_few_images(self) -> None:
        with pytest.raises(ValueError, match=r"dataset has 3 images.*needs 5"):
            len(StepLoader(samples(3), 5))


def scenes(kind: str, count: int = 8) -> list[dict[str, Any]]:
    """A bright rectangle on dark ground, and a target that its brightness gives away."""
    generator = torch.Generator().manual_seed(0)
    result = []
    for _ in range(count):
        top, left = torch.randint(2, 14, (2,), generator=generator).tolist()
        mask = torch.zeros(32, 32, dtype=torch.int64)
        mask[top : top + 16, left : left + 16] = 1
        image = 0.2 + 0.6 * mask + 0.05 * torch.randn(3, 32, 32, generator=generator)
        front, right = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.6, 0.0, 0.8])
        target = {
            "labels": mask,
            "edges": mask,
            "normals": torch.where(mask[None] == 1, right[:, None, None], front[:, None, None]),
            "depth": 1.0 + 2.0 * mask,
        }[kind]
        result.append({"image": image, "target": target, "kind": kind})
    return result


def network(task: Task) -> PixelNet:
    torch.manual_seed(0)
    backbone = VGG16(("conv1_2", "conv2_2"), batch_norm=True, width=1 / 16)
    head = PixelMLP(backbone.channels, (16,), out_features=task.out_features, init="kaiming")
    return PixelNet(backbone, head, output=task.output)


def module(task: Task, seed: int = 0, lr: float = 0.05) -> PixelNetModule:
    return PixelNetModule(network(task), task, recipe=Recipe(lr=lr), seed=seed)


TASKS: dict[str, Task] = {
    "labels": Segmentation(2, UniformSampler(64)),
    "edges": Edges(BiasedSampler(64)),
    "normals": Normals(UniformSampler(64)),
    "depth": Depth(UniformSampler(64)),
}


class TestTraining:
    @pytest.mark.parametrize("kind", list(TASKS))
    def test_each_task_learns_and_validates(self, kind: str, tmp_path: Path) -> None:
        task = TASKS[kind]
        losses = Losses()
        loader = StepLoader(scenes(kind), 2, seed=0)
        run = module(task)
        trainer = fit(
            run, loader, StepLoader(scenes(kind), 2), folder=tmp_path, steps=40,
            callbacks=[losses], **QUIET,
        )  # fmt: skip
        assert len(losses.values) == 40
        first, last = sum(losses.values[:4]) / 4, sum(losses.values[-4:]) / 4
        assert last < 0.6 * first, (first, last)
        assert f"val/{task.monitor}" in trainer.callback_metrics
        shown = {name for name in trainer.progress_bar_metrics if name.startswith("val/")}
        assert shown == {f"val/{task.monitor}"}
        prediction = run(scenes(kind)[0]["image"][None])
        assert prediction.shape == (1, task.out_features, 32, 32)

    def test_the_schedule_reaches_the_optimiser(self, tmp_path: Path) -> None:
        losses = Losses()
        loader = StepLoader(scenes("labels"), 2)
        fit(module(TASKS["labels"], lr=0.01), loader, folder=tmp_path, steps=12,
            callbacks=[losses], **QUIET)  # fmt: skip
        # Milestones at 80/96 and 88/96 of 12 steps: 10 and 11. The rate is read after the step.
        assert losses.rates == pytest.approx([0.01] * 9 + [1e-3, 1e-4, 1e-4])

    def test_accumulated_gradients_see_different_pixels(self) -> None:
        seeds = {derived_seed(0, 0, 3, batch) for batch in range(4)}
        assert len(seeds) == 4

    def test_bfloat16_and_nchw_train(self, tmp_path: Path) -> None:
        task = TASKS["labels"]
        run = PixelNetModule(network(task), task, recipe=Recipe(lr=0.05), channels_last=False)
        losses = Losses()
        fit(run, StepLoader(scenes("labels"), 2), folder=tmp_path, steps=10,
            callbacks=[losses], precision="bf16-mixed", **QUIET)  # fmt: skip
        assert losses.values[-1] < losses.values[0]

    def test_the_outputs_of_model_and_task_must_agree(self) -> None:
        with pytest.raises(ValueError, match=r"model.output='softmax'.*Edges needs 'sigmoid'"):
            PixelNetModule(network(TASKS["labels"]), TASKS["edges"])


class TestResume:
    def run(self, folder: Path, steps: int = 24, seed: int = 0, **options: Any) -> PixelNetModule:
        """Three mini-batches an epoch, a checkpoint every fifth step: most lie in mid-epoch."""
        run = module(TASKS["labels"], seed)
        loader = StepLoader(scenes("labels", 6), 2, seed=seed)
        fit(run, loader, folder=folder, steps=steps, checkpoint_every=5, **options, **QUIET)
        return run

    def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(
        self, tmp_path: Path
    ) -> None:
        checkpoint = tmp_path / "killed" / "last.ckpt"
        program = (
            "import sys, pathlib; from tests.test_training import TestResume, Pause;"
            "TestResume().run(pathlib.Path(sys.argv[1]), callbacks=[Pause(at=13)])"
        )
        victim = subprocess.Popen(
            [sys.executable, "-c", program, str(checkpoint.parent)],
            cwd=Path(__file__).resolve().parent.parent,
            stdout=subprocess.DEVNULL,
        )
        try:
            paused = checkpoint.parent / "paused"
            deadline = time.monotonic() + 60
            while not paused.exists():
                assert victim.poll() is None, "the run ended before it could be killed"
                assert time.monotonic() < deadline
                time.sleep(0.05)
        finally:
            os.kill(victim.pid, signal.SIGKILL)
            victim.wait()
        # 13 steps were done, and the last checkpoint lies less than an interval back.
        assert torch.load(checkpoint, weights_only=False)["global_step"] == 10
        losses = Losses()
        resumed = self.run(checkpoint.parent, resume=True, callbacks=[losses])
        assert len(losses.values) == 14
        whole = self.run(tmp_path / "whole")
        for (name, value), expected in zip(
            resumed.state_dict().items(), whole.state_dict().values(), strict=True
        ):
            assert torch.equal(value, expected), name

    def test_seeds_decide(self, tmp_path: Path) -> None:
        weights = [
            self.run(tmp_path / str(i), steps=6, seed=seed).model.head.first.weight
            for i, seed in enumerate((0, 0, 1))
        ]
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2])

    def test_does_not_overwrite_an_earlier_run(self, tmp_path: Path) -> None:
        self.run(tmp_path, steps=2)
        with pytest.raises(FileExistsError, match=r"last\.ckpt.*resume=True"):
            self.run(tmp_path, steps=2)


class TestPixelEdgeMetrics:
    def test_counts_pixels_that_are_not_ignored(self) -> None:
        metric = PixelEdgeMetrics()
        target = torch.tensor([[[1, 1, 0, 0, 255]]])
        metric.update(torch.tensor([[[[0.905, 0.305, 0.605, 0.105, 0.99]]]]), target)
        result = metric.compute()
        # In order of probability: hit, miss, hit, miss. AP = 1/2 * 1 + 1/2 * 2/3; F = 4/5 with 3.
        assert float(result["average_precision"]) == pytest.approx(5 / 6)
        assert float(result["best_f"]) == pytest.approx(0.8)


class Losses(Callback):
    """The loss and the weights' learning rate after each step."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.rates: list[float] = []

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.values.append(float(outputs["loss"]))
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


class Pause(Callback):
    """Say so after a step, then wait to be killed."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.at:
            Path(trainer.checkpoint_callback.dirpath, "paused").touch()
            time.sleep(120)
