"""The data set that a command line means: by name, by folder, or by both."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .datasets import DATASETS, TASKS, DataSet

__all__ = ["find"]


def find(task: str, data: str | None, usual: str | None = None) -> tuple[DataSet, Path | None]:
    """The data set of a task and its folder, as the command line names them.

    Args:
        task: one of `TASKS`.
        data: ``NAME``, a data set in its usual folder below PIXELNET_DATA; ``FOLDER``, whose layout
            says which of the task's data sets it is; ``NAME=FOLDER``; None takes rendered rooms for
            normals and depth.
        usual: the name to take where the folder can be read as several.

    Raises:
        ValueError: an unknown task or name, or a folder of no data set, or of several.
        FileNotFoundError: the folder is missing; the message says what was looked for.
    """
    if task not in TASKS:
        raise ValueError(f"task={task!r} is unknown; use one of {TASKS}")
    rows = {row.name: row for row in DATASETS if row.task == task}
    if data is None:
        if "rooms" not in rows:
            raise ValueError(f"data is missing; expected one of {tuple(rows)}, or a folder")
        data = "rooms"
    name, _, folder = data.partition("=")
    if name in rows:
        return rows[name], Path(folder) if folder else _usual_folder(rows[name])
    if not Path(data).is_dir():  # which may have "=" in its name
        raise ValueError(
            f"data={data!r} is neither a folder nor a data set for {task}; expected one of "
            f"{tuple(rows)}, a folder that holds one, or NAME=FOLDER"
        )
    return _recognised(Path(data), list(rows.values()), usual), Path(data)


def _recognised(root: Path, rows: Sequence[DataSet], usual: str | None) -> DataSet:
    """The one of `rows` whose layout the folder has."""
    reasons: dict[str, str] = {}
    rows = [row for row in rows if row.folder is not None]
    fitting = [row for row in rows if _has(row, root, "test", reasons)]
    if len(fitting) > 1:  # VOC's two training sets share the test images
        fitting = [row for row in fitting if _has(row, root, row.splits[0], reasons)] or fitting
    if not fitting:
        raise FileNotFoundError(
            f"{root} has the layout of no data set for {rows[0].task}."
            f"{_hint(root, rows)}\n  "
            + "\n  ".join(f"{name}: {reason}" for name, reason in reasons.items())
        )
    # Only a folder of one's own has a list of its classes, whatever its images are called.
    fitting = [row for row in fitting if row.name == "own"] or fitting
    names = [row.name for row in fitting]
    if len(fitting) > 1 and usual not in names:
        raise ValueError(
            f"{root} can be read as {' and as '.join(names)}; say which: {names[0]}={root}"
        )
    return fitting[names.index(usual) if usual in names else 0]


def _hint(root: Path, rows: Sequence[DataSet]) -> str:
    """What a folder of images lacks to be read as one's own."""
    own = any(row.name == "own" for row in rows) and (root / "images").is_dir()
    if not own or (root / "classes.txt").exists():
        return ""
    return " For images of your own, add classes.txt: a class a line, in the order of the labels."


def _has(row: DataSet, root: Path, split: str, reasons: dict[str, str]) -> bool:
    try:
        data: Any = row.read(root, split)
    except FileNotFoundError as error:
        reasons[row.name] = str(error)
        return False
    if row.beginnings and not any(name.startswith(row.beginnings) for name in data.names):
        reasons[row.name] = (
            f"the layout fits, but no image is named {row.beginnings[0]}..., as its images are; if "
            f"these are its classes, say {row.name}={root}"
        )
        return False
    return True


def _usual_folder(row: DataSet) -> Path | None:
    if row.folder is None:
        return None
    data = os.environ.get("PIXELNET_DATA")
    if not data:
        raise FileNotFoundError(
            f"the folder of {row.name} is not known: give {row.name}=FOLDER, or set the "
            f"environment variable PIXELNET_DATA to the folder that holds {row.folder}/"
        )
    folder = Path(data) / row.folder
    if not folder.is_dir():
        raise FileNotFoundError(
            f"PIXELNET_DATA={data} has no folder {row.folder}/: give {row.name}=FOLDER"
        )
    return folder
