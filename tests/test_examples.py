"""The demo, and the experiments' bookkeeping."""

from __future__ import annotations

import dataclasses
import json
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from examples import demo, demo_training, measure
from examples.experiments.__main__ import SETS
from examples.experiments.harness import plain, read, run_all
from examples.experiments.report import markdown
from examples.experiments.tables import TABLES, configurations, with_seed
from examples.measure import METHODS, Inputs

RESULTS = Path(__file__).resolve().parent.parent / "examples" / "results"
#: Tables whose rows have three seeds. The whole benchmarks have one; what the others have, the
#: report says.
THREE_SEEDS = {*TABLES, "pretrained_table1", "pretrained_table2", "pretrained_table6"}


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

    def test_measures_one_way(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """As its docstring says: a method and a folder, without seconds."""
        maps, points = [torch.randn(1, 8, 5, 5)], torch.randint(5, (1, 4, 2))
        inputs = Inputs(maps, points, (5, 5), torch.randn(9, 8), torch.randn(9))
        torch.save(vars(inputs), tmp_path / "inputs.pt")
        monkeypatch.setattr(sys, "argv", ["measure", "sparse", str(tmp_path)])
        runpy.run_path(measure.__file__, run_name="__main__")
        assert json.loads(capsys.readouterr().out)["calls"] > 0
        rows = torch.load(tmp_path / "sparse.pt")
        torch.testing.assert_close(rows, METHODS["sparse"](inputs))

    def test_fails_where_nothing_was_learned(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.delenv("PIXELNET_DATA", raising=False)
        monkeypatch.setattr(demo_training, "PICTURE", tmp_path / "picture.png")
        lesson = demo_training.motorcycle()
        setup = dataclasses.replace(lesson.setup, lr=0.0)
        lazy = dataclasses.replace(lesson, setup=setup, steps=10)
        monkeypatch.setattr(demo_training, "motorcycle", lambda: lazy)
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
            of_tables = {json.dumps(plain(c)) for c in configurations(tables.values(), 3)}
            assert set(done) <= of_tables
            for name in THREE_SEEDS & set(tables):
                for label, row in tables[name].rows:
                    for seed in range(3):
                        wanted = json.dumps(plain(with_seed(row, seed)))
                        assert wanted in done, (name, label, seed)
