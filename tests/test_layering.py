"""The order of the folders, read off their imports: each uses only those below it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pixelnet_triton"
FOLDERS = {"kernels": ROOT / "kernels", "reference": ROOT / "reference"}

#: From bottom to top, rooms on one floor side by side; modules of the package by their names.
FLOORS = (
    {"tools", "reference"},
    {"call"},
    {"kernels"},
    {"cpu", "gpu", "planner"},
    {"op"},
    {"functional", "planning"},
    {"modules", "calibration", "explain"},
    {"losses", "sampling", "data", "env_report", "selfcheck_outcomes", "selfcheck_stages"},
    {"metrics", "inference"},
    {"models"},
    {"integrations", "training", "selfcheck"},
    {"recipes"},
    {"__init__", "__main__"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
#: What stands beside others on one floor knows nothing of them.


def modules() -> Iterator[tuple[str, Path]]:
    """(room, file) of everything that is installed."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).parts
        if parts[0] not in FOLDERS:
            yield parts[0].removesuffix(".py"), path
    for room, folder in FOLDERS.items():
        for path in sorted(folder.glob("*.py")):
            yield room, path


def imported_rooms(room: str, path: Path) -> Iterator[tuple[str, int]]:
    """The rooms that a file imports from, with the line; not what a type checker alone sees."""
    depth = 1 if path.parent == PACKAGE or room == "__init__" else 2
    tree = ast.parse(path.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or id(node) in skipped:
            continue
        if node.level == depth:
            names = [node.module] if node.module else [alias.name for alias in node.names]
        elif node.level == 0 and (node.module or "").startswith("pixelnet_triton."):
            names = [(node.module or "").split(".", 1)[1]]
        else:
            continue
        for name in names:
            yield name.split(".")[0], node.lineno


def test_every_room_has_a_floor() -> None:
    assert {room for room, _ in modules()} == set(FLOOR)


def test_each_room_uses_only_those_below_it() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} {room} -> {other}"
        for room, path in modules()
        for other, line in imported_rooms(room, path)
        if other != room and FLOOR[other] >= FLOOR[room]
    ]
    assert not wrong, "\n".join(wrong)


def test_the_search_finds_imports() -> None:
    edges = {(room, other) for room, path in modules() for other, _ in imported_rooms(room, path)}
    assert {("op", "planner"), ("cpu", "call"), ("functional", "op"), ("gpu", "kernels")} <= edges


def test_the_planner_knows_back_ends_by_their_protocol() -> None:
    planner = {
        other
        for room, path in modules()
        if room == "planner"
        for other, _ in imported_rooms(room, path)
    }
    assert planner <= {"planner", "call", "tools"}
