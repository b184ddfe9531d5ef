"""The self-check tells passed from failed, late and empty stages, and writes it down."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pixelnet_triton import env_report, selfcheck
from pixelnet_triton.selfcheck_outcomes import read_outcomes

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


def test_results_file_and_exit_status(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(checkout / "compiled"))
    monkeypatch.setenv("PIXELNET_TRITON_DIRECT", "1")
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
    variables = results["environment"]["variables"]
    assert variables["PIXELNET_TRITON_DIRECT"] == "1"
    assert "TRITON_CACHE_DIR" not in variables, "folders of this machine are nobody else's matter"
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


INTERRUPTED = """
import pathlib, sys
from pixelnet_triton import selfcheck
selfcheck.ROOT, selfcheck.WORKERS = pathlib.Path(sys.argv[1]), int(sys.argv[2])
selfcheck.main(["--device", "cpu", "--stages", "gate,tests", "--output", sys.argv[3]])
"""
WAITING = """import os, pathlib, time
def test_begins(): pass
def test_waits():
    pathlib.Path('pid.part').write_text(f'{os.getpid()} {os.getppid()}')
    os.replace('pid.part', 'pid')
    time.sleep(100)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_signal_ends_all_processes_and_what_came_so_far_is_written(
    checkout: Path, name: str, workers: int
) -> None:
    (checkout / "tests" / "gate" / "test_it.py").write_text(WAITING)
    output, pids = checkout / "results.json", checkout / "pid"
    command = [sys.executable, "-c", INTERRUPTED, str(checkout), str(workers), str(output)]
    root = Path(__file__).resolve().parent.parent
    process = subprocess.Popen(
        command,
        cwd=root,
        # A shell starts what it puts into the background with interrupts ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            if pids.is_file() or process.poll() is not None:
                break
            time.sleep(0.1)
        process.send_signal(signal.Signals[name])
        assert process.wait(timeout=60) is not None
        started = [int(pid) for pid in pids.read_text().split()]
        assert process.pid not in started[:1]
        time.sleep(0.5)
        assert not any(is_running(pid) for pid in started if pid != process.pid)
    finally:
        process.kill()
        process.wait()
    (stage,) = json.loads(output.read_text())["stages"]
    assert stage["state"] == "interrupted"
    assert stage["counts"] == {"passed": 1, "failed": 0, "skipped": 0}
    assert stage["not_run"] == [f"{NAME}waits"]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_last_line_that_was_cut_off_does_not_count(tmp_path: Path) -> None:
    log = tmp_path / "outcomes.jsonl"
    lines = [{"planned": ["a", "b"]}, {"test": "a", "outcome": "passed", "message": ""}]
    log.write_text("\n".join(map(json.dumps, lines)) + '\n{"test": "b", "outc')
    outcome = read_outcomes("gate", log)
    assert outcome.counts == {"passed": 1, "failed": 0, "skipped": 0}
    assert outcome.not_run == ["b"]


def test_a_file_that_cannot_be_imported_leaves_the_others_to_run(checkout: Path) -> None:
    (checkout / "tests" / "gate" / "test_broken.py").write_text("import not_there\n")
    outcome = run(checkout, PASSING)
    assert outcome.state == "failed"
    assert outcome.counts == {"passed": 1, "failed": 1, "skipped": 0}


def imported(path: Path, seen: set[Path]) -> set[str]:
    """The packages that a file of tests/ or bench/ imports at its top, with its own modules'."""
    if path in seen:
        return set()
    seen.add(path)
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names = [(alias.name, path) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = path.parents[node.level - 1] if node.level else selfcheck.ROOT
            name = node.module or ""
            inside = base / name.replace(".", "/")
            deeper = [inside / f"{alias.name}.py" for alias in node.names]
            own = [file for file in (inside.with_suffix(".py"), *deeper) if file.is_file()]
            if node.level or name.split(".")[0] in ("tests", "bench"):
                for file in own:
                    found |= imported(file, seen)
                continue
            names = [(name, path)]
        else:
            continue
        found |= {name.split(".")[0] for name, _ in names}
    return found


def test_nothing_is_imported_that_is_not_asked_for_at_the_start() -> None:
    """One package that is not there stopped all tests, on a GPU that was paid for."""
    root, seen = selfcheck.ROOT, set[Path]()
    files = [root / name for name in selfcheck.core_tests()]
    files += [root / "tests" / "conftest.py", root / "bench" / "conftest.py"]
    files += [*(root / "tests" / "gate").glob("*.py"), *(root / "bench").glob("test_*.py")]
    files += [root / "tests" / f"{plugin}.py" for plugin in ("outcomes", "compile_only")]
    found = set().union(*(imported(path, seen) for path in files))
    brought = {"torch", "numpy", "pixelnet_triton", "bench", "tests"}  # with the library
    assert root / "bench" / "measure.py" in seen, "imports are followed"
    assert found - set(sys.stdlib_module_names) - brought <= set(selfcheck.WANTED)


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
