"""What a user's type checker sees of the installed package: types, and mistakes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

GOOD = """
import torch
from torch import Tensor, nn
from pixelnet_triton import HypercolumnLinear, Plan, plan_hypercolumn, sparse_hypercolumn
from pixelnet_triton.integrations import FusedLinear, PointHead, point_sample
from pixelnet_triton.integrations.export import export
from pixelnet_triton.models import VGG16, PixelMLP, PixelNet

maps = [torch.randn(1, 3, 8, 8)]
points = torch.rand(1, 5, 2)
h: Tensor = sparse_hypercolumn(maps, points, (16, 16), plan=Plan(("gather",)))
layer: nn.Module = HypercolumnLinear([3], 4, activation="relu", strides=[2, 2.5])
fused: FusedLinear = FusedLinear(nn.Linear(3, 4))
sampled: Tensor = point_sample(maps[0], points, align_corners=True)
head = PointHead([3], channels=8, num_classes=2)
program: torch.export.ExportedProgram = export(head, (maps, maps[0], points))
backbone = VGG16(("conv1_2", "conv3_3"))
model: PixelNet = PixelNet(backbone, PixelMLP(backbone.channels, (8,), out_features=3))
"""

MISTAKES = {
    "sparse_hypercolumn(maps, points)": "Missing positional argument",
    "sparse_hypercolumn(maps, points, 16)": "incompatible type",
    "sparse_hypercolumn(maps, points, (16, 16), padding=1)": "Unexpected keyword argument",
    "HypercolumnLinear(3, 4)": "incompatible type",
    "point_sample(maps, points)": "incompatible type",
    "h.no_such_method()": "has no attribute",
}


def mypy(program: str, folder: Path) -> tuple[int, str]:
    """Exit status and output of mypy on `program`, away from the checkout's own settings."""
    (folder / "program.py").write_text(program)
    settings = ["--config-file=", "--strict", "--follow-imports=silent", "--no-incremental"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *settings, "program.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_public_types_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run of mypy: the good program has no error, and each mistake after it has its own."""
    pytest.importorskip("mypy")
    monkeypatch.setenv("MYPYPATH", str(ROOT))
    program = GOOD + "\n".join(MISTAKES) + "\n"
    first = GOOD.count("\n") + 1
    _, output = mypy(program, tmp_path)
    errors = {int(line.split(":")[1]): line for line in output.splitlines() if ": error:" in line}
    for number, (mistake, message) in enumerate(MISTAKES.items(), start=first):
        assert message in errors.pop(number, "no error"), f"{mistake}: {output}"
    assert not errors, output
