"""Device profiles: rates as data, on disk, measured, and when they may be used."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import pixelnet_triton
from pixelnet_triton import Plan, calibration
from pixelnet_triton.calibration import Probe, fit
from pixelnet_triton.call import Options
from pixelnet_triton.call.profile import PER_THREAD, DeviceProfile
from pixelnet_triton.call.shape import CallShape, LayerShape
from pixelnet_triton.op import backend_named, forget_calls
from pixelnet_triton.op.prepare import prepare
from pixelnet_triton.planner.profiles import SHIPPED, derived_profile
from pixelnet_triton.planner.store import (
    NOMINAL_THREADS,
    load_profile,
    profile_for,
    profile_path,
    save_profile,
)
from pixelnet_triton.tools.cache import cache_folder

from .fake_cuda import FakeCuda
from .planning import model, used_plan

CPU = torch.device("cpu")
MAPS = [torch.randn(1, 256, 4, 4)]  # 16 cells and 4096 points: projecting is far cheaper
# Whatever touches projected maps takes ages on this device: everything is gathered.
GATHERING = replace(SHIPPED["cpu"], name="a device that gathers", projected_reads=1.0, collects=1.0)


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    monkeypatch.setenv("PIXELNET_TRITON_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PIXELNET_TRITON_PROFILE", raising=False)
    forget_calls()
    yield tmp_path / "cache"
    forget_calls()


def chosen() -> list[str]:
    return list(used_plan("auto", MAPS, 4096, 256).layers)


def test_a_profile_survives_the_disk(folder: Path) -> None:
    for profile in SHIPPED.values():
        save_profile(profile, folder / "profile.json")
        assert load_profile(folder / "profile.json") == profile
    assert [path.name for path in folder.iterdir()] == ["profile.json"]


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    assert cache_folder() == folder
    monkeypatch.delenv("PIXELNET_TRITON_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/where")
    assert cache_folder() == Path("/some/where/pixelnet_triton")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "pixelnet_triton"

    monkeypatch.setenv("PIXELNET_TRITON_CACHE", "~/elsewhere")
    assert cache_folder() == Path.home() / "elsewhere"


def test_without_a_home_folder_calls_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a user id that a container made up: HOME unset, and no entry in /etc/passwd."""
    monkeypatch.delenv("PIXELNET_TRITON_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def nowhere(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", nowhere)
    with pytest.raises(OSError, match=r"no folder .*Set PIXELNET_TRITON_CACHE to one"):
        cache_folder()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert profile_for(CPU) == SHIPPED["cpu"].with_threads(torch.get_num_threads())
    monkeypatch.setattr(calibration, "measure", lambda *_: pytest.fail("reported too late"))
    with pytest.raises(OSError, match="Set PIXELNET_TRITON_CACHE"):
        pixelnet_triton.calibrate("cpu", verbose=False)


