"""The programs of docs/integration.md run, and the files it names are there."""

from __future__ import annotations

import re

import pytest

from .launch import ROOT

PAGE = (ROOT / "docs" / "integration.md").read_text()
PROGRAMS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(3))
def test_the_programs_run(number: int) -> None:
    assert len(PROGRAMS) == 3
    if "transformers" in PROGRAMS[number]:
        pytest.importorskip("transformers")
    exec(compile(PROGRAMS[number], "docs/integration.md", "exec"), {})


def test_the_examples_named_are_there() -> None:
    named = set(re.findall(r"\]\(\.\./(examples/\S+?)\)", PAGE))
    modules = {path.name for path in (ROOT / "examples" / "integrations").glob("*.py")}
    assert {name.rsplit("/", 1)[1] for name in named} == modules - {"task.py", "__init__.py"}


def test_the_headings_linked_to_are_there() -> None:
    headings = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in headings}
    linked = set(re.findall(r"\]\(#(.+?)\)", PAGE))
    assert linked
    assert linked <= anchors
