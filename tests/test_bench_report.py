"""Figures and text come from the results files alone, and the committed ones are up to date."""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("pandas")

from bench import compare, plots, report, report_planner, results
from bench.results import duration, size
from bench.workloads import registry

BENCH = Path(results.__file__).parent
RUN = {
    "date": "2026-01-02T03:04:05+00:00",
    "device": "A Device",
    "kind": "cpu",
    "python": "3.12.0",
    "torch": "2.13.0",
    "commit": "0123456789abcdef",
}


def line(workload: object, direction: str, peer: str, seconds: float) -> results.Line:
    names = ("name", "family", "value", "scaled", "layers", "image_size", "images", "points")
    sizes = {name: getattr(workload, name) for name in (*names, "out_features", "dtype")}
    figures = {
        "case": sizes.pop("name"),
        "direction": direction,
        "peer": peer,
        "sizes": "sizes",
        "median": seconds,
        "p20": 0.9 * seconds,
        "p80": 1.1 * seconds,
        "peak_bytes": seconds * 1e9,
        "saved_bytes": seconds * 1e8,
        "flops": 1e9,
        "bytes": 1e7,
        "flops_per_second": 1e9 / seconds,
    }
    if peer == "auto":
        figures |= {"predicted": 1.2 * seconds, "profile": "a profile"}
    return {**sizes, **figures}


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a whole run of made-up results: every peer takes ten times the one before."""
    monkeypatch.setenv("PIXELNET_BENCH_RESULTS", str(tmp_path))
    results.append("roofs", RUN, {"dtype": "float32", "flops": 4e11, "bytes": 2e10})
    for workload in registry(on_cpu=True):
        for direction in ("forward", "training"):
            for factor, peer in enumerate(("auto", "grid_sample", "dense")):
                figures = line(workload, direction, peer, 1e-3 * 10**factor)
                figures["times_auto"] = 10**factor
                results.append("first_layer", RUN, figures)
            results.append("first_layer", RUN, line(workload, direction, "a peer of old", 7.0))
            wrong = {**line(workload, direction, "masked", 1), "problem": "wrong: by far"}
            results.append("first_layer", RUN, {k: v for k, v in wrong.items() if k != "median"})
    for row, memory, speed in (("sparse fc-3", 2e8, 10), ("dense fc-3", 2e9, 0.5)):
        figures = {"row": row, "mode": row.split()[0], "fc": 3, "features": 832, "side": 224}
        figures |= {"samples_per_image": 2000, "hidden": 4096, "classes": 60, "scaled": False}
        figures |= {"memory_bytes": memory, "parameters": 10**7, "updates_per_second": speed}
        figures |= {"spread": [0.9 * speed, 1.1 * speed]}
        results.append("table4", RUN, {**figures, "median": 1 / speed, "samples": 3})
    return tmp_path


def test_blocks_hold_the_measured_ratios(measured: Path) -> None:
    summary = report.summary_block()
    row = "**1 ms, 1 MB** | 10x time, 10x memory | 100x time, 100x memory"
    assert f"| W1 | forward | {row}" in summary
    assert f"| W1 | training | {row}" in summary
    assert (
        "A Device; torch 2.13.0, Python 3.12.0, commit 012345678; 2026-01-02 03:04 UTC" in summary
    )
    assert "| dense fc-3 | 10.0x | 8.4x |  | more than 20x | 20.0x | 16.4x | 24.4x |" in summary
    everything = report.results_block()
    assert "wrong" in everything
    assert "float32 400 GFLOP/s, copy 20 GB/s" in everything
    sparse, dense = "200 | 40 | 10 | 9 | 11", "2,000 | 40 | 0.5 | 0.45 | 0.55"
    assert f"| sparse fc-3 | 832 | 3 | 2,000 | {sparse} | 465 | 144 | 24.5 |" in everything
    assert f"| dense fc-3 | 832 | 3 | 50,176 | {dense} | 3,914 | 1,232 | 1.4 |" in everything


def test_kernels_of_a_pass(measured: Path) -> None:
    assert "Kernels of a pass" not in report.results_block()
    run = {**RUN, "date": "2026-01-05T03:04:05+00:00"}
    shares = [["_gather_kernel", 1.0, 3.0], ["void x<2>", 0.5, 1.21]]
    figures = {"case": "W1", "direction": "forward", "kernels": shares}
    results.append("kernels", run, figures)
    everything = report.results_block()
    assert "| W1 | forward | `_gather_kernel` | 1 | 3.0 |" in everything
    assert "| W1 | forward | `void x<2>` | 0.5 | 1.2 |" in everything


def test_a_run_that_was_cut_short_says_what_it_lacks(measured: Path) -> None:
    """It is shown where a device has no other; a complete one goes before it, though older."""
    short = {**RUN, "date": "2026-01-09T03:04:05+00:00"}
    workloads = registry(on_cpu=True)
    for device in (RUN["device"], "Another"):
        for workload in workloads[:2]:
            figures = line(workload, "training", "auto", 4e-3)
            results.append("first_layer", {**short, "device": device}, figures)
    second, _, first = report.results_block().partition("## A Device")
    assert "2026-01-02 03:04 UTC." in first
    assert "cut short" not in first
    assert "The run was cut short: W3, W4, W5 did not run." in second


@pytest.mark.parametrize(("kind", "shown"), [("cpu", True), ("cuda", False)])
def test_lines_keep_their_words(measured: Path, kind: str, shown: bool) -> None:
    """On a GPU the peer of that name was kernels that are gone."""
    run = {**RUN, "kind": kind, "date": "2026-01-03T03:04:05+00:00"}
    for workload in registry(on_cpu=True):
        for peer in ("auto", "project_gather"):
            results.append("first_layer", run, line(workload, "training", peer, 4e-3))
    assert ("every layer projected" in report.results_block()) == shown


def test_the_page_of_the_planner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXELNET_BENCH_RESULTS", str(tmp_path))
    assert report_planner.planner_block() == ""
    gathered, projected = "two_step:gather", "two_step:project"
    workload = replace(registry(on_cpu=False)[0], dtype="float32")
    small = replace(workload, name="small", family="small", layers=((8, 4, 4),), points=32)
    figures = {
        "direction": "training",
        "profile": "a profile",
        "chosen": gathered,
        "measured": {gathered: 5.0, projected: 2.0},
        "predicted": {gathered: 9.0, projected: 2.5, "auto": 3.0},
        "auto": 4.0,
        "peer": 6.0,
    }
    results.append("every_plan", RUN, {"case": "small", **asdict(small), **figures})
    old = {**RUN, "device": "Old", "date": "2025-01-02T03:04:05+00:00"}
    results.append("every_plan", old, {"case": "W1", **asdict(workload), **figures})
    latest, _, oldest = report_planner.planner_block().partition("## Old, 2025-01-02")
    row = "1 | 0 | 100.0% | 100.0% | 1.50x | 1.50x | 0 | 25% | 25% |"
    assert "## A Device, 2026-01-02\n" in latest
    assert "commit 012345678; 2026-01-02 03:04 UTC. Profile: a profile." in latest
    assert f"| training, float32 | up to 2^18 values | {row}" in latest
    assert f"| training, float32 | W1 to W5 | {row}" in oldest
    choice = "training, float32 | g | p | 4 s | 3 s | 100.0% | 1.25x | 1.50x |"
    assert f"| W1 | 1 | channels_last | {choice}" in oldest


def test_cold_calls_are_shown_where_they_were_measured(measured: Path) -> None:
    assert "### The same, warm" not in report.results_block()
    later = {**RUN, "date": "2026-01-03T03:04:05+00:00"}
    for workload in registry(on_cpu=True):
        for factor, peer in enumerate(("auto", "grid_sample")):
            figures = line(workload, "training", peer, 1e-3 * 10**factor)
            cold = {f"cold_{key}": 3 * figures[key] for key in ("median", "p20", "p80")}
            figures |= {**cold, "times_auto": 10.0**factor, "cold_times_auto": 7.0**factor}
            results.append("first_layer", later, figures)
    assert "**3 ms, 1 MB** | 7.00x time, 10x memory" in report.summary_block()
    time, _, warm = report.results_block().partition("### The same, warm")
    assert "| W1 | training | 3 ms | 30 ms |" in time
    assert "| W1 | training | 1 ms | 10 ms |" in warm


def test_a_block_is_replaced_and_nothing_else(measured: Path) -> None:
    start = "<!-- figures: summary (python -m bench.report) -->"
    end = "<!-- end of figures: summary -->"
    text = report.replaced(f"before\n{start}\nold\n{end}\nafter\n")
    assert text == f"before\n{start}\n\n{report.summary_block()}\n\n{end}\nafter\n"
    assert report.replaced(text) == text
    assert report.replaced("no markers") == "no markers"


def test_the_table_of_patches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXELNET_BENCH_RESULTS", str(tmp_path))
    times = {"before_cold_median": 3e-3, "after_cold_median": 2e-3}
    memory = {"before_peak_bytes": 5e6, "after_peak_bytes": 4e6}
    step = {"case": "detectron2", "direction": "forward", "sizes": "64 boxes", **times, **memory}
    results.append("patches", RUN | {"date": "2025-01-02T03:04"}, step | {"before_cold_median": 9})
    results.append("patches", RUN, step)
    text = report.patches_block()
    assert "| forward | 3 ms | 2 ms | 1.50x | 5 MB | 4 MB |" in text
    assert "64 boxes." in text
    assert "9 s" not in text, "of an older run"


def test_the_table_of_ensembles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXELNET_BENCH_RESULTS", str(tmp_path))
    for peer, seconds in (("one call", 2e-3), ("ten calls", 5e-3)):
        figures = {"peer": peer, "direction": "training", "sizes": "W5", "median": 1.0}
        cold = {"cold_median": seconds, "times_auto": 1.0, "cold_times_auto": seconds / 2e-3}
        results.append("first_layer", RUN, {**figures, **cold})
    assert "|  | one call | ten calls |\n" in report.ensemble_block()
    assert "| training | 2 ms | 5 ms (2.50x) |\n" in report.ensemble_block()


def test_without_results_there_is_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXELNET_BENCH_RESULTS", str(tmp_path))
    for name in report.BLOCKS:
        start, end = f"<!-- figures: {name} (python -m bench.report) -->", "<!-- end of figures: "
        assert "docs/benchmarks.md" in report.replaced(f"{start}\n{end}{name} -->")
    with pytest.raises(SystemExit):
        plots.main([])


def test_committed_figures_are_what_the_results_say() -> None:
    texts = [path.read_text(encoding="utf-8") for path in report.FILES]
    for text in texts:
        assert report.replaced(text) == text, "python -m bench.report"
    blocks = [match["name"] for match in report.BLOCK.finditer("".join(texts))]
    assert sorted(blocks) == sorted(report.BLOCKS), "each stands in one place"


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs matplotlib")
def test_plots_are_drawn_from_the_files(measured: Path) -> None:
    plots.main(["--output", str(measured)])
    names = {path.stem for path in (measured / "a-device").glob("*.png")}
    assert names == {"time", "memory", "scaling", "roofline", "table4"}


def test_units() -> None:
    assert [duration(s) for s in (2.5, 0.9999, 0.0123, 4.5e-6)] == [
        "2.5 s",
        "1 s",
        "12.3 ms",
        "4.5 us",
    ]
    assert [size(b) for b in (5e5, 1.23e7, 2e9)] == ["0.5 MB", "12.3 MB", "2 GB"]


@pytest.mark.parametrize("command", [compare, plots, report])
def test_every_command_says_what_it_does(
    command: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        command.main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: python -m {command.__name__}" in text
    assert command.__doc__.splitlines()[0] in text


def test_the_inside_of_the_library_is_known_to_one_file() -> None:
    """So that it may be rebuilt without rebuilding the benchmarks."""
    public = {"reference", "models", "inference", "sampling", "metrics", "integrations", "tools"}
    for path in BENCH.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            module = str(getattr(node, "module", "")) if isinstance(node, ast.ImportFrom) else ""
            if module.startswith("pixelnet_triton.") and path.stem != "planning":
                assert module.split(".")[1] in public, f"{path.name}: {module}"
