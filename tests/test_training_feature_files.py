"""The folder of kept features: which files it may remove, and ranks that fill it at once."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from pixelnet_triton.models import PixelNet
from pixelnet_triton.training import CachedFeatures
from tests.test_training_features import SIZE, Images, network


def other(model: PixelNet) -> PixelNet:
    with torch.no_grad():
        next(model.backbone.parameters())[0] += 1e-3
    return model


class TestFilesOfOthers:
    @pytest.mark.parametrize("name", ["model.safetensors", "2.safetensors", "000000.part"])
    def test_are_left_alone(self, name: str, tmp_path: Path) -> None:
        data, file = Images([SIZE] * 2), tmp_path / name
        file.write_bytes(b"somebody's network")
        CachedFeatures(data, network(), tmp_path)
        CachedFeatures(data, other(network()), tmp_path, overwrite=True)
        assert file.read_bytes() == b"somebody's network"

    def test_of_the_caches_names_are_replaced_on_request_alone(self, tmp_path: Path) -> None:
        data, stray = Images([SIZE] * 2), tmp_path / "000007.safetensors"
        stray.write_bytes(b"of a cache without its record")
        with pytest.raises(ValueError, match=r"000007.safetensors is there, but no origin.json"):
            CachedFeatures(data, network(), tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [stray.name]
        CachedFeatures(data, network(), tmp_path, overwrite=True)
        names = {path.name for path in tmp_path.iterdir()}
        assert names == {"origin.json", "000000.safetensors", "000001.safetensors"}


def test_two_ranks_fill_a_folder_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each writes its bytes before either puts its file in place."""
    write, both = Path.write_bytes, threading.Barrier(2, timeout=30)

    def together(path: Path, content: bytes) -> int:
        written = write(path, content)
        both.wait()
        return written

    monkeypatch.setattr(Path, "write_bytes", together)
    failures: list[BaseException] = []

    def rank() -> None:
        try:
            CachedFeatures(Images([SIZE] * 3), model, tmp_path)
        except BaseException as error:
            failures.append(error)
            both.abort()

    model: Any = network()
    ranks = [threading.Thread(target=rank) for _ in range(2)]
    for one in ranks:
        one.start()
    for one in ranks:
        one.join()
    assert not failures
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    assert len(CachedFeatures(Images([SIZE] * 3), model, tmp_path)[2]["features"]) == 3


def test_nothing_is_left_of_a_file_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> int:
        path.touch()
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space"):
        CachedFeatures(Images([SIZE]), network(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["origin.json"]
