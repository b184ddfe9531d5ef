"""The self-check tells passed from failed, late, empty and missing stages, and writes it down."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from pixelnet_triton import env_report, selfcheck

PASSING = "def test_passes(): pass\n"
FAILING = "def test_fails(): assert False\n"
SKIPPING = "import pytest\ndef test_skips(): pytest.skip('not here')\n"
DEVICE = "import os\ndef test_device(): assert os.environ['PIXELNET_TEST_DEVICE'] == 'cpu'\n"
SLOW = "import time\n" + PASSING + "def test_slow(): time.sleep(60)\n"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty checkout, in which `selfcheck` believes it stands."""
    monkeypatch.setattr(selfcheck, "ROOT", tmp_path)
    (tmp_path / "tests" / "gate").mkdir(parents=True)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


def stage(name: str = "gate") -> selfcheck.Stage:
    return next(stage for stage in selfcheck.STAGES if stage.name == name)


@pytest.mark.parametrize(
    ("source", "state", "counts"),
    [
        (PASSING + FAILING, "failed", {"passed": 1, "failed": 1, "skipped": 0}),
        (SKIPPING, "nothing run", {"passed": 0, "failed": 0, "skipped": 1}),
        (DEVICE + SKIPPING, "passed", {"passed": 1, "failed": 0, "skipped": 1}),
        ("import not_there\n", "failed", {"passed": 0, "failed": 1, "skipped": 0}),
        ("", "nothing run", {"passed": 0, "failed": 0, "skipped": 0}),
    ],
)
def test_outcome_of_a_stage(
    checkout: Path, source: str, state: str, counts: dict[str, int]
) -> None:
    (checkout / "tests" / "gate" / "test_it.py").write_text(source)
    outcome = selfcheck.run_stage(stage(), "cpu", budget=100)
    assert (outcome.state, outcome.counts) == (state, counts)
    assert len(outcome.failures) == counts["failed"]


def test_a_stage_that_is_not_there_is_absent(checkout: Path) -> None:
    assert selfcheck.run_stage(stage(), "cpu", budget=100).state == "absent"


def test_a_stage_is_stopped_when_its_time_is_over(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selfcheck, "_parallel_options", list)
    (checkout / "tests" / "gate" / "test_it.py").write_text(SLOW)
    outcome = selfcheck.run_stage(stage(), "cpu", budget=selfcheck.GRACE + 12)
    assert outcome.state == "out of time"
    assert outcome.seconds < 50, "and its sleep cut short"
    assert outcome.counts["passed"] == 1, "what was done in time is reported"


def test_results_file_and_exit_status(checkout: Path) -> None:
    (checkout / "tests" / "test_it.py").write_text(PASSING)
    (checkout / "tests" / "gate" / "test_it.py").write_text(FAILING)
    (checkout / "bench").mkdir()
    (checkout / "bench" / "test_speed.py").write_text(
        "def test_speed(benchmark):\n    benchmark.extra_info['bytes'] = 7\n    benchmark(int)\n"
    )
    output = checkout / "results.json"
    arguments = ["--device", "cpu", "--output", str(output)]
    assert selfcheck.main(arguments) == 1
    results = json.loads(output.read_text())
    assert [stage["state"] for stage in results["stages"]] == ["passed", "failed", "passed"]
    (figures,) = results["stages"][2]["benchmarks"]
    assert figures["median"] > 0
    assert figures["extra_info"] == {"bytes": 7}
    assert results["environment"]["versions"]["torch"] == torch.__version__
    assert results["commit"] is None, "a folder without git has no commit"

    # A gate with nothing to do, or no benchmarks at all, is no failure on the CPU.
    (checkout / "tests" / "gate" / "test_it.py").write_text(SKIPPING)
    shutil.rmtree(checkout / "bench")
    assert selfcheck.main(arguments) == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_it_says_so() -> None:
    with pytest.raises(SystemExit, match=r"finds no GPU here.*--device cpu"):
        selfcheck.main([])


def test_report_names_versions_and_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIXELNET_TRITON_STRICT", "1")
    env_report.main([])
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert lines["torch"].strip() == torch.__version__
    assert lines["python"].strip() == sys.version.split()[0]
    assert lines["PIXELNET_TRITON_STRICT"].strip() == "1"
    env_report.main(["--json"])
    assert json.loads(capsys.readouterr().out) == env_report.environment()
