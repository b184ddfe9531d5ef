"""Every measured figure in README.md and docs/ has a source: tests/figures.py says which.

A figure is a number with a unit (or a score such as 0.298) in a sentence, or a bare number below a
unit in a table. What bench.report makes is held against the results by test_bench_report.py.
"""

from __future__ import annotations

import re

import pytest

pytest.importorskip("pandas")

from bench.report import BLOCK

from .figures import ROOT, Quote, quotes

DOCUMENTS = ("README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
SCORES = ROOT / "examples/results/README.md"  # made of runs.jsonl, as test_examples.py asserts
UNITS = "us|ms|s|min|minutes|seconds|[KMGT]i?B|[GT]?FLOP/s|[GT]B/s|%|degrees"
NUMBER = r"(?<![\w.^/])\d[\d,]*(?:\.\d+)?"
# 1.84x and 3.6 times the ... are ratios; 224 x 224 and 0 times NaN are not.
FIGURE = re.compile(
    rf"{NUMBER}(?:\s*(?:{UNITS})|x|\s+times\s+(?:the|as))(?![\w/])|(?<!\d)0\.\d{{3}}\b"
)
BARE = re.compile(r"\d[\d,]*(?:\.\d+)?")


def loose(words: str) -> re.Pattern[str]:
    """The words with any white space between them."""
    return re.compile(r"\s+".join(re.escape(word) for word in words.split()))


def figures(text: str) -> list[str]:
    """All that stand in the text, its tables included."""
    return [*(match.group() for match in FIGURE.finditer(text)), *_in_tables(text)]


def _in_tables(text: str) -> list[str]:
    """Bare numbers in columns whose heading ends with a unit, or in a table headed by one."""
    found: list[str] = []
    measured: list[bool] = []
    lines = text.split("\n")
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if following.startswith("|---"):
            of_unit = [re.search(rf"(^|[ ,(])({UNITS})\)?$", cell) is not None for cell in cells]
            measured = [of_unit[0] or unit for unit in of_unit]
        elif not cells:
            measured = []
        elif measured:
            pairs = zip(cells, measured, strict=True)
            found += [cell for cell, unit in pairs if unit and BARE.fullmatch(cell)]
    return found


def without_source(document: str, text: str, known: list[Quote]) -> list[str]:
    """Figures of a document that no quote, no generated block and no report of runs has."""
    text = BLOCK.sub("", text)
    for quote in known:
        if quote.document == document:
            text = loose(quote.words).sub(lambda found: re.sub(r"\d", "-", found[0]), text)
    of_runs = set(re.findall(r"[\d.]+", SCORES.read_text(encoding="utf-8")))
    return [f for f in figures(text) if not (f.startswith("0.") and f in of_runs)]


@pytest.fixture(scope="module")
def known() -> list[Quote]:
    """Of the committed results, wherever those of a run under way go."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PIXELNET_BENCH_RESULTS", raising=False)
        return quotes()


def test_the_documents_say_what_the_sources_say(known: list[Quote]) -> None:
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS}
    assert [quote for quote in known if not loose(quote.words).search(texts[quote.document])] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_figure_has_a_source(document: str, known: list[Quote]) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    assert without_source(document, text, known) == []


@pytest.mark.parametrize(
    ("added", "found"),
    [
        ("It takes 12.5 us.", ["12.5 us"]),
        ("It is 1.84x as fast, and takes 3.5 times\nthe memory, 2,270\n  MB.", 3),
        ("Half of it, 53%, at 373 GFLOP/s and 26 GB/s.", ["53%", "373 GFLOP/s", "26 GB/s"]),
        ("A mean IU of 0.987.", ["0.987"]),
        ("| us | forward |\n|---|---|\n| W9 | 31 |\n", ["31"]),
        ("| | time, ms | D |\n|---|---|---|\n| a \\| b | 3.1 | 256 |\n", ["3.1"]),
        ("Maps of 224 x 224, 5 x 2,000 points, 0 times NaN, torch 2.13, conv3_3, fp16.", []),
    ],
)
def test_a_figure_from_nowhere_is_found(
    added: str, found: list[str] | int, known: list[Quote]
) -> None:
    """Beside all that has a source, in a document that has quotes and a generated block."""
    text = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    seen = without_source("docs/benchmarks.md", f"{text}\n\n{added}", known)
    assert (len(seen) if isinstance(found, int) else seen) == found


def test_a_quote_that_changed_is_no_source(known: list[Quote]) -> None:
    """The figure of a stale sentence is one from nowhere."""
    text = "Touching 65 MB empties"
    assert without_source("docs/benchmarks.md", text, known) == ["65 MB"]
    assert without_source("docs/benchmarks.md", text.replace("65", "64"), known) == []
    table = (ROOT / "docs/kernels.md").read_text(encoding="utf-8").replace("| 396 |", "| 395 |")
    (row,) = re.findall(r"\n\| W2 \|(.*) \| 395 \|", table)  # the whole of it is the quote
    assert without_source("docs/kernels.md", table, known) == [*re.findall(r"[\d.]+", row), "395"]