def test_a_failed_write_leaves_the_old_profile(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    save_profile(SHIPPED["cpu"], folder / "profile.json")

    def half(values: Any, file: Any, **options: Any) -> None:
        file.write('{"name"')
        raise OSError("the disk is full")

    monkeypatch.setattr(json, "dump", half)
    with pytest.raises(OSError, match="the disk is full"):
        save_profile(GATHERING, folder / "profile.json")
    assert load_profile(folder / "profile.json") == SHIPPED["cpu"]
    assert [path.name for path in folder.iterdir()] == ["profile.json"]


def test_a_calibrated_profile_is_used() -> None:
    assert chosen() == ["project"]
    save_profile(GATHERING, profile_path(CPU))
    forget_calls()
    assert profile_for(CPU) == GATHERING
    assert chosen() == ["gather"]


def good() -> dict[str, Any]:
    return SHIPPED["cpu"].as_dict()


@pytest.mark.parametrize(
    "text",
    [
        "",
        json.dumps(good())[:100],
        "[1, 2]",
        json.dumps({"name": "x"}),
        json.dumps({**good(), "map_reads": -1}),
        json.dumps({**good(), "map_reads": "fast"}),
        json.dumps({**good(), "kind": "tpu"}),
        json.dumps({**good(), "capability": "9.0"}),
        json.dumps({**good(), "operator_seconds": float("nan")}),
    ],
    ids=["empty", "cut", "list", "fields", "negative", "words", "kind", "capability", "nan"],
)
def test_a_corrupt_file_is_reported_and_ignored(text: str) -> None:
    path = profile_path(CPU)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.warns(RuntimeWarning, match=r"is not a device profile.*It is ignored"):
        profile = profile_for(CPU)
    assert profile == SHIPPED["cpu"].with_threads(torch.get_num_threads())
    save_profile(GATHERING, path)  # as calibrate() does
    assert profile_for(CPU) == GATHERING


def test_the_environment_forces_a_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    save_profile(GATHERING, path)
    monkeypatch.setenv("PIXELNET_TRITON_PROFILE", str(path))
    assert profile_for(CPU, shipped_only=True) == profile_for(CPU) == GATHERING
    monkeypatch.setenv("PIXELNET_TRITON_PROFILE", str(tmp_path / "absent.json"))
    with pytest.raises(ValueError, match=r"PIXELNET_TRITON_PROFILE=.*cannot be used"):
        profile_for(CPU)


def test_a_gpu_that_is_not_there_cannot_be_measured() -> None:
    with pytest.raises(ValueError, match=r"device='cuda:99', but torch finds \d+ GPUs"):
        calibration.calibrate("cuda:99", save=False)


def test_a_forced_profile_is_for_devices_of_its_kind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Rates of a GPU would plan a CPU's calls, and name the GPU's operators."""
    path = tmp_path / "mine.json"
    monkeypatch.setenv("PIXELNET_TRITON_PROFILE", str(path))
    unforced = SHIPPED["cpu"].with_threads(torch.get_num_threads())
    save_profile(SHIPPED["H200"], path)
    assert profile_for(CPU) == unforced
    FakeCuda().install(monkeypatch)
    assert profile_for(torch.device("cuda")) == SHIPPED["H200"]
    save_profile(GATHERING, path)
    assert profile_for(torch.device("cuda")).kind == "gpu"


def test_what_was_measured_here_stays_out_of_deterministic_runs() -> None:
    save_profile(GATHERING, profile_path(CPU))
    torch.use_deterministic_algorithms(True)
    assert chosen() == ["project"]
    torch.use_deterministic_algorithms(False)
    assert chosen() == ["gather"]


def test_a_known_call_is_planned_anew_where_results_must_be_alike() -> None:
    save_profile(GATHERING, profile_path(CPU))
    points, weight = torch.rand(1, 4096, 2), torch.randn(256, 256)
    layers = []
    for alike in (False, True, False):
        torch.use_deterministic_algorithms(alike)
        call = prepare(MAPS, points, None, weight, None, Options((4, 4)))
        assert isinstance(call.plan, Plan)
        layers.append(call.plan.layers)
    assert layers == [("gather",), ("project",), ("gather",)]


def test_ranks_of_a_job_choose_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was calibrated on their machines, and however many threads they run."""
    save_profile(GATHERING, profile_path(CPU))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    assert chosen() == ["project"]
    assert profile_for(CPU, shipped_only=True) == SHIPPED["cpu"].with_threads(NOMINAL_THREADS)


def test_ranks_of_a_job_choose_alike_before_they_join(monkeypatch: pytest.MonkeyPatch) -> None:
    save_profile(GATHERING, profile_path(CPU))
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert chosen() == ["project"]


def test_threads_scale_rates_but_not_operators() -> None:
    one = SHIPPED["cpu"].with_threads(1)
    four = one.with_threads(4)
    assert all(getattr(four, name) == 4 * getattr(one, name) for name in PER_THREAD)
    assert four.operator_seconds == one.operator_seconds
    assert SHIPPED["H200"].with_threads(4) is SHIPPED["H200"]


# Calibration


def probes(profile: DeviceProfile) -> list[Probe]:
    """As calibrate() takes them, on a machine that obeys the model to the letter."""
    device = torch.device("cpu" if profile.kind == "cpu" else "cuda")
    return [
        Probe(call, plan, model(call, profile).seconds(plan))
        for call in calibration._calls(device)
        for plan in calibration._plans(call, backend_named(profile.kind))
    ]


@pytest.mark.parametrize("name", ["cpu", "H200"])
def test_the_fit_finds_what_made_the_times(name: str) -> None:
    start = SHIPPED[name]
    truth = replace(
        start,
        dense_flops_32=start.dense_flops_32 / 3,
        fused_flops_32=start.fused_flops_32 / 2,
        projected_reads=start.projected_reads * 2,
        streams=start.streams / 2,
        operator_seconds=start.operator_seconds * 2,
    )
    fitted = fit(probes(truth), backend_named(start.kind), start)
    for probe in probes(truth):
        predicted = model(probe.call, fitted).seconds(probe.plan)
        assert predicted == pytest.approx(probe.seconds, rel=0.1)
    assert fitted.dense_flops_32 == pytest.approx(truth.dense_flops_32, rel=0.1)
    assert fitted.operator_seconds == pytest.approx(truth.operator_seconds, rel=0.1)


@pytest.fixture
def few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = (LayerShape(8, 6, 6), LayerShape(8, 3, 3, channels_last=False))
    calls = [
        CallShape(layers, 1, 40, 16, 4, ragged, training, torch_coordinates=True)
        for ragged, training in ((False, True), (True, False))
    ]
    monkeypatch.setattr(calibration, "_calls", lambda device: calls)
    monkeypatch.setattr(calibration, "SECONDS_A_REPEAT", 0.001)


@pytest.mark.usefixtures("few_calls")
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_calibrate_where_no_gradients_are_wanted(mode: Any) -> None:
    with mode():
        profile = pixelnet_triton.calibrate("cpu", save=False, verbose=False)
    assert profile.source.startswith("measured on ")


@pytest.mark.usefixtures("few_calls")
def test_calibrate_measures_stores_and_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    profile = pixelnet_triton.calibrate("cpu")
    assert profile.source.startswith("measured on ")
    assert profile.threads == torch.get_num_threads()
    assert load_profile(profile_path(CPU)) == profile == profile_for(CPU)
    assert "calibrating cpu: 9 of 9" in capsys.readouterr().err
    profile_path(CPU).unlink()
    pixelnet_triton.calibrate("cpu", save=False, verbose=False)
    assert not profile_path(CPU).exists()
    assert capsys.readouterr().err == ""


# Devices nobody measured


def test_a_derived_profile_is_near_the_shipped_one() -> None:
    h200 = SimpleNamespace(
        name="NVIDIA H200",
        major=9,
        multi_processor_count=132,
        clock_rate=1_980_000,
        memory_clock_rate=3_125_000,
        memory_bus_width=6144,
    )
    derived = derived_profile(h200)
    for name in ("dense_flops_16", "fused_flops_16", "map_reads", "projected_reads", "streams"):
        ratio = getattr(derived, name) / getattr(SHIPPED["H200"], name)
        assert 0.8 < ratio < 1.25, name
    assert derived.source.startswith("model")


@pytest.mark.parametrize(("major", "expected"), [(8, False), (9, True), (10, True), (12, False)])
def test_tiles_are_loaded_where_shared_memory_holds_them(major: int, expected: bool) -> None:
    properties = SimpleNamespace(name="unknown", multi_processor_count=20, major=major, minor=3)
    capability = derived_profile(properties).capability
    assert capability == 10 * major + 3
    assert CallShape((), 1, 1, 1, capability=capability).tensor_loads == expected


def test_a_derived_profile_needs_little() -> None:
    profile = derived_profile(SimpleNamespace(name="unknown", multi_processor_count=20))
    call = CallShape((LayerShape(512, 7, 7),), 4, 8000, 256, 2)
    assert model(call, profile).cheapest().projected == [0]


def test_shipped_profiles_say_where_they_come_from() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for profile in SHIPPED.values():
            assert profile.source.startswith(("measured", "model"))
    assert Plan(("gather",)).mode in backend_named("gpu").modes
