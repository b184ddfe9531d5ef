"""bench/test_patch.py: steps that a patch leaves as they were, and tables made of results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.report_extra import ensemble_block, patches_block
from bench.test_patch import STEPS, functions, prepared

RUN = {"device": "a CPU", "date": "2026-11-27T12:00:00", "torch": "2.13.0"}


@pytest.mark.parametrize("training", [False, True], ids=["forward", "training"])
@pytest.mark.parametrize("name", STEPS)
def test_a_step_gives_the_same_before_and_after(name: str, training: bool) -> None:
    with torch.set_grad_enabled(training):
        calls, text = prepared(name, torch.device("cpu"), training, smaller=8)
        results = calls["after"]()
    assert len(results) == {"transformers": 3, "detectron2": 1}[name] + 2 * training
    assert "2 " in text


def test_a_step_is_refused_where_results_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(name: str) -> Any:
        before, after = functions(name)
        return before, [lambda *a, **k: 1.001 * after[0](*a, **k), after[1]]

    monkeypatch.setattr("bench.test_patch.functions", wrong)
    with pytest.raises(AssertionError, match="relative error"):
        prepared("detectron2", torch.device("cpu"), False, smaller=8)


def test_functions_are_those_of_the_patch() -> None:
    before, after = functions("detectron2")
    assert [f.__wrapped__ for f in after] == before  # type: ignore[attr-defined]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIXELNET_BENCH_RESULTS", str(tmp_path))
    return tmp_path


def test_the_table_of_patches(results: Path) -> None:
    assert "pytest bench/test_patch.py" in patches_block()
    times = {"before_cold_median": 3e-3, "after_cold_median": 2e-3}
    memory = {"before_peak_bytes": 5e6, "after_peak_bytes": 4e6}
    line = {"case": "detectron2", "direction": "forward", "sizes": "64 boxes", **times, **memory}
    older = {**line, "date": "2026-11-01T12:00:00", "before_cold_median": 9.0}
    lines = [json.dumps({**RUN, **some}) for some in (older, line)]
    (results / "patches.jsonl").write_text("\n".join(lines))
    text = patches_block()
    assert "| forward | 3 ms | 2 ms (1.50x as fast) | 5 MB | 4 MB |" in text
    assert "64 boxes" in text
    assert "9 s" not in text, "of an older run"


def test_the_table_of_ensembles(results: Path) -> None:
    assert "pytest bench/test_ensemble.py" in ensemble_block()
    base = {**RUN, "direction": "training", "sizes": "W5", "cold_median_of_one_call": 2e-3}
    lines = [
        {**base, "peer": "one call", "cold_median": 2e-3},
        {**base, "peer": "ten calls", "cold_median": 5e-3},
    ]
    (results / "ensemble.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert "| training | 2 ms | 5 ms (2.50x) |  |" in ensemble_block()
