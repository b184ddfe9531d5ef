"""A plan: how each layer is brought to the points, and in how many launches.

gather     interpolate the features at the points, then multiply by the weight
project    multiply the map by the weight, then interpolate at the points
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from .estimate import Estimate
from .route import Route

__all__ = ["MODES", "PLAN_NAMES", "STRATEGIES", "Plan"]

PLAN_NAMES = ("auto", "gather", "project", "one_pass", "two_step")
STRATEGIES = ("gather", "project")
MODES = ("one_pass", "two_step")


@dataclass(frozen=True)
class Plan:
    """An immutable choice of strategy per layer, and of one launch or two.

    ``one_pass`` gathers inside the kernel that multiplies; ``two_step`` writes the gathered
    columns first and multiplies them afterwards. The CPU always takes two steps.

    Two plans are equal if they do the same; the `estimate` that a planned one carries does not
    count. ``print(plan)`` shows it as a table.

    Args:
        layers: for each layer ``"gather"`` or ``"project"``.
        mode: ``"one_pass"`` or ``"two_step"``.
        route: how the back end carries it out; None, or one that does not fit the call, leaves
            that to the back end.
        estimate: what :func:`pixelnet_triton.plan_hypercolumn` predicts of it.

    Raises:
        TypeError, ValueError: a strategy or the mode is unknown, there is no layer, or the route
            is none.

    Example:
        >>> from pixelnet_triton import Plan
        >>> Plan(("gather", "project")).projected
        [1]
    """

    layers: tuple[str, ...]
    mode: str = "one_pass"
    route: Route | None = None
    estimate: Estimate | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.layers, tuple):
            object.__setattr__(self, "layers", tuple(self.layers))
        if not self.layers:
            raise ValueError("layers is empty; expected one strategy for each layer")
        for i, strategy in enumerate(self.layers):
            if strategy not in STRATEGIES:
                raise ValueError(f"layers[{i}]={strategy!r} is unknown; use one of {STRATEGIES}")
        if self.mode not in MODES:
            raise ValueError(f"mode={self.mode!r} is unknown; use one of {MODES}")
        if self.route is not None and not isinstance(self.route, Route):
            raise TypeError(
                f"route={self.route!r}; expected None, or the Route of a plan that "
                "plan_hypercolumn made"
            )

    @property
    def gathered(self) -> list[int]:
        """Layers that are sampled first."""
        return [i for i, strategy in enumerate(self.layers) if strategy == "gather"]

    @property
    def projected(self) -> list[int]:
        """Layers that are multiplied by the weight first."""
        return [i for i, strategy in enumerate(self.layers) if strategy != "gather"]

    def encode(self) -> str:
        """The plan as a string, the form an operator's schema can carry; layers and mode alone."""
        return f"{self.mode}:{','.join(self.layers)}"

    @staticmethod
    @lru_cache(maxsize=1024)
    def decode(text: str) -> Plan:
        """Undo :meth:`encode`."""
        mode, _, layers = text.partition(":")
        return Plan(tuple(layers.split(",")), mode)

    def __str__(self) -> str:
        return self.encode() if self.estimate is None else self.estimate.table(self.mode)
