"""Every number of the presets against the sentence of the paper that has it (arXiv 1609.06694)."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("lightning")

from pixelnet_triton.models import VGG16, build
from pixelnet_triton.models.presets import (
    BASELINE_LAYERS,
    CONV7_LAYERS,
    NETWORKS,
    paper_network,
)
from pixelnet_triton.sampling import BiasedSampler, UniformSampler
from pixelnet_triton.training import PixelNetModule, step_decay
from pixelnet_triton.training.presets import PRESETS

SEGMENTATION = ("segmentation-baseline", "segmentation")
EDGES = ("edges-baseline", "edges")


def rates(name: str) -> list[float]:
    """The learning rate of each epoch."""
    preset = PRESETS[name]
    factor = step_decay(preset.recipe, preset.epochs)
    return [preset.recipe.lr * factor(epoch) for epoch in range(preset.epochs)]


class TestNetworks:
    def test_maps(self) -> None:
        """Section 4: "we extract hypercolumn features from conv-{1_2, 2_2, 3_3, 4_3, 5_3}".

        Section 4.1, "Adding conv-7": "simply concatenating conv-7 significantly improves
        performance". The channels are those of the authors' nets.
        """
        assert BASELINE_LAYERS == ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3")
        assert (*BASELINE_LAYERS, "conv7") == CONV7_LAYERS
        with torch.device("meta"):
            assert sum(VGG16(BASELINE_LAYERS).channels) == 1472
            assert sum(VGG16(CONV7_LAYERS).channels) == 5568

    @pytest.mark.parametrize("name", NETWORKS)
    def test_head(self, name: str) -> None:
        """Section 4: "3 fully-connected (fc) layers of size 4,096 followed by ReLU", "the last
        layer outputs predictions for K classes"; "Gaussian initialization (sigma = 10^-3) and
        dropout". The probability of 0.5 and the last layer of normals are the authors' code.
        """
        head = NETWORKS[name].head
        assert head["hidden_features"] == [4096, 4096]
        assert head["dropout"] == 0.5
        assert head["init"] == ("normals" if name == "normals" else "gaussian")
        outputs = {"segmentation": 59, "normals": 3, "edges": 1}[name.split("-")[0]]
        assert head["out_features"] == outputs
        assert NETWORKS[name].backbone_options["normalization"] == "caffe"
        has_conv7 = "conv7" in NETWORKS[name].backbone_options["layers"]
        assert has_conv7 == (name in ("segmentation", "edges"))

    def test_initialisation(self) -> None:
        """sigma = 10^-3; for normals 5 x 10^-4 and a bias of 0.1 in the last layer."""
        small = {"width": 1 / 16, "layers": ["conv1_2"]}
        for name, last_std, last_bias in (("segmentation", 1e-3, 0.0), ("normals", 5e-4, 0.1)):
            config = NETWORKS[name]
            head = {**config.head, "hidden_features": [400, 400]}
            layers = build(
                type(config)("vgg16", {**small, "normalization": "caffe"}, head, config.output)
            ).head
            three = (layers.first, layers.rest[1], layers.rest[-1])
            for layer, std, bias in zip(
                three, (1e-3, 1e-3, last_std), (0, 0, last_bias), strict=True
            ):
                assert layer.weight.detach().std().item() == pytest.approx(std, rel=0.1)
                assert layer.bias.detach().mean().item() == pytest.approx(bias)

    def test_classes(self) -> None:
        """Section 4.1: "evaluate on the 59-class and 33-class subsets"."""
        assert NETWORKS["segmentation"].head["out_features"] == 59
        assert paper_network("softmax", 33).head["out_features"] == 33


class TestSolvers:
    @pytest.mark.parametrize("name", PRESETS)
    def test_momentum_and_decay(self, name: str) -> None:
        """Section 4: "We fix momentum 0.9 and weight decay 0.0005 throughout"."""
        recipe = PRESETS[name].recipe
        assert (recipe.momentum, recipe.weight_decay) == (0.9, 0.0005)
        assert recipe.bias_lr_multiplier == 2  # the authors' solver files

    @pytest.mark.parametrize("name", [*SEGMENTATION, "normals"])
    def test_schedule(self, name: str) -> None:
        """Section 4: "80 epochs with a fixed learning rate (10^-3), reducing the rate by 10x twice
        every 8 epochs until we reach 10^-5"; section 4.1: "after just 96 epochs".
        """
        expected = [1e-3] * 80 + [1e-4] * 8 + [1e-5] * 8
        assert rates(name) == pytest.approx(expected)

    def test_multi_scale(self) -> None:
        """Analysis-4: "fine-tune the model trained on small scales [...] with an initial learning
        rate of 10^-3 and step size of 8 epochs, and end training after 24 epochs"; "combinations of
        0.25x, 0.5x and 1x".
        """
        preset = PRESETS["segmentation-multi-scale"]
        assert rates("segmentation-multi-scale") == pytest.approx(
            [1e-3] * 8 + [1e-4] * 8 + [1e-5] * 8
        )
        assert preset.start == "segmentation"
        assert preset.network == PRESETS["segmentation"].network
        assert preset.scales == preset.test_scales == (0.25, 0.5, 1.0)

    @pytest.mark.parametrize("name", EDGES)
    def test_edge_schedule(self, name: str) -> None:
        """Section 4.3: "The initial learning rate is again set to 10^-3 [...] we reduce the
        learning rate at 15 epochs and 20 epochs (by a factor of 10) and end training at 25 epochs".
        """
        assert rates(name) == pytest.approx([1e-3] * 15 + [1e-4] * 5 + [1e-5] * 5)

    @pytest.mark.parametrize("name", PRESETS)
    def test_mini_batch(self, name: str) -> None:
        """Table 2: "baseline (2000 x 5)"; section 4.3: "batches of 5 images with a total sample
        size of 10,000 pixels".
        """
        preset = PRESETS[name]
        assert preset.images == 5
        assert preset.task.sampler.n == 2000  # type: ignore[attr-defined]
        assert preset.images * preset.task.sampler.n == 10_000  # type: ignore[attr-defined]

    def test_sampling(self) -> None:
        """Section 4.3: "uniform sampling sufficed for semantic segmentation"; Table 7 has (50%)."""
        for name in EDGES:
            sampler = PRESETS[name].task.sampler  # type: ignore[attr-defined]
            assert isinstance(sampler, BiasedSampler)
            assert sampler.positive_fraction == 0.5
        for name in (*SEGMENTATION, "normals"):
            assert isinstance(PRESETS[name].task.sampler, UniformSampler)  # type: ignore[attr-defined]

    def test_scales(self) -> None:
        """Table 3: "conv-{...} (0.25,0.5)" is the training; "test images at a single scale (0.25x
        or 0.5x its original size)". Section 4.3: "Each image is randomly resized to half its scale
        (so 0.5 and 1.0 times)". Section 4.2: "a single scale for estimating surface normal maps".
        """
        for name in SEGMENTATION:
            assert (PRESETS[name].scales, PRESETS[name].test_scales) == ((0.25, 0.5), (0.5,))
        for name in EDGES:
            assert (PRESETS[name].scales, PRESETS[name].test_scales) == ((0.5, 1.0), (1.0,))
        assert PRESETS["normals"].scales == PRESETS["normals"].test_scales == (1.0,)

    @pytest.mark.parametrize("name", PRESETS)
    def test_network_and_task_fit(self, name: str) -> None:
        preset = PRESETS[name]
        assert preset.network.output == preset.task.output
        assert preset.network.head["out_features"] == preset.task.out_features

    def test_a_preset_trains(self) -> None:
        """At a sixteenth of the width; the module takes task, recipe and network as they are."""
        preset = PRESETS["edges-baseline"]
        config = type(preset.network)(
            "vgg16",
            {**preset.network.backbone_options, "width": 1 / 16},
            {**preset.network.head, "hidden_features": [4, 4]},
            preset.network.output,
        )
        module = PixelNetModule(build(config), preset.task, recipe=preset.recipe)
        assert module.model.config == config
