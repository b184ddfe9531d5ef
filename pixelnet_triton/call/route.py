"""`Route`: how a back end carries a plan out."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Route"]


@dataclass(frozen=True)
class Route:
    """The steps behind a plan, in the words of the back end that will take them.

    A back end derives it from shapes, plan and profile alone; the cost model counts the work of
    it, and the code that runs looks nothing up but these words.

    Args:
        forward, backward: the way of each pass; backward is "" where there is none.
        read: for each layer, how its map is read.
        write: for each layer, how its gradient is written; () where there is no backward pass.
        by_autograd: the forward pass is a plain expression, which autograd differentiates.
    """

    forward: str
    backward: str
    read: tuple[str, ...]
    write: tuple[str, ...]
    by_autograd: bool = False

    def __str__(self) -> str:
        return f"forward {self.forward}" + (f", backward {self.backward}" if self.backward else "")
