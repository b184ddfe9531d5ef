"""The command line: help that can be followed, options that mean what they say, refusals."""

from __future__ import annotations

import argparse
import dataclasses
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples import (
    demo,
    demo_training,
    figures,
    train_depth,
    train_edges,
    train_normals,
    train_segmentation,
)
from examples.experiments import __main__ as experiments
from pixelnet_triton.recipes import DATASETS, PRESETS
from pixelnet_triton.recipes import command as module
from pixelnet_triton.recipes.command import main
from pixelnet_triton.recipes.options import command_line, setup_of

SCRIPTS = {
    "segmentation": train_segmentation,
    "edges": train_edges,
    "normals": train_normals,
    "depth": train_depth,
}
PRINTING = [*SCRIPTS.values(), demo, demo_training, figures, experiments]
ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ("train", "evaluate", "predict")


def parsers() -> dict[str, argparse.ArgumentParser]:
    (commands,) = (
        action
        for action in command_line()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return dict(commands.choices)


def options_of(*parsers: argparse.ArgumentParser) -> set[str]:
    return {option for p in parsers for action in p._actions for option in action.option_strings}


def commands_in(text: str) -> Iterator[list[str]]:
    """The words of the indented commands, each with the lines that a backslash joins to it."""
    line = r"[^\\\n]*"
    start = "(?:  |    )(?:make|python|torchrun) "
    for command in re.findall(rf"^{start}{line}(?:\\\n{line})*$", text, re.MULTILINE):
        assert not re.search(r"\S {2,}\S", command), command
        yield shlex.split(command.replace("\\\n", " "))


def setup(*words: str) -> Any:
    arguments = command_line().parse_args(["train", "--task", "depth", "--out", "x", *words])
    return setup_of(arguments, PRESETS[arguments.preset])


class TestOptions:
    def test_replace_the_presets_values(self) -> None:
        assert setup() == PRESETS["paper"]
        given = setup(*["--small", "--hidden", "8", "4", "--no-batch-norm", "--lr", "0.5"])
        changed = {"hidden": (8, 4), "batch_norm": False, "lr": 0.5}
        assert given == dataclasses.replace(PRESETS["small"], **changed)
        assert setup("--preset", "small") == PRESETS["small"]
        assert setup("--hidden").hidden == ()  # the linear predictor

    def test_epochs_win_over_a_presets_steps(self) -> None:
        assert setup("--small", "--epochs", "3").steps is None
        assert setup("--small", "--epochs", "3", "--steps", "7").steps == 7

    def test_every_field_has_one_and_every_option_has_help(self) -> None:
        fields = {"--" + f.name.replace("_", "-") for f in dataclasses.fields(PRESETS["paper"])}
        assert fields <= options_of(parsers()["train"])
        for name, parser in parsers().items():
            for action in parser._actions:
                assert action.help, f"{name} {action.option_strings} has no help"


class TestHelp:
    @pytest.mark.parametrize("words", [[], *([command] for command in COMMANDS)])
    def test_is_printed_and_nothing_else_is_done(
        self, words: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            main([*words, "--help"])
        assert ended.value.code == 0
        page = capsys.readouterr().out
        assert page.startswith(f"usage: python -m pixelnet_triton {' '.join(words)}")
        if words in ([], ["train"]):
            assert all(f"  {row.name} " in page for row in DATASETS)

    @pytest.mark.parametrize("name", ["", *COMMANDS])
    def test_its_commands_can_be_copied(self, name: str) -> None:
        parser = parsers()[name] if name else command_line()
        assert parser.description is not None
        commands = list(commands_in(parser.description))
        assert commands
        for words in commands:
            asked = words[words.index("pixelnet_triton") + 1 :]
            command_line().parse_args(asked)  # an unknown option would end the test

    @pytest.mark.parametrize("script", PRINTING, ids=lambda module: module.__name__)
    def test_of_scripts(
        self, script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("sys.argv", [script.__file__, "--help"])
        with pytest.raises(SystemExit) as ended:
            script.main()
        assert ended.value.code == 0
        printed = capsys.readouterr().out
        assert printed.startswith("usage: ")
        assert "reading the photograph" not in printed

    @pytest.mark.parametrize("script", PRINTING, ids=lambda module: module.__name__)
    def test_the_scripts_commands_can_be_copied(self, script: Any) -> None:
        commands = list(commands_in(re.sub(r" +#.*", "", script.__doc__)))
        assert commands
        known = options_of(parsers()["train"]) | {"--nproc-per-node"}
        for words in commands:
            unknown = {word for word in words if word.startswith("--")} - known
            assert not unknown or script in (experiments, figures), words


@pytest.mark.parametrize("task", SCRIPTS)
def test_scripts_are_the_command_for_their_task(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(module, "_train", seen.append)
    monkeypatch.setattr("sys.argv", ["script", "--out", "out", "--small"])
    assert SCRIPTS[task].main() == 0
    usual = {"segmentation": "camvid", "edges": "bsds500"}
    assert (seen[0].task, seen[0].data, seen[0].preset) == (task, usual.get(task), "small")
    monkeypatch.setattr("sys.argv", ["script", "--out", "out", "--data", "elsewhere"])
    assert SCRIPTS[task].main() == 0
    assert seen[1].data == "elsewhere"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--task", "edges", "--out", "x"], "data is missing; expected one of"),
        (["evaluate", "--checkpoint", "none"], "none is missing; expected model.safetensors or"),
        (
            ["predict", "nowhere.jpg", "--checkpoint", "none", "--out", "x"],
            "nowhere.jpg is no file and no folder; expected images",
        ),
    ],
)
def test_refusals_are_a_line_with_the_remedy(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "Traceback" not in printed


def test_runs_as_a_module(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pixelnet_triton", "evaluate", "--checkpoint", str(tmp_path / "x")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("python -m pixelnet_triton evaluate: error: ")


class TestDocuments:
    @pytest.mark.parametrize("name", ["README.md", "docs/cli.md"])
    def test_their_commands_can_be_copied(self, name: str) -> None:
        asked = [
            words[words.index("pixelnet_triton") + 1 :]
            for words in commands_in(re.sub(r" +#.*", "", (ROOT / name).read_text()))
            if "pixelnet_triton" in words
        ]
        assert len(asked) >= 3
        for words in asked:
            command_line().parse_args(words)

    def test_presets_and_data_sets_are_all_described(self) -> None:
        page = (ROOT / "docs" / "cli.md").read_text()
        for name in [*PRESETS, *(row.name for row in DATASETS)]:
            assert f"`{name}`" in page, name
