"""Files that outlive the process that writes them: lines of JSON, and JSON that is replaced."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bench import results
from pixelnet_triton.tools.cache import write_json
from pixelnet_triton.tools.json_lines import append_json_line, read_json_lines


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "lines.jsonl"
    assert read_json_lines(path) == []
    for value in ({"a": 1}, [2], "drei"):
        append_json_line(path, value)
    assert read_json_lines(path) == [{"a": 1}, [2], "drei"]


def test_a_last_line_that_was_cut_off_is_left_out_and_what_follows_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    append_json_line(path, {"a": 1})
    with path.open("a") as file:
        file.write('{"a": 2, "b"')
    assert read_json_lines(path) == [{"a": 1}]
    append_json_line(path, {"a": 3})
    with pytest.warns(RuntimeWarning, match=r"lines.jsonl, line 2, was cut off"):
        assert read_json_lines(path) == [{"a": 1}, {"a": 3}]


def test_a_last_line_without_an_end_counts_if_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}')
    assert read_json_lines(path) == [{"a": 1}, {"a": 2}]
    append_json_line(path, {"a": 3})
    assert read_json_lines(path) == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_results_survive_a_line_that_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIXELNET_BENCH_RESULTS", str(tmp_path))
    results.append("roofs", {"run": 1}, {"flops": 2})
    with (tmp_path / "roofs.jsonl").open("a") as file:
        file.write('{"run": 1, "fl')
    assert results.read("roofs") == [{"run": 1, "flops": 2}]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_file_is_read_by_whom_the_user_lets(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "content.json"
    program = f"import os; os.umask({umask}); from pathlib import Path; "
    program += "from pixelnet_triton.tools.cache import write_json; "
    program += f"write_json([1], Path({str(path)!r}))"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    assert json.loads(path.read_text()) == [1]
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_a_file_that_cannot_be_written_is_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "content.json"
    write_json([1], path)
    with pytest.raises(TypeError):
        write_json(object(), path)
    assert json.loads(path.read_text()) == [1]
    assert os.listdir(tmp_path) == ["content.json"]
