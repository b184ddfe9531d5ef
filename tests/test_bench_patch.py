"""bench/test_patch.py: steps that a patch leaves as they were."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.test_patch import STEPS, functions, prepared


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
