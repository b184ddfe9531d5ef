"""Single values that users set: whole numbers, and switches in the environment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pixelnet_triton import sparse_hypercolumn
from pixelnet_triton.op import forget_calls
from pixelnet_triton.tools.settings import switched_on, triton_interprets, whole_number


@pytest.mark.parametrize("came", [3, np.int64(3), np.uint8(3), torch.tensor(3)], ids=repr)
def test_whole_numbers_become_pythons(came: Any) -> None:
    assert whole_number("n", came) == 3
    assert type(whole_number("n", came)) is int


@pytest.mark.parametrize("came", [0, -1, True, 3.0, "3", None, np.float32(3)], ids=repr)
def test_what_is_no_such_number_is_named(came: Any) -> None:
    with pytest.raises(ValueError, match=r"n=.*; expected an integer of at least 1"):
        whole_number("n", came)


def test_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIXELNET_TRITON_STRICT", raising=False)
    assert not switched_on("PIXELNET_TRITON_STRICT")
    for value, expected in (("", False), ("0", False), ("1", True)):
        monkeypatch.setenv("PIXELNET_TRITON_STRICT", value)
        assert switched_on("PIXELNET_TRITON_STRICT") is expected
    monkeypatch.setenv("PIXELNET_TRITON_STRICT", "yes")
    with pytest.raises(ValueError, match="PIXELNET_TRITON_STRICT='yes'; use 1 or 0, or unset it"):
        switched_on("PIXELNET_TRITON_STRICT")


def test_kernels_without_a_gpu_and_without_the_interpreter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Said before Triton looks for a driver."""
    forget_calls()
    monkeypatch.setenv("PIXELNET_TRITON_BACKEND", "triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"PIXELNET_TRITON_BACKEND='triton' .*TRITON_INTERPRET=1"):
        sparse_hypercolumn([torch.zeros(1, 3, 4, 4)], torch.zeros(1, 2, 2), (4, 4))


@pytest.mark.parametrize("word", ["1", "true", "Yes", "ON", "y", "0", "", "false", "off", "2", "t"])
def test_the_interpreter_is_on_by_the_words_of_triton(
    word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    triton = pytest.importorskip("triton._C.libtriton")
    if not hasattr(triton, "getenv_bool"):
        pytest.skip("older than 3.4")
    monkeypatch.setenv("TRITON_INTERPRET", word)
    assert triton_interprets() == triton.getenv_bool("TRITON_INTERPRET", False)
