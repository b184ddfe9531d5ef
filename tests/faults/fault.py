"""One small fault that tests should notice: a text of a file, and what stands there instead."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["DoesNotApply", "Fault"]


class DoesNotApply(Exception):
    """The text that a fault replaces does not stand exactly once in its file."""


@dataclass(frozen=True)
class Fault:
    """A patch and the tests that should fail with it.

    Args:
        name: of the fault, unique in the table: what is wrong, in words joined by hyphens.
        file: from the root of the checkout.
        old: a text that stands exactly once in the file.
        new: what replaces it. The file has to import with it: a fault is wrong, not broken.
        tests: what pytest is given: files, or ``file::test``. One of them at least has to fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def patched(self, root: Path) -> str:
        """The file's text below `root`, with the fault.

        Raises:
            DoesNotApply: the old text stands there not at all, or several times.
        """
        path = root / self.file
        if not path.is_file():
            raise DoesNotApply(f"{self.name}: there is no {self.file}; name the file it went to")
        text = path.read_text()
        times = text.count(self.old)
        if times != 1:
            raise DoesNotApply(
                f"{self.name}: {self.file} has {self.old!r} {times} times; expected once. "
                "Lengthen the text, or write the fault anew"
            )
        return text.replace(self.old, self.new)
