"""A plan: how each layer is brought to the points, and in how many launches.

gather           interpolate the features at the points, then multiply by the weight
project_product  multiply the map by the weight, then interpolate as a matrix product
project_gather   multiply the map by the weight, then gather the projected rows
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MODES", "STRATEGIES", "Plan"]

STRATEGIES = ("gather", "project_product", "project_gather")
MODES = ("one_pass", "two_step")


@dataclass(frozen=True)
class Plan:
    """An immutable choice of strategy per layer, and of one launch or two.

    ``one_pass`` gathers inside the kernel that multiplies; ``two_step`` writes the gathered
    columns first and multiplies them afterwards.
    """

    layers: tuple[str, ...]
    mode: str = "one_pass"

    @property
    def gathered(self) -> list[int]:
        """Layers that are sampled first."""
        return [i for i, strategy in enumerate(self.layers) if strategy == "gather"]

    @property
    def projected(self) -> list[int]:
        """Layers that are multiplied by the weight first."""
        return [i for i, strategy in enumerate(self.layers) if strategy != "gather"]

    def encode(self) -> str:
        """The plan as a string, the form an operator's schema can carry."""
        return f"{self.mode}:{','.join(self.layers)}"

    @staticmethod
    def decode(text: str) -> Plan:
        """Undo :meth:`encode`."""
        mode, layers = text.split(":")
        return Plan(tuple(layers.split(",")), mode)
