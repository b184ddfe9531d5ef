"""What a back end is: the planner and the operator know of `cpu/` and `gpu/` only this much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from .geometry import Geometry
from .linear import Gradients, Linear, Wanted
from .plan import Plan
from .route import Route
from .sampling import Sampling
from .shape import CallShape
from .work import PlanWork

__all__ = ["Backend", "DenseLayer", "Executor"]


class Backend(Protocol):
    """Answers questions about shapes, and computes nothing; that is an :class:`Executor`'s work.

    docs/backends.md tells how to add one.
    """

    #: "cpu" or "gpu": the kind of profile that its work is priced with.
    name: str
    #: The modes of a plan that make a difference here, the usual one first.
    modes: tuple[str, ...]

    def __hash__(self) -> int:
        """Plans are kept by back end."""

    def unserved(self, shape: CallShape) -> list[str]:
        """Why it does not serve such a call; nothing if it does."""

    def multiplies(self, dtype: torch.dtype) -> bool:
        """Are operands of that dtype multiplied as they are, and not converted to float32?"""

    def routes(self, shape: CallShape, plan: Plan) -> list[Route]:
        """The ways in which a call of that shape may be carried out by a plan; at least one."""

    def fits(self, shape: CallShape, plan: Plan, route: Route) -> bool:
        """Can it be carried out so? There may be more ways than it would suggest."""

    def work(self, shape: CallShape, plan: Plan) -> PlanWork:
        """What a call takes by `plan.route`, which fits it."""

    def notes(self, shape: CallShape, plan: Plan) -> list[str]:
        """What else is worth saying of the plan: words of its route, kernels, tiles and why."""

    def executor(self, shape: CallShape, geometry: Geometry, plan: Plan) -> Executor:
        """What computes calls of that kind; it is remembered with all that it holds."""

    def dense(
        self,
        features: Sequence[Tensor],
        head: Linear,
        geometry: Geometry,
        image_size: tuple[int, int],
        memory: int,
    ) -> DenseLayer | None:
        """A way of its own to compute the first layer at every pixel of one image, or None.

        `head` has a bias. `memory`: bytes that may be kept from tile to tile.
        """


class DenseLayer(Protocol):
    """act(S X W^T + b) at pixels in a grid, tile by tile, and what that takes."""

    #: Held as long as the object lives.
    kept_bytes: int

    def scratch_bytes(self, rows: int, columns: int) -> int:
        """At most so much is allocated at once for a tile of pixels, its result included."""

    def __call__(self, rows: slice, columns: slice) -> Tensor:
        """(pixels, D) of some rows and columns of pixels, row by row."""


class Executor(Protocol):
    """Computes calls of one kind, forward and backward."""

    def forward(self, s: Sampling, head: Linear | None) -> Tensor:
        """act(S X W^T + b), (P, D); without a head the hypercolumns S X, (P, sum C_i).

        In the features' dtype. For a route with `by_autograd` it is differentiable, and takes
        points (B, N, 2) too, whose dimensions the result then has.
        """

    def backward(
        self, s: Sampling, head: Linear | None, grad: Tensor, output: Tensor | None, wanted: Wanted
    ) -> Gradients:
        """Gradients for grad = dL/dy, (P, D) or (B, N, D); `output` is y after a ReLU, or None."""
