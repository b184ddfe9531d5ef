"""What each script trains, validates and tests on, and with which numbers of the paper."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from examples import (
    boundaries,
    demo,
    demo_training,
    train_depth,
    train_edges,
    train_normals,
    train_segmentation,
)
from examples.experiments import __main__ as experiments
from examples.training import PAPER, SMALL, parser
from pixelnet_triton.data import ColourScale, RandomCrop, RandomHorizontalFlip, RandomScale, Resize
from pixelnet_triton.sampling import BiasedSampler, UniformSampler
from pixelnet_triton.training import EDGE_RECIPE, Depth, Edges, Normals, Recipe, Segmentation

SCRIPTS = {
    "segmentation": train_segmentation,
    "edges": train_edges,
    "normals": train_normals,
    "depth": train_depth,
}
PRINTING = [*SCRIPTS.values(), demo, demo_training, experiments]


class Split:
    """Stands for a data set: knows which split of it was asked for."""

    kind = "edges"

    def __init__(self, root: Any, split: str, transform: Any = None, *, cache: bool = False):
        self.root, self.split, self.transform = root, split, transform

    def __len__(self) -> int:
        return {"train": 367, "val": 101, "test": 233, "trainval": 300}[self.split]


def choices(
    name: str, monkeypatch: pytest.MonkeyPatch, *options: str, data: bool = True
) -> SimpleNamespace:
    """What the script would train with, and what it reports on, without doing either."""
    script, seen = SCRIPTS[name], SimpleNamespace(reported=[], boundaries=None)

    def train(
        arguments: Any, setup: Any, task: Any, data: Any, validation: Any, **named: Any
    ) -> str:
        seen.setup, seen.task, seen.data, seen.validation = setup, task, data, validation
        seen.transform, seen.recipe = named["transform"], named["recipe"]
        return "model"

    def evaluate(model: str, task: Any, data: Any) -> dict[str, float]:
        assert model == "model"
        seen.reported.append(data)
        return {}

    def scores(model: str, folder: Any, **named: Any) -> dict[str, float]:
        seen.boundaries = named
        return {}

    monkeypatch.setattr(script, "train", train)
    for function, stand_in in (("evaluate", evaluate), ("boundary_scores", scores)):
        if hasattr(script, function):
            monkeypatch.setattr(script, function, stand_in)
    for reader in ("CamVid", "BSDS500", "NYUNormals", "NYUDepth"):
        if hasattr(script, reader):
            classes = getattr(getattr(script, reader), "CLASSES", ())
            monkeypatch.setattr(script, reader, type(reader, (Split,), {"CLASSES": classes}))
    given = ["--data", "folder"] if data else []
    monkeypatch.setattr("sys.argv", [script.__name__, "--out", "out", *given, *options])
    assert script.main() == 0
    return seen


@pytest.mark.parametrize("small", [False, True])
def test_segmentation_trains_validates_and_reports_on_its_splits(
    small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = choices("segmentation", monkeypatch, *(["--small"] if small else []))
    assert (seen.data.split, seen.validation.split) == ("train", "val")
    assert [data.split for data in seen.reported] == ["test"]
    size = (120, 160) if small else (360, 480)
    assert seen.data.transform == seen.reported[0].transform == Resize(size)
    assert seen.task == Segmentation(11, UniformSampler(500 if small else 2000))


@pytest.mark.parametrize("name", ["normals", "depth"])
def test_regression_trains_and_reports_on_its_splits(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = choices(name, monkeypatch)
    assert seen.data.split == "train"
    assert [data.split for data in seen.reported] == ["test"]
    assert seen.data.transform == seen.reported[0].transform == Resize((224, 224))
    task = Normals if name == "normals" else Depth
    assert seen.task == task(UniformSampler(2000))


@pytest.mark.parametrize("name", ["normals", "depth"])
def test_rendered_rooms_of_the_test_are_others(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = choices(name, monkeypatch, "--small", data=False)
    (test,) = seen.reported
    assert (seen.data.kind, test.kind) == (name, name)
    assert seen.data.seed != test.seed
    assert not torch.equal(seen.data[0]["image"], test[0]["image"])


def test_edges_train_on_trainval_and_report_on_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 4.3: trainval turned and mirrored, scales 0.5 and 1, half of the pixels edges."""
    seen = choices("edges", monkeypatch)
    assert (seen.data.dataset.split, len(seen.data)) == ("trainval", 9600)
    assert seen.transform == RandomScale((0.5, 1.0))
    assert (seen.validation.dataset.split, len(seen.validation)) == ("test", 20)
    assert seen.task == Edges(BiasedSampler(2000, positive_fraction=0.5))
    assert seen.boundaries == {"scale": 1.0, "images": 200}
    few = choices("edges", monkeypatch, "--small", "--boundaries", "7")
    assert (few.data.split, few.validation.dataset.transform) == ("trainval", RandomScale((0.5,)))
    assert few.boundaries == {"scale": 0.5, "images": 7}
    assert [type(t) for t in few.transform.transforms] == [
        RandomScale, RandomCrop, RandomHorizontalFlip,
    ]  # fmt: skip
    assert choices("edges", monkeypatch, "--boundaries", "0").boundaries is None


