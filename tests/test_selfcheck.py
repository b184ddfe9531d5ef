"""The self-check tells passed from failed, late and empty stages, and writes it down."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from pixelnet_triton import env_report, selfcheck

from .fake_cuda import FakeCuda, unreached

PASSING = "def test_passes(): pass\n"
FAILING = "def test_fails(): assert 1 == 2\n"
SKIPPING = "import pytest\ndef test_skips(): pytest.skip('not here')\n"
DEVICE = "import os\ndef test_device(): assert os.environ['PIXELNET_TEST_DEVICE'] == 'cpu'\n"
SLOW = "import time\n" + PASSING + FAILING + "def test_slow(): time.sleep(60)\n"
TWICE = """import pytest
@pytest.fixture
def broken():
    yield
    raise OSError('when taken down')
def test_fails(broken): raise ValueError('first')
"""
LOST = """import os, pytest
@pytest.mark.parametrize('number', range(6))
def test_device(number):
    if number == 0 or 'lost' in os.environ:
        os.environ['lost'] = 'for ever, in this process'
        raise RuntimeError('CUDA error: an illegal memory access was encountered')
"""
NAME = "tests/gate/test_it.py::test_"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty checkout, in which `selfcheck` believes it stands."""
    (tmp_path / "tests" / "gate").mkdir(parents=True)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    shutil.copy(selfcheck.ROOT / "tests" / "outcomes.py", tmp_path / "tests")
    monkeypatch.setattr(selfcheck, "ROOT", tmp_path)
    monkeypatch.setattr(selfcheck, "WORKERS", 1)
    return tmp_path


def run(checkout: Path, source: str, budget: float = 100) -> selfcheck.Outcome:
    """The stage "gate" on a file of this source."""
    (checkout / "tests" / "gate" / "test_it.py").write_text(source)
    stage = next(stage for stage in selfcheck.STAGES if stage.name == "gate")
    return selfcheck.run_stage(stage, "cpu", budget)


@pytest.mark.parametrize(
    ("source", "state", "passed", "failed", "skipped"),
    [
        (PASSING + FAILING, "failed", 1, 1, 0),
        (SKIPPING, "nothing run", 0, 0, 1),
        (DEVICE + SKIPPING, "passed", 1, 0, 1),
        ("import not_there\n", "failed", 0, 1, 0),
        ("", "nothing run", 0, 0, 0),
    ],
)
def test_outcome_of_a_stage(
    checkout: Path, source: str, state: str, passed: int, failed: int, skipped: int
) -> None:
    outcome = run(checkout, source)
    assert outcome.state == state
    assert outcome.counts == {"passed": passed, "failed": failed, "skipped": skipped}
    assert len(outcome.failures) == failed
    assert not outcome.not_run


def test_the_first_error_of_a_test_is_told(checkout: Path) -> None:
    outcome = run(checkout, TWICE)
    assert outcome.failures == {f"{NAME}fails": "ValueError: first"}
    assert outcome.counts == {"passed": 0, "failed": 1, "skipped": 0}


