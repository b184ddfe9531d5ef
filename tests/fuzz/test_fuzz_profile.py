"""A device profile on disk in any state: read, or reported and ignored; planning goes on."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import example, given

from pixelnet_triton.call.profile import RATES
from pixelnet_triton.op import forget_calls
from pixelnet_triton.planner.profiles import SHIPPED
from pixelnet_triton.planner.store import profile_for, profile_path, save_profile

from ..planning import used_plan
from .examples import examples

CPU = torch.device("cpu")
GOOD = json.dumps(SHIPPED["cpu"].as_dict()).encode()
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just([])


@pytest.fixture(autouse=True, scope="module")
def profile_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file that a calibrated profile is read from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIXELNET_TRITON_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("PIXELNET_TRITON_PROFILE", raising=False)
        yield profile_path(CPU)
    forget_calls()


@st.composite
def broken_files(draw: st.DrawFn) -> bytes:
    """A profile with some bytes changed, cut off, or with other values in its fields."""
    if draw(st.booleans()):
        values: dict[str, Any] = SHIPPED["cpu"].as_dict()
        for name in draw(st.lists(st.sampled_from(sorted(values)), min_size=1, max_size=3)):
            values[name] = draw(VALUES)
        return json.dumps(values).encode()
    content = bytearray(GOOD)
    for _ in range(draw(st.integers(1, 4))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    end = draw(st.integers(0, len(content)) | st.just(len(content)))
    return bytes(content[:end])


@given(content=broken_files() | st.binary(max_size=40))
@example(content=json.dumps({**SHIPPED["cpu"].as_dict(), "name": []}).encode())
@example(content=json.dumps({**SHIPPED["cpu"].as_dict(), "threads": "all"}).encode())
@examples(quick=150, thorough=5000)
def test_any_content_is_used_or_reported(content: bytes, profile_file: Path) -> None:
    profile_file.parent.mkdir(parents=True, exist_ok=True)
    profile_file.write_bytes(content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        profile = profile_for(CPU)
    if caught:
        assert str(profile_file) in str(caught[0].message), "the file is not named"
        assert profile == SHIPPED["cpu"].with_threads(torch.get_num_threads())
    rates = [getattr(profile, name) for name in RATES]
    assert all(0 < rate < math.inf for rate in rates)
    forget_calls()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert used_plan("auto", [torch.randn(1, 8, 2, 2)], 50, 4).layers


def test_more_brackets_than_the_parser_has_room_for(profile_file: Path) -> None:
    profile_file.parent.mkdir(parents=True, exist_ok=True)
    profile_file.write_bytes(b"[" * 100_000)
    with pytest.warns(RuntimeWarning, match=r"recursion.*It is ignored"):
        profile_for(CPU)


def test_a_folder_in_the_place_of_the_file(profile_file: Path) -> None:
    profile_file.unlink(missing_ok=True)
    profile_file.mkdir(parents=True)
    try:
        with pytest.warns(RuntimeWarning, match="It is ignored"):
            profile_for(CPU)
    finally:
        profile_file.rmdir()
    save_profile(SHIPPED["cpu"], profile_file)
    assert profile_for(CPU) == SHIPPED["cpu"]
