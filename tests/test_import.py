"""The package without a GPU, and without Triton. Each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

WITHOUT_TRITON = """
    import importlib.abc, sys

    class NoTriton(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "triton":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, NoTriton())
"""


def run(*blocks: str) -> str:
    """What a fresh interpreter prints for this program."""
    program = "\n".join(textwrap.dedent(block) for block in blocks)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIXELNET_", "TRITON_", "PYTEST_"))
    }
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_leaves_triton_alone() -> None:
    """An import makes no CUDA context either."""
    printed = run(
        """
        import sys
        import torch
        before = set(sys.modules)
        import pixelnet_triton
        new = set(sys.modules) - before
        print(sorted(name for name in new if name.partition(".")[0] == "triton"))
        print(torch.cuda.is_initialized())
        """
    )
    assert printed.splitlines() == ["[]", "False"]


def test_works_on_the_cpu_without_triton() -> None:
    printed = run(
        WITHOUT_TRITON,
        """
        import torch
        from pixelnet_triton import HypercolumnLinear, sparse_hypercolumn
        maps = [torch.ones(1, 3, 4, 4, requires_grad=True), torch.ones(1, 2, 2, 2)]
        points = torch.tensor([[[0, 0], [7, 7]]])
        print(sparse_hypercolumn(maps, points, (8, 8)).tolist())
        HypercolumnLinear([3, 2], 4)(maps, points, (8, 8)).sum().backward()
        print(maps[0].grad is not None)
        try:
            import triton
        except ModuleNotFoundError:
            print("no triton")
        """,
    )
    assert printed.splitlines() == [str([[[1.0] * 5] * 2]), "True", "no triton"]


def test_a_cuda_tensor_without_triton_gets_a_clear_error() -> None:
    """The choice of the back end sees the device alone, so that a stand-in will do."""
    printed = run(
        WITHOUT_TRITON,
        """
        import torch
        from pixelnet_triton.call import CallShape, LayerShape
        from pixelnet_triton.op.dispatch import backend_for, require
        device = torch.device("cuda", 1)
        try:
            require(backend_for(device), CallShape((LayerShape(1, 1, 1),), 1, 1, 1), device)
        except RuntimeError as error:
            print(error)
        """,
    )
    assert "the features are on cuda:1, which needs Triton, and Triton is not installed" in printed
    assert "pip install triton" in printed
    assert "CPU" in printed


def test_the_public_names() -> None:
    printed = run("import pixelnet_triton; print(*pixelnet_triton.__all__)")
    assert {"HypercolumnLinear", "sparse_hypercolumn"} <= set(printed.split())
