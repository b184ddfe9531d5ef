"""The examples in the docstrings run, and give what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import pixelnet_triton


def _modules() -> Iterator[str]:
    for module in pkgutil.walk_packages(pixelnet_triton.__path__, "pixelnet_triton."):
        if ".kernels" not in module.name:  # their import needs Triton, and they have no examples
            yield module.name


@pytest.mark.parametrize("name", sorted(_modules()))
def test_examples(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        if name.startswith("pixelnet_triton.gpu") or "pip install" in str(error):
            pytest.skip(str(error))
        raise
    tests = doctest.DocTestFinder(exclude_empty=True).find(module, name)
    examples = [test for test in tests if test.examples]
    if not examples:
        pytest.skip("no examples")
    # As a reader would have it: torch at hand, and the module's own public names.
    for test in examples:
        import torch

        test.globs.setdefault("torch", torch)
        results = doctest.DocTestRunner().run(test)
        assert results.failed == 0, f"{test.name}: see the captured output"