def test_a_stage_out_of_time_tells_what_failed_and_what_did_not_run(
    checkout: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = run(checkout, SLOW, budget=selfcheck.GRACE + 12)
    assert outcome.state == "out of time"
    assert outcome.seconds < 50, "and its sleep cut short"
    assert outcome.counts == {"passed": 1, "failed": 1, "skipped": 0}
    assert list(outcome.failures) == [f"{NAME}fails"]
    assert outcome.not_run == [f"{NAME}slow"]
    assert f"FAILED {NAME}fails: assert 1 == 2" in capfd.readouterr().out


def test_a_process_that_has_lost_its_device_is_replaced(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selfcheck, "WORKERS", 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    outcome = run(checkout, LOST)
    assert outcome.counts == {"passed": 5, "failed": 1, "skipped": 0}
    assert "illegal memory access" in outcome.failures[f"{NAME}device[0]"]


def test_results_file_and_exit_status(checkout: Path) -> None:
    core = "import torch\ndef test_passes(device: torch.device = None): pass\n"
    (checkout / "tests" / "test_it.py").write_text(core)
    (checkout / "tests" / "gate" / "test_it.py").write_text(FAILING)
    output = checkout / "results.json"
    arguments = ["--device", "cpu", "--stages", "gate,tests", "--output", str(output)]
    assert selfcheck.main(arguments) == 1
    results = json.loads(output.read_text())
    gate, tests = results["stages"]
    assert gate["failures"] == {f"{NAME}fails": "assert 1 == 2"}
    assert (gate["state"], tests["state"]) == ("failed", "passed")
    assert results["environment"]["versions"]["torch"] == torch.__version__
    assert results["commit"] is None, "a folder without git has no commit"

    # A gate with nothing to do is no failure on the CPU.
    (checkout / "tests" / "gate" / "test_it.py").write_text(SKIPPING)
    assert selfcheck.main(arguments) == 0


def test_on_a_gpu_a_stage_without_its_tool_is_skipped_and_one_that_ran_nothing_fails(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeCuda().install(monkeypatch)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("PIXELNET_BENCH_RESULTS", str(checkout / "results"))
    (checkout / "tests" / "gate" / "test_it.py").write_text(SKIPPING)
    assert selfcheck.main(["--stages", "sanitize"]) == 0
    assert selfcheck.main(["--stages", "gate", "--output", str(checkout / "gate.json")]) == 1
    (path,) = (checkout / "results").glob("selfcheck-a-gpu-that-is-not-there-*.json")
    (outcome,) = json.loads(path.read_text())["stages"]
    assert outcome["reason"] == "compute-sanitizer is not on the path"


@pytest.mark.slow
def test_the_results_file_has_what_came_before_the_machine_was_taken_away(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = checkout / "results.json"
    first = selfcheck.Outcome("gate", "passed", counts={"passed": 1})

    def run_stage(stage: selfcheck.Stage, *_: object) -> selfcheck.Outcome:
        assert output.is_file(), "whether it can be written is known before anything runs"
        if stage.name == "gate":
            return first
        raise KeyboardInterrupt

    monkeypatch.setattr(selfcheck, "run_stage", run_stage)
    with pytest.raises(KeyboardInterrupt):
        selfcheck.main(["--device", "cpu", "--stages", "gate,tests", "--output", str(output)])
    assert [s["state"] for s in json.loads(output.read_text())["stages"]] == ["passed"]


def test_a_dry_run_starts_every_stage_and_comes_to_every_line_for_a_gpu(tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    status = selfcheck.main(["--dry", "--budget", "580", "--output", str(output)])
    outcomes = {stage["stage"]: stage for stage in json.loads(output.read_text())["stages"]}
    assert status == 0, outcomes
    stages = ["compile", "gate", "tests", "benchmarks", "kernels", "sweeps"]
    assert list(outcomes) == [*stages, "lines"]


def test_a_line_that_was_not_reached_is_named(tmp_path: Path) -> None:
    reached = tmp_path / "reached"
    reached.write_text("")
    missing = unreached(reached)
    assert any(line.startswith("bench/timing.py:") and "synchronize" in line for line in missing)
    file, number, _ = missing[0].split(":", 2)
    reached.write_text(f"{selfcheck.ROOT / file}:{number}\n")
    assert unreached(reached) == missing[1:]


def test_the_core_tests_are_those_with_a_device() -> None:
    files = selfcheck.core_tests()
    assert {"tests/test_sparse_hypercolumn.py", "tests/test_operators.py"} <= set(files)
    others = ("test_cpu_routes.py", "test_losses.py", "test_selfcheck.py")
    assert not {f"tests/{name}" for name in others} & set(files)


def test_an_unknown_stage_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        selfcheck.main(["--stages", "gate,benchmark"])
    assert "no benchmark; there are compile, gate" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_it_says_so() -> None:
    with pytest.raises(SystemExit, match=r"finds no GPU here.*--dry"):
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
