"""What is installed is what stands in the tree, and the README's example runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

import pixelnet_triton
from pixelnet_triton import env_report

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pixelnet_triton"


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def package_folders() -> dict[str, Path]:
    """Dotted name to real folder of every folder of Python files under `pixelnet_triton/`."""
    folders: dict[str, Path] = {}
    unseen = [PACKAGE]
    while unseen:
        folder = unseen.pop()  # not resolved: the name comes from the place in the tree
        if any(folder.glob("*.py")):
            folders[".".join(folder.relative_to(ROOT).parts)] = folder.resolve()
        unseen += [child for child in folder.iterdir() if child.is_dir()]
    return folders


def test_the_packages_listed_are_the_folders_there_are(project: dict[str, Any]) -> None:
    listed = project["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(package_folders())


def test_mapped_packages_are_the_targets_of_the_symlinks(project: dict[str, Any]) -> None:
    mapped = project["tool"]["setuptools"]["package-dir"]
    elsewhere = {
        name: str(folder.relative_to(ROOT))
        for name, folder in package_folders().items()
        if not folder.is_relative_to(PACKAGE) or folder == PACKAGE
    }
    assert mapped == elsewhere
    for name in set(mapped) - {"pixelnet_triton"}:
        link = ROOT.joinpath(*name.split("."))
        assert not link.readlink().is_absolute(), f"{link} must be a relative symlink"


def test_every_folder_is_a_regular_package() -> None:
    for name, folder in package_folders().items():
        assert (folder / "__init__.py").is_file(), f"{name} has no __init__.py"


def test_the_version_stands_once_in_two_places(project: dict[str, Any]) -> None:
    assert project["project"]["version"] == pixelnet_triton.__version__


def test_constraints_pin_every_direct_requirement(project: dict[str, Any]) -> None:
    table = project["project"]
    requirements = [*table["dependencies"]]
    for extra in table["optional-dependencies"].values():
        requirements += extra
    names = {re.match(r"[\w-]+", line)[0] for line in requirements} - {table["name"]}  # type: ignore[index]
    pinned = set(re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert names <= pinned, f"not in constraints.txt: {sorted(names - pinned)}"


def test_public_names_exist_and_are_documented() -> None:
    assert list(pixelnet_triton.__all__) == sorted(pixelnet_triton.__all__)
    for name in pixelnet_triton.__all__:
        documentation = getattr(pixelnet_triton, name).__doc__ or ""
        assert len(documentation) > 40, f"{name} has no docstring"


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(wheel, sdist), built from a copy of the tree; the wheel is built from the sdist."""
    pytest.importorskip("build")
    source = tmp_path_factory.mktemp("source") / "tree"
    source.mkdir()
    for name in ("pixelnet_triton", "kernels", "reference"):
        shutil.copytree(
            ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "build", "--no-isolation", str(source)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = (source / "dist").glob("*.whl")
    (sdist,) = (source / "dist").glob("*.tar.gz")
    return wheel, sdist


def test_the_wheel_holds_every_module_and_nothing_else(distributions: tuple[Path, Path]) -> None:
    expected = {
        "/".join([*name.split("."), module.name])
        for name, folder in package_folders().items()
        for module in folder.glob("*.py")
    } | {"pixelnet_triton/py.typed"}
    names = set(zipfile.ZipFile(distributions[0]).namelist())
    metadata = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    assert names - metadata == expected
    assert any(name.endswith("licenses/LICENSE") for name in metadata)


def test_the_sdist_holds_the_sources_once(distributions: tuple[Path, Path]) -> None:
    with tarfile.open(distributions[1]) as archive:
        names = ["/".join(name.split("/")[1:]) for name in archive.getnames()]
    assert len(names) == len(set(names))
    for folder in package_folders().values():
        for module in folder.glob("*.py"):
            assert str(module.relative_to(ROOT)) in names
    assert not [name for name in names if name.startswith("pixelnet_triton/kernels")]


INSTALLED = """
import importlib.util, pkgutil, sys
import torch, pixelnet_triton, pixelnet_triton.reference
target = sys.argv[1]
assert pixelnet_triton.__file__.startswith(target), pixelnet_triton.__file__
for module in pkgutil.walk_packages(pixelnet_triton.__path__, "pixelnet_triton."):
    needs_triton = ".kernels" in module.name or module.name.startswith("pixelnet_triton.gpu.")
    if not needs_triton or importlib.util.find_spec("triton"):
        assert importlib.import_module(module.name).__file__.startswith(target), module.name
features, points = [torch.randn(2, 3, 4, 4)], torch.randint(8, (2, 5, 2))
ours = pixelnet_triton.sparse_hypercolumn(features, points, (8, 8))
theirs = pixelnet_triton.reference.sparse_hypercolumn(features, points, (8, 8))
torch.testing.assert_close(ours, theirs)
print("installed and right")
"""


def test_the_installed_wheel_works_away_from_the_tree(
    distributions: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, elsewhere = tmp_path / "target", tmp_path / "elsewhere"
    elsewhere.mkdir()
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, "--target", str(target), str(distributions[0])], check=True)
    monkeypatch.setenv("PYTHONPATH", str(target))
    result = subprocess.run(
        [sys.executable, "-c", INSTALLED, str(target)],
        cwd=elsewhere,
        capture_output=True,
        text=True,
    )
    assert result.stdout == "installed and right\n", result.stderr


WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None  # importing it now raises ModuleNotFoundError
from pixelnet_triton import env_report
env_report.main([])
"""


def test_the_environment_report_works_without_triton() -> None:
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_TRITON], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "unavailable: triton is not installed" in result.stdout


def python_blocks(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


def test_the_example_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    example = python_blocks(ROOT / "README.md")[0]
    statements = [line for line in example.splitlines() if line.strip()]
    assert len(statements) <= 12, "the example is to stay at about ten lines"
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert printed == "torch.Size([2, 2000, 832]) torch.Size([2, 2000, 1024])\n"


def test_the_network_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(python_blocks(ROOT / "README.md")[1], "README.md", "exec"), {})
    assert capsys.readouterr().out == "torch.Size([1, 11, 96, 128])\n"


def test_every_environment_variable_is_documented() -> None:
    documented = (ROOT / "docs" / "environment.md").read_text()
    folders = [*package_folders().values(), ROOT / "tests"]
    used = {
        name
        for folder in folders
        for path in folder.glob("*.py")
        for name in re.findall(r"\bPIXELNET_[A-Z]+(?:_[A-Z]+)*\b", path.read_text())
    }
    assert used, "the pattern finds nothing any more"
    for name in used:
        assert f"`{name}`" in documented, f"docs/environment.md does not explain {name}"
    assert used <= set(env_report.VARIABLES)
