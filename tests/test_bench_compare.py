"""Two versions of the library compared: the table, the processes, and what goes wrong in them."""

from __future__ import annotations

import ast
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench import compare
from bench.compare import KINDS, Compared, common_noise, selected, table
from bench.compare_side import side_of
from bench.own_process import Failed, in_own_process
from bench.workloads import TINY, Case

CPU = torch.device("cpu")


def compared(name: str, ratios: list[float], controls: list[float], problem: str = "") -> Compared:
    case = Case(replace(TINY, name=name), False)
    return Compared(case, [0.010] * len(ratios), ratios, controls, problem)


def test_a_case_is_slower_beyond_the_noise_of_its_control_only() -> None:
    cases = [
        compared("slow", [1.10, 1.12, 1.11], [1.01, 0.99, 1.00]),
        compared("noisy", [1.10, 1.12, 1.11], [1.15, 0.88, 1.00]),
        compared("fast", [0.80, 0.81, 0.70], [1.00, 1.01, 1.00]),
        compared("undecided", [0.90, 0.98, 1.12, 1.13], [1.00, 1.01, 1.00]),
        compared("broken", [], [], "here: ValueError"),
    ]
    rows = table(cases).splitlines()
    assert rows[1].split() == [
        *("slow-forward", "10", "ms", "1.110", "1.100-1.120", "1.000", "0.990-1.010", "SLOWER")
    ]
    assert [row.split()[-1] for row in rows[2:6]] == [
        *("0.880-1.150", "faster", "1.000-1.010", "ValueError")
    ]
    assert rows[-1].endswith("Slower beyond it: slow-forward.")


def test_noise_common_to_all_counts_for_each() -> None:
    cases = [compared(str(i), [1.0], [1.05]) for i in range(9)]
    lucky = compared("lucky", [1.04], [1.0])
    assert lucky.verdict(common_noise([*cases, lucky])) == ""
    assert lucky.verdict(0.0) == "SLOWER"


@pytest.mark.parametrize("on_cpu", [True, False])
def test_cases_are_selected_by_kind_or_first_word(on_cpu: bool) -> None:
    everything = selected(KINDS, on_cpu)
    assert len(set(map(str, everything))) == len(everything)
    assert {case.workload.family for case in everything} == set(KINDS)
    names = [str(case) for case in selected(["W1"], on_cpu)]
    assert names == [f"W1{layout}-{d}" for layout in ("", " NCHW") for d in ("forward", "training")]


def test_unknown_cases_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        compare.main(["HEAD", "--cases", "W1,W9"])
    assert "W9 unknown; there are workload, random, small, host, W1" in capsys.readouterr().err


def test_a_base_that_is_nowhere_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        compare.main([str(tmp_path / "nothing"), "--cases", "small-16"])
    assert "nothing is no commit, and no checkout" in capsys.readouterr().err


def test_base_is_unpacked_beside_and_removed() -> None:
    inside = subprocess.run(["git", "rev-parse", "HEAD"], cwd=compare.ROOT, capture_output=True)
    if inside.returncode:
        pytest.skip("not a git checkout")
    with compare.checkout("HEAD") as path:
        assert (path / "pixelnet_triton" / "kernels" / "gather.py").is_file()
    assert not path.exists()
    with pytest.raises(subprocess.CalledProcessError), compare.checkout("no-such-commit"):
        pass


def test_a_side_knows_nothing_of_the_library_but_its_public_functions() -> None:
    files = ("compare_side", "inputs", "timing", "workloads")
    for name in files:
        text = (compare.ROOT / "bench" / f"{name}.py").read_text()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.module in files
            elif isinstance(node, ast.ImportFrom) and node.module == "pixelnet_triton":
                assert [alias.name for alias in node.names] == ["sparse_hypercolumn"]
            else:
                assert not str(getattr(node, "module", "")).startswith(("pixelnet", "bench"))


def test_whole_comparison_of_the_library_with_itself(capsys: pytest.CaptureFixture[str]) -> None:
    compare.main([str(compare.ROOT), "--cases", "small-16", "--minutes", "0.01"])
    rows = capsys.readouterr().out.splitlines()
    assert "3 generations of processes" in rows[0]
    ratios = [float(row.split()[3]) for row in rows if row.startswith("small-16")]
    assert len(ratios) == 2
    assert all(0.1 < ratio < 10 for ratio in ratios)


FAKE = """
import os, torch
def sparse_hypercolumn(features, points, image_size, weight=None, **options):
    {action}
    return torch.full((1, {rows}), {value}) + 0 * sum(f.sum() for f in features) + 0 * weight.sum()
"""


def library(folder: Path, value: float = 1.0, rows: int = 4, action: str = "pass") -> Path:
    (folder / "pixelnet_triton").mkdir(parents=True)
    text = FAKE.format(value=value, rows=rows, action=action)
    (folder / "pixelnet_triton" / "__init__.py").write_text(text)
    return folder


def forward_case() -> Case:
    (case,) = [c for c in selected(["small-16"], True) if not c.training]
    return case


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": 1.01}, "the results differ: by"),
        ({"action": "raise ValueError('as it should')"}, "here: ValueError: as it should"),
        ({"action": "os._exit(3)"}, "here: the process ended"),
    ],
)
def test_what_goes_wrong_on_a_side_is_told(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    base = library(tmp_path / "base")
    here = library(tmp_path / "here", **change)  # type: ignore[arg-type]
    (comparison,) = compare.compare(base, here, [forward_case()], CPU, 0.0, least=1)
    assert message in comparison.problem
    assert comparison.ratios == []


def test_another_library_than_asked_for_is_refused(tmp_path: Path) -> None:
    process = in_own_process("base", side_of, tmp_path, CPU, str(tmp_path / "cache"))
    with pytest.raises(Failed, match="base: ImportError: imported"), process:
        pass
