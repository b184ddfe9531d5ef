"""Every number of the paper's training, where it takes effect: optimiser, tasks, presets.

Sections are those of arXiv 1609.06694; "solver" is the authors' public Caffe solver.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pixelnet_triton.data import ColourScale, RandomHorizontalFlip
from pixelnet_triton.losses import balanced_sigmoid_cross_entropy, cross_entropy
from pixelnet_triton.models import VGG16, PixelMLP, PixelNet
from pixelnet_triton.recipes import PRESETS, TaskCard
from pixelnet_triton.recipes import network as network_of
from pixelnet_triton.sampling import BiasedSampler, SampledPixels, UniformSampler
from pixelnet_triton.training import (
    EDGE_RECIPE,
    Depth,
    Edges,
    Normals,
    PixelNetModule,
    Recipe,
    Segmentation,
    StepLoader,
    Task,
)

PAPER, SMALL = PRESETS["paper"], PRESETS["small"]


class OfSteps:
    """What `configure_optimizers` asks of a trainer."""

    def __init__(self, steps: int) -> None:
        self.estimated_stepping_batches = steps


def optimisers(recipe: Recipe | None = None, steps: int = 96) -> dict[str, Any]:
    """What Lightning gets; without a recipe the module's own default."""
    backbone = VGG16(("conv1_2",), batch_norm=True, width=1 / 16)
    model = PixelNet(backbone, PixelMLP(backbone.channels, (4,), out_features=2), output="softmax")
    options = {} if recipe is None else {"recipe": recipe}
    module = PixelNetModule(model, Segmentation(2), **options)
    module._trainer = OfSteps(steps)  # type: ignore[assignment]
    return dict(module.configure_optimizers())


class TestOptimiser:
    def test_is_the_papers(self) -> None:
        """Section 4: momentum 0.9, decay 0.0005, rate 1e-3; solver: biases 2x without decay."""
        optimizer = optimisers()["optimizer"]
        assert type(optimizer) is torch.optim.SGD
        numbers = {
            group["name"]: (group["lr"], group["momentum"], group["weight_decay"])
            for group in optimizer.param_groups
        }
        assert numbers == {
            "weights": (1e-3, 0.9, 5e-4),
            "biases": (2e-3, 0.9, 0.0),
            "scales": (1e-3, 0.9, 0.0),
        }
        for group in optimizer.param_groups:
            assert (group["nesterov"], group["dampening"], group["maximize"]) == (False, 0, False)

    @pytest.mark.parametrize("momentum", [0.0, 0.5, 0.99])
    def test_has_the_recipes_momentum(self, momentum: float) -> None:
        optimizer = optimisers(Recipe(momentum=momentum))["optimizer"]
        assert {group["momentum"] for group in optimizer.param_groups} == {momentum}

    def test_has_the_recipes_rates(self) -> None:
        recipe = Recipe(lr=0.03, weight_decay=0.007, bias_lr_multiplier=5.0)
        groups = {g["name"]: g for g in optimisers(recipe)["optimizer"].param_groups}
        assert groups["weights"]["lr"] == groups["scales"]["lr"] == 0.03
        assert groups["biases"]["lr"] == pytest.approx(0.15)
        assert groups["weights"]["weight_decay"] == 0.007

    @pytest.mark.parametrize(
        ("recipe", "epochs", "rates"),
        [
            (Recipe(), 96, [1e-3] * 80 + [1e-4] * 8 + [1e-5] * 8),  # section 4
            (EDGE_RECIPE, 25, [1e-3] * 15 + [1e-4] * 5 + [1e-5] * 5),  # section 4.3
        ],
        ids=["default", "edges"],
    )
    def test_decays_every_group_as_the_paper(
        self, recipe: Recipe, epochs: int, rates: list[float]
    ) -> None:
        """Ten steps an epoch; the schedule counts steps, and ends with the training."""
        config = optimisers(recipe, steps=10 * epochs)
        optimizer, schedule = config["optimizer"], config["lr_scheduler"]
        assert schedule["interval"] == "step"
        seen: dict[str, list[float]] = {group["name"]: [] for group in optimizer.param_groups}
        for _ in range(10 * epochs):
            for group in optimizer.param_groups:
                seen[group["name"]].append(group["lr"])
            optimizer.step()
            schedule["scheduler"].step()
        by_step = [rate for rate in rates for _ in range(10)]
        assert seen["weights"] == pytest.approx(by_step)
        assert seen["scales"] == pytest.approx(by_step)
        assert seen["biases"] == pytest.approx([2 * rate for rate in by_step])

    def test_edges_differ_in_the_schedule_only(self) -> None:
        default, edges = vars(Recipe()), vars(EDGE_RECIPE)
        assert {name for name in default if default[name] != edges[name]} == {"decay_at"}


