"""The training examples: presets, the experiments' bookkeeping, and one tiny run of each script."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from examples import (
    demo,
    demo_training,
    train_depth,
    train_edges,
    train_normals,
    train_segmentation,
)
from examples.experiments.__main__ import SETS
from examples.experiments.harness import plain, read, run_all
from examples.experiments.report import markdown
from examples.experiments.tables import configurations, with_seed
from examples.measure import METHODS, Inputs
from examples.training import PAPER, SMALL, network, parser, read_setup
from pixelnet_triton.data import Sample
from pixelnet_triton.training import Segmentation

RESULTS = Path(__file__).resolve().parent.parent / "examples" / "results"
#: Whole benchmarks, and trainings that take half an hour, are run with one seed.
ONE_SEED = {
    "pretrained_camvid",
    "pretrained_bsds500",
    "pretrained_scales",
    "pretrained_scales_edges",
}
TINY = ["--small", "--accelerator", "cpu", "--width", "0.0625", "--points", "50", "--images", "2"]


class TestSetup:
    def test_the_default_is_the_papers(self) -> None:
        assert (PAPER.points, PAPER.images, PAPER.hidden) == (2000, 5, (4096, 4096))
        assert (PAPER.lr, PAPER.dropout, PAPER.init, PAPER.seed) == (1e-3, 0.5, "gaussian", 1989)

    def test_options_replace_the_presets_values(self) -> None:
        line = "--out x --small --hidden 8 4 --no-batch-norm --lr 0.5"
        setup = read_setup(parser("", data=None).parse_args(line.split()), paper=PAPER, small=SMALL)
        assert setup == dataclasses.replace(SMALL, hidden=(8, 4), batch_norm=False, lr=0.5)

    def test_a_network_is_a_function_of_its_seed(self) -> None:
        setups = [dataclasses.replace(SMALL, seed=seed) for seed in (0, 0, 1)]
        weights = [network(s, Segmentation(3)).head.first.weight for s in setups]
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2])


class TestScripts:
    @pytest.mark.parametrize("script", [train_normals, train_depth])
    def test_regression(
        self,
        script: Any,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(script, "rendered", _few_rooms)
        _call(script, [*TINY, "--steps", "2"], tmp_path, monkeypatch)
        assert (tmp_path / "last.ckpt").exists()
        metric = "within_11.25" if script is train_normals else "abs_rel"
        assert f"  {metric} " in capsys.readouterr().out

    def test_segmentation_and_its_resume(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        data = ["--data", str(_camvid(tmp_path / "camvid"))]
        _call(train_segmentation, [*TINY, *data, "--steps", "2"], tmp_path, monkeypatch)
        more = [*TINY, *data, "--steps", "3", "--resume"]
        _call(train_segmentation, more, tmp_path, monkeypatch)
        checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=False)
        assert checkpoint["global_step"] == 3
        assert capsys.readouterr().out.count("  mean_iu ") == 2

    def test_edges(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(train_edges, "VALIDATED", 1)
        data = ["--data", str(_bsds(tmp_path / "bsds500")), "--boundaries", "1", "--steps", "2"]
        _call(train_edges, [*TINY, *data], tmp_path, monkeypatch)
        assert "  ods " in capsys.readouterr().out


class TestDemo:
    def test_every_way_is_right_and_drawn(self) -> None:
        generator = torch.Generator().manual_seed(0)
        inputs = Inputs(
            [torch.randn(1, c, n, n, generator=generator) for c, n in ((3, 12), (5, 6), (4, 3))],
            torch.randint(12, (1, 40, 2), generator=generator),
            (12, 12),
            torch.randn(7, 12, generator=generator),
            torch.randn(7, generator=generator),
        )
        assert "sampled" in METHODS  # what most code does stands beside the dense ways
        assert list(METHODS) == list(demo.LABELS) == list(demo.COLOURS)
        expected = demo.float64_rows(inputs).float()
        for method in METHODS.values():
            torch.testing.assert_close(method(inputs), expected, rtol=1e-5, atol=1e-5)

    def test_fails_where_nothing_was_learned(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(demo_training, "data_folder", lambda name: None)
        monkeypatch.setattr(demo_training, "PICTURE", tmp_path / "picture.png")
        lesson = demo_training.motorcycle()
        setup = dataclasses.replace(lesson.setup, steps=10, lr=0.0)
        monkeypatch.setattr(
            demo_training, "motorcycle", lambda: dataclasses.replace(lesson, setup=setup)
        )
        assert demo_training.learn_and_test() == 1
        assert "did not learn" in capsys.readouterr().err
        assert (tmp_path / "picture.png").exists()

    def test_train_and_test_columns_do_not_overlap(self) -> None:
        lesson = demo_training.motorcycle()
        border = lesson.train[0]["image"].shape[2]
        tested = lesson.test[0]["tested"]
        assert int((tested[:, :border] > 0).sum()) == 0
        assert int((tested[:, border:] > 0).sum()) > 20000


@dataclass(frozen=True)
class Toy:
    number: int
    sizes: tuple[int, ...] = (1, 2)


def toy_run(configuration: Toy) -> dict[str, Any]:
    """The square."""
    if configuration.number < 0:
        raise ValueError("negative")
    return {"square": configuration.number**2}


class TestHarness:
    def test_runs_each_once_and_reports_failures_last(self, tmp_path: Path) -> None:
        file = tmp_path / "runs.jsonl"
        run_all([Toy(2)], toy_run, file, processes=1)
        file.write_text(file.read_text() + '{"configuration": {"numb')  # killed while writing
        with pytest.raises(RuntimeError, match=r"Toy\(number=-1.*negative"):
            run_all([Toy(-1), Toy(2), Toy(3)], toy_run, file, processes=1)
        runs = read(file)
        assert [run["metrics"]["square"] for run in runs] == [4, 9]
        assert [run["configuration"]["sizes"] for run in runs] == [[1, 2], [1, 2]]

    def test_tables_share_runs_and_cover_all_seeds(self) -> None:
        for _, _, tables in SETS:
            whole = configurations(tables.values(), 3)
            assert len(whole) == len(set(whole)) < 3 * sum(len(t.rows) for t in tables.values())
            assert {c.seed for c in whole} == {0, 1, 2}
            assert [c.seed for c in whole] == sorted(c.seed for c in whole)

    def test_the_committed_report_is_that_of_the_committed_runs(self) -> None:
        runs = [run for file, _, _ in SETS for run in read(RESULTS / file)]
        tables = [table for _, _, tables in SETS for table in tables.values()]
        assert (RESULTS / "README.md").read_text() == markdown(tables, runs)

    def test_the_committed_runs_have_three_seeds_of_every_row(self) -> None:
        for file, _, tables in SETS:
            done = [json.dumps(run["configuration"]) for run in read(RESULTS / file)]
            assert len(done) == len(set(done))
            for name, table in tables.items():
                for label, row in table.rows:
                    for seed in range(1 if name in ONE_SEED else 3):
                        wanted = json.dumps(plain(with_seed(row, seed)))
                        assert wanted in done, (name, label, seed)


def _call(script: Any, options: list[str], out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [script.__name__, "--out", str(out), *options])
    assert script.main() == 0


def _few_rooms(kind: str, *, small: bool) -> tuple[list[Sample], list[Sample]]:
    from examples.scenes import RenderedScenes

    rooms = RenderedScenes(5, kind, size=(32, 48), seed=1)
    return [rooms[i] for i in range(4)], [rooms[4]]


def _camvid(folder: Path) -> Path:
    random = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for part, suffix, top in (("images", "png", 256), ("labels", "png", 12)):
            path = folder / part / split
            path.mkdir(parents=True)
            for i in range(2):
                shape = (36, 48, 3) if part == "images" else (36, 48)
                pixels = random.integers(top, size=shape, dtype=np.uint8)
                Image.fromarray(pixels).save(path / f"{i}.{suffix}")
    return folder


def _bsds(folder: Path) -> Path:
    random = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "groundTruth" / split).mkdir(parents=True)
        pixels = random.integers(256, size=(64, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / split / "1.jpg")
        edges = np.zeros((64, 96), bool)
        edges[32] = True
        person = {"Segmentation": edges.astype(np.uint16), "Boundaries": edges}
        people = np.empty((1, 3), object)
        people[0, :] = [person] * 3
        savemat(folder / "groundTruth" / split / "1.mat", {"groundTruth": people})
    return folder
