"""Files that the library keeps for itself, in the user's cache folder.

PIXELNET_TRITON_CACHE   the folder, instead of $XDG_CACHE_HOME/pixelnet_triton
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

__all__ = ["cache_folder", "write_json"]


def cache_folder() -> Path:
    """Where files are kept. It need not exist.

    Raises:
        FileNotFoundError: neither variable is set, and the user has no home folder.
    """
    chosen = os.environ.get("PIXELNET_TRITON_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(chosen or Path(base, "pixelnet_triton")).expanduser()
    except RuntimeError as error:
        raise FileNotFoundError(
            f"no folder to keep files in: {error} Set PIXELNET_TRITON_CACHE to one"
        ) from error


def write_json(content: object, path: Path) -> None:
    """Write a file so that a reader sees the old one or the new one, never half of it.

    Others may read it as the user's umask says; files of `tempfile` are the user's alone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.write("\n")
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