class TestPreset:
    def test_is_the_papers(self) -> None:
        """Every field: a new one needs its number here."""
        assert vars(PAPER) == {
            "backbone": "vgg16",  # section 4
            "pretrained": None,  # a file that the user has
            "normalization": "torchvision",  # of its weights
            "frozen": False,  # section 4: fine-tuned
            "layers": (),  # section 4: conv-{1_2 ... 5_3}, VGG16's own
            "fixed_statistics": False,
            "width": 1.0,
            "batch_norm": False,  # section 4: fine-tuned from ImageNet, which has none
            "hidden": (4096, 4096),  # section 4: fc layers of 4,096
            "head_batch_norm": False,
            "dropout": 0.5,  # section 4: dropout; its probability from the authors' nets
            "init": "gaussian",  # section 4
            "epochs": 96,  # section 4: 80 + 8 + 8
            "steps": None,
            "lr": 1e-3,  # section 4
            "decay_at": (80 / 96, 88 / 96),  # section 4
            "points": 2000,  # section 4.1, baseline 2000 x 5
            "images": 5,  # section 4.1
            "positives": 0.5,  # Table 6, 50%
            "random_scales": (),
            "reduced": False,
            "scale": None,
            "turned": False,
            "crop": (),
            "mirror": True,  # the authors' data layer, as colours
            "colours": True,
            "backbone_lr": 1.0,  # section 4: one rate
            "schedule": "step",  # section 4
            "warmup": 0.0,
            "seed": 1989,  # solver
        }

    def test_network_has_the_papers_sizes(self) -> None:
        """Section 4: conv-{1_2, 2_2, 3_3, 4_3, 5_3}, 1,472 channels, Gaussian of 1e-3."""
        card = TaskCard("segmentation", "context59", classes=tuple(map(str, range(59))))
        with torch.device("meta"), pytest.warns(UserWarning, match="begins with random weights"):
            model = network_of(PAPER, card)
        backbone, head = model.backbone, model.head
        assert backbone.layers == ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3")
        weights = [m.weight.shape for m in (head.first, head.rest[1], head.rest[4])]
        assert [tuple(shape) for shape in weights] == [(4096, 1472), (4096, 4096), (59, 4096)]
        assert [m.p for m in head.rest if isinstance(m, torch.nn.Dropout)] == [0.5, 0.5]
        assert not backbone.batch_norm
        assert head.norm is None
        assert backbone.normalization.mean.shape == (3, 1, 1)

    def test_head_is_the_papers(self) -> None:
        """Section 4: sigma = 1e-3; biases 0 and dropout 0.5, from the authors' nets."""
        head = PixelMLP([600], (300,), out_features=200)
        for layer in (head.first, head.rest[1]):
            assert layer.weight.std().item() == pytest.approx(1e-3, rel=0.03)
            assert layer.bias.count_nonzero() == 0
        assert head.rest[0].p == 0.5

    def test_the_small_one_is_an_eighth_from_scratch(self) -> None:
        """What docs/training.md says of it."""
        assert (SMALL.width, SMALL.batch_norm, SMALL.hidden) == (1 / 8, True, (128, 128))
        assert (SMALL.init, SMALL.images, SMALL.points) == ("kaiming", 5, 500)


def test_defaults_of_the_loader_and_the_module() -> None:
    """Section 4.1, baseline: 5 images; solver: seed 1989."""
    loader = StepLoader([{}] * 5)
    assert (loader.images_per_batch, loader.seed) == (5, 1989)
    backbone = VGG16(("conv1_1",), width=1 / 16)
    model = PixelNet(backbone, PixelMLP(backbone.channels, (), out_features=1), output="sigmoid")
    assert PixelNetModule(model, Edges()).seed == 1989


def test_augmentation_is_the_authors() -> None:
    """Mirrored every other time; each colour times a factor in [0.8, 1.3]."""
    assert RandomHorizontalFlip().probability == 0.5
    assert (ColourScale().low, ColourScale().high) == (0.8, 1.3)
    pair = {"image": torch.tensor([[[0.0, 1.0]]]), "target": torch.zeros(1, 2), "kind": "depth"}
    generator = torch.Generator().manual_seed(0)
    flips = [float(RandomHorizontalFlip()(pair, generator=generator)["image"][0, 0, 0])
             for _ in range(1000)]  # fmt: skip
    assert 440 < sum(flips) < 560  # four deviations


