"""What a plan is predicted to cost, and the table that shows it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Estimate", "Line"]


@dataclass(frozen=True)
class Line:
    """One row of the table: a layer, or what the layers share."""

    name: str
    strategy: str
    access: str
    flops: float
    bytes: float
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """Predicted cost of a plan, line by line, and of gathering every layer first.

    Args:
        call: the call in words. profile: the device's profile, in words.
        route: the back end, and its way there and back, in words. notes: what else to say of it.
        layers: one line for each layer. shared: what no single layer causes, such as the output.
        gather_first: seconds of the cheaper of the plans that gather every layer.
    """

    call: str
    profile: str
    route: str
    layers: tuple[Line, ...]
    shared: Line
    gather_first: float
    notes: tuple[str, ...] = ()

    @property
    def flops(self) -> float:
        """Multiplications and additions, forward and, for training, backward."""
        return sum(line.flops for line in (*self.layers, self.shared))

    @property
    def bytes(self) -> float:
        """Bytes read and written by operators, wherever they lie (caches included)."""
        return sum(line.bytes for line in (*self.layers, self.shared))

    @property
    def seconds(self) -> float:
        """Predicted time of one call."""
        return sum(line.seconds for line in (*self.layers, self.shared))

    def table(self, mode: str) -> str:
        """The prediction as lines of text."""
        scale, unit = (1e3, "ms") if self.seconds >= 1e-3 else (1e6, "us")
        total = Line("total", mode, "", self.flops, self.bytes, self.seconds)
        rows: list[tuple[str, ...]] = [("layer", "strategy", "access", "GFLOP", "MB", unit)]
        rows += [_row(line, scale) for line in (*self.layers, self.shared, total)]
        rows.append(("gather first", "", "", "", "", f"{self.gather_first * scale:.4g}"))
        widths = [max(len(row[k]) for row in rows) for k in range(6)]
        gain = self.gather_first / self.seconds
        return "\n".join(
            [
                f"plan for {self.call}",
                *(_aligned(row, widths) for row in rows),
                f"  {gain:.2f}x over gather first, predicted",
                f"  profile: {self.profile}",
                f"  route: {self.route}",
                *(f"    {note}" for note in self.notes),
            ]
        )


def _row(line: Line, scale: float) -> tuple[str, ...]:
    numbers = (line.flops / 1e9, line.bytes / 1e6, line.seconds * scale)
    return (line.name, line.strategy, line.access, *(f"{number:.4g}" for number in numbers))


def _aligned(row: tuple[str, ...], widths: list[int]) -> str:
    words = [f"{cell:<{width}}" for cell, width in zip(row[:3], widths[:3], strict=True)]
    numbers = [f"{cell:>{width}}" for cell, width in zip(row[3:], widths[3:], strict=True)]
    return f"  {'  '.join(words + numbers)}".rstrip()
