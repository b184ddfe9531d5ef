"""A progress bar for long work, by tqdm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(
    total: int | None, progress: bool, **options: Any
) -> Iterator[Callable[[int], object]]:
    """A function to be called with how much was done since its last call.

    Args:
        total: units of work; None where it is not known.
        progress: whether there is a bar to be shown; otherwise the function does nothing.
        **options: of ``tqdm.tqdm``, such as unit and desc.

    Raises:
        ModuleNotFoundError: a bar was asked for and tqdm is not installed.
    """
    if not progress:
        yield lambda done: None
        return
    try:
        from tqdm.auto import tqdm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "progress=True needs tqdm, which is not installed: "
            "pip install 'pixelnet-triton[metrics]', or pass progress=False"
        ) from error
    with tqdm(total=total, **options) as bar:
        yield bar.update
