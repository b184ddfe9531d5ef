"""Files of one JSON value a line, whose last line may have been cut off with its process."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

__all__ = ["append_json_line", "read_json_lines"]


def append_json_line(path: Path, value: object) -> None:
    """Add a value, on a line of its own also where the last one was cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        begin = b""
        if file.seek(0, 2):
            file.seek(-1, 2)
            begin = b"" if file.read(1) == b"\n" else b"\n"
        file.write(begin + json.dumps(value).encode() + b"\n")


def read_json_lines(path: Path) -> list[Any]:
    """All values, oldest first; none where there is no file. A line that was cut off is left out.

    Warns:
        RuntimeWarning: of one that others follow.
    """
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    values = []
    for number, line in enumerate(lines, 1):
        try:
            values += [json.loads(line)] if line else []
        except json.JSONDecodeError:
            if number < len(lines):
                warnings.warn(
                    f"{path}, line {number}, was cut off, and is left out",
                    RuntimeWarning,
                    stacklevel=2,
                )
    return values