class TestTasks:
    def test_segmentation_draws_2000_uniformly(self) -> None:
        """Section 4.1."""
        assert Segmentation(59).sampler == UniformSampler(2000)
        assert Normals().sampler == Depth().sampler == UniformSampler(2000)

    def test_half_of_the_pixels_are_edges(self) -> None:
        """Table 6, 50%: section 4.3's balanced sampling, in a batch where edges are rare."""
        assert Edges().sampler == BiasedSampler(2000, 0.5)
        assert BiasedSampler(2000).positive_fraction == 0.5
        target = (torch.rand(3, 200, 200) < 0.05).long()
        target[:, :20] = 255
        taken = Edges().sample(target, generator=None).take(target)
        assert (taken == 1).sum(1).tolist() == [1000] * 3
        assert (taken == 0).sum(1).tolist() == [1000] * 3

    @pytest.mark.parametrize("kind", ["labels", "edges", "normals", "depth"])
    def test_unknown_pixels_are_never_drawn(self, kind: str) -> None:
        """Few known pixels: one unknown pixel drawn among 400 would be seen."""
        task, target, known = self.mostly_unknown(kind)
        fills = [None] if kind in ("labels", "edges") else [None, torch.nan, torch.inf]
        for fill in fills:
            if fill is not None:
                channel = ~known[:, None] if kind == "normals" else ~known
                target = target.masked_fill(channel, fill)
            pixels = task.sample(target, generator=None)
            assert pixels.valid.all()
            x, y = pixels.points.unbind(-1)
            assert known[torch.arange(2)[:, None], y, x].all()

    @pytest.mark.parametrize("kind", ["labels", "edges", "normals", "depth"])
    def test_the_loss_is_a_mean_over_known_pixels(self, kind: str) -> None:
        """An image without any known pixel takes no part: the loss is that of the other alone."""
        task, target, _ = self.mostly_unknown(kind)
        unknown = {"labels": 255, "edges": 255, "normals": 0.0, "depth": 0.0}[kind]
        target[1] = unknown
        pixels = task.sample(target, generator=None)
        assert pixels.valid.all(1).tolist() == [True, False]
        scores = torch.randn(2, pixels.points.shape[1], task.out_features)
        alone = SampledPixels(pixels.points[:1], pixels.valid[:1], pixels.image_size)
        expected = task.loss(scores[:1], target[:1], alone)
        assert expected > 0
        torch.testing.assert_close(task.loss(scores, target, pixels), expected)

    def mostly_unknown(self, kind: str) -> tuple[Task, Tensor, Tensor]:
        known = torch.zeros(2, 60, 60, dtype=torch.bool)
        known[:, 20:30, 10:40] = True
        classes = torch.randint(0, 2, known.shape)
        values: dict[str, Callable[[], Tensor]] = {
            "labels": lambda: torch.where(known, classes, 255),
            "edges": lambda: torch.where(known, classes, 255),
            # A normal of (-x, 0, x) has the sum 0: each component has to be looked at.
            "normals": lambda: torch.stack([-1.0 * known, 0.0 * known, 1.0 * known], dim=1),
            "depth": lambda: torch.where(known, 2.5, torch.where(classes == 1, 0.0, -1.0)),
        }
        tasks: dict[str, Task] = {
            "labels": Segmentation(2, UniformSampler(200)),
            "edges": Edges(BiasedSampler(200)),
            "normals": Normals(UniformSampler(200)),
            "depth": Depth(UniformSampler(200)),
        }
        return tasks[kind], values[kind](), known

    def test_losses_are_the_papers(self) -> None:
        """Section 4: softmax cross-entropy; 4.3: both kinds have the same say, as in HED."""
        scores, target = torch.randn(1, 200, 3), torch.randint(0, 3, (1, 20, 10))
        everything = torch.cartesian_prod(torch.arange(20), torch.arange(10)).flip(1)[None]
        pixels = SampledPixels(everything, torch.ones(1, 200, dtype=torch.bool), (20, 10))
        assert torch.equal(
            Segmentation(3).loss(scores, target, pixels), cross_entropy(scores, target.flatten(1))
        )
        edges = (target == 1).long()
        assert torch.equal(
            Edges().loss(scores[..., :1], edges, pixels),
            balanced_sigmoid_cross_entropy(scores[..., :1], edges.flatten(1)),
        )
