"""The table of faults applies to this tree, and the run tells what is noticed from what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import mutate
from tests.faults import FAULTS, DoesNotApply, Fault

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault_applies_exactly_once(fault: Fault) -> None:
    patched = fault.patched(ROOT)
    assert patched != (ROOT / fault.file).read_text()
    if fault.file.endswith(".py"):
        compile(patched, fault.file, "exec")
    assert fault.tests
    for test in fault.tests:
        path, *names = test.split("::")
        text = (ROOT / path).read_text() if names else ""
        assert (ROOT / path).exists(), path
        assert all(f" {name}(" in text or f" {name}:" in text for name in names), test


def test_names_are_of_one_fault_each() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(names) == len(set(names)) >= 60
    patches = [(fault.file, fault.old, fault.new) for fault in FAULTS]
    assert len(set(patches)) == len(patches)


TREE = {
    "pytest.ini": "[pytest]\npythonpath = .\n",
    "sums.py": "def total(a, b):\n    return a + b\n\n\ndef twice(a):\n    return 2 * a\n",
    "test_sums.py": "from sums import total\n\n\ndef test_total():\n    assert total(1, 2) == 3\n",
}
TOY = {
    mutate.NOTICED: Fault("minus", "sums.py", "a + b", "a - b", ("test_sums.py",)),
    mutate.SURVIVED: Fault("thrice", "sums.py", "2 * a", "3 * a", ("test_sums.py",)),
    mutate.DOES_NOT_APPLY: Fault("twice", "sums.py", "return", "yield", ("test_sums.py",)),
    mutate.DID_NOT_RUN: Fault("broken", "sums.py", "def total", "def sum_of", ("test_sums.py",)),
}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    for name, text in TREE.items():
        (root / name).write_text(text)
    monkeypatch.setattr(mutate, "preload", lambda: None)  # this process has imported enough
    return root


def test_verdicts(tree: Path) -> None:
    """Each fault alone: what one leaves behind would change the verdict of the next."""
    outcomes = list(mutate.run_faults(list(TOY.values()), tree))
    assert [outcome.verdict for outcome in outcomes] == list(TOY)
    assert "test_sums.py::test_total" in outcomes[0].detail
    assert "sums.py" in str(outcomes[1])
    assert "2 times; expected once" in outcomes[2].detail
    assert {path.name: path.read_text() for path in tree.iterdir()} == TREE, "the tree was touched"


@pytest.mark.parametrize(("verdict", "status"), [(v, int(v != mutate.NOTICED)) for v in TOY])
def test_exit_status(
    verdict: str, status: int, tree: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(mutate, "ROOT", tree)
    monkeypatch.setattr(mutate, "FAULTS", (TOY[verdict],))
    assert mutate.main([]) == status
    assert f"1 faults: 1 {verdict}" in capsys.readouterr().out


def test_tests_that_fail_anyway_notice_nothing(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "test_sums.py").write_text("def test_total():\n    assert False\n")
    monkeypatch.setattr(mutate, "ROOT", tree)
    monkeypatch.setattr(mutate, "FAULTS", (TOY[mutate.NOTICED],))
    assert mutate.main([]) == 1
    assert "without any fault" in capsys.readouterr().err


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DoesNotApply, match=r"minus: there is no sums\.py"):
        TOY[mutate.NOTICED].patched(tmp_path)