@pytest.mark.parametrize(
    ("name", "epochs", "recipe"),
    [
        ("segmentation", 96, Recipe()),  # section 4: 80 + 8 + 8 epochs
        ("normals", 96, Recipe()),
        ("depth", 96, Recipe()),
        ("edges", 25, EDGE_RECIPE),  # section 4.3
    ],
)
def test_the_papers_epochs_and_numbers(
    name: str, epochs: int, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = choices(name, monkeypatch)
    assert seen.recipe == recipe
    steps = epochs * (len(seen.data) // 5)
    others = {"init": "normals"} if name == "normals" else {}  # the authors' nets
    assert vars(seen.setup) == {**vars(PAPER), "steps": steps, **others}
    if name != "edges":  # its images are mirrored already
        assert seen.transform.transforms == [RandomHorizontalFlip(), ColourScale()]


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_small_preset(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = choices(name, monkeypatch, "--small")
    changed = {"lr": 0.02} if name == "depth" else {}
    assert vars(seen.setup) == {**vars(SMALL), **changed}


class Blurred(nn.Module):
    """Predicts a blurred vertical line in the middle of any image."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(()))
        self.sizes: list[tuple[int, int]] = []

    def predict(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        self.sizes.append((height, width))
        x = torch.arange(width) - width // 2
        return 0.9 * torch.exp(-((x / 4.0) ** 2)).expand(len(images), 1, height, width)


class Drawn(Split):
    """Test images of 60 x 80 whose annotators drew nothing in particular."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"image": torch.rand(3, 60, 80)}

    def annotations(self, index: int) -> list[str]:
        return [f"annotators of {index}"]


class TestBoundaryScores:
    def scored(self, monkeypatch: pytest.MonkeyPatch, **options: Any) -> SimpleNamespace:
        seen = SimpleNamespace(model=Blurred())

        def evaluate(maps: Any, annotations: Any, **named: Any) -> dict[str, float]:
            seen.maps, seen.annotations, seen.named = maps, annotations, named
            return {"ods": 0.1, "ois": 0.2, "ap": 0.3, "thresholds": 9.0}

        def reader(*arguments: Any) -> Drawn:
            seen.data = Drawn(*arguments)
            return seen.data

        monkeypatch.setattr(boundaries, "BSDS500", reader)
        monkeypatch.setattr(boundaries, "evaluate_boundaries", evaluate)
        seen.scores = boundaries.boundary_scores(
            seen.model, Path("folder"), progress=False, **options
        )
        return seen

    def test_maps_are_thin_before_they_are_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Section 4.3: non-maximum suppression. One or two of nine pixels remain."""
        seen = self.scored(monkeypatch)
        blurry = seen.model.predict(torch.zeros(1, 3, 60, 80))[0, 0]
        assert (blurry[30] > 0.3).sum() == 9
        for edges in seen.maps:
            assert edges.shape == (60, 80)
            assert 1 <= (edges[30] > 0.3).sum() <= 2
            assert edges[30].argmax() == 40

    def test_test_images_and_their_own_annotators(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen = self.scored(monkeypatch, images=2, workers=1)
        assert seen.data.split == "test"
        assert seen.annotations == [["annotators of 0"], ["annotators of 1"]]
        assert len(seen.maps) == 2
        # 99 thresholds; distance and thinning are evaluate_boundaries' own defaults
        assert seen.named == {"thresholds": 99, "workers": 1, "progress": False}
        assert seen.scores == {"ods": 0.1, "ois": 0.2, "ap": 0.3}

    def test_predicts_at_the_scale_and_counts_at_full_size(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = self.scored(monkeypatch, scale=0.5, images=1)
        assert seen.model.sizes == [(30, 40)]
        assert seen.maps[0].shape == (60, 80)


class TestHelp:
    @pytest.mark.parametrize("script", PRINTING, ids=lambda module: module.__name__)
    def test_is_printed_and_nothing_else_is_done(
        self, script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("sys.argv", [script.__file__, "--help"])
        with pytest.raises(SystemExit) as ended:
            script.main()
        assert ended.value.code == 0
        printed = capsys.readouterr().out
        assert printed.startswith("usage: ")
        assert "reading the photograph" not in printed

    def test_every_option_has_help(self) -> None:
        for action in parser("", data="camvid")._actions:
            assert action.help, f"{action.option_strings} has no help"

    @pytest.mark.parametrize("script", PRINTING, ids=lambda module: module.__name__)
    def test_printed_commands_can_be_copied(self, script: Any) -> None:
        """A run of blanks inside of a line is where the end of another was lost."""
        text = re.sub(r" +#.*", "", script.__doc__)
        line = r"[^\\\n]*"  # up to its end, or to the backslash by which it goes on
        start = "    (?:make|python|torchrun) "
        commands = re.findall(rf"^{start}{line}(?:\\\n{line})*$", text, re.MULTILINE)
        assert commands
        options = {o for action in parser("", data="x")._actions for o in action.option_strings}
        options |= {"--nproc-per-node", "--boundaries"}
        for command in commands:
            assert not re.search(r"\S {2,}\S", command), command
            words = shlex.split(command.replace("\\\n", " "))
            unknown = {word for word in words if word.startswith("--")} - options
            assert not unknown or script is experiments, command
