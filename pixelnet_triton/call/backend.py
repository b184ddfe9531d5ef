"""What a back end is: the planner and the operator know of `cpu/` and `gpu/` only this much."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from .linear import Gradients, Linear, Wanted
from .plan import Plan
from .profile import DeviceProfile
from .route import Route
from .sampling import Sampling
from .shape import CallShape
from .work import PlanWork

__all__ = ["Backend"]


class Backend(Protocol):
    """Computes calls on some device, and knows what that takes.

    The first half answers questions about shapes and computes nothing; the second half computes.
    docs/backends.md tells how to add one.
    """

    #: "cpu" or "gpu": the kind of profile that its work is priced with.
    name: str
    #: The modes of a plan that make a difference here.
    modes: tuple[str, ...]

    def strategies(self, shape: CallShape, layer: int) -> tuple[str, ...]:
        """The strategies open to a layer, gathering first."""

    def route(self, shape: CallShape, plan: Plan, profile: DeviceProfile) -> Route:
        """How a call of that shape is carried out by a plan; the plan's own route where it fits."""

    def work(self, shape: CallShape, plan: Plan) -> PlanWork:
        """What that route takes: `plan.route` must be one of :meth:`route`."""

    def multiplies(self, dtype: torch.dtype) -> bool:
        """Are operands of that dtype multiplied as they are, and not converted to float32?"""

    def forward(self, s: Sampling, head: Linear | None, plan: Plan) -> Tensor:
        """act(S X W^T + b), (P, D); without a head the hypercolumns S X, (P, sum C_i).

        In the features' dtype. By a route with `by_autograd` it is differentiable.
        """

    def backward(
        self,
        s: Sampling,
        head: Linear | None,
        plan: Plan,
        grad: Tensor,
        output: Tensor | None,
        wanted: Wanted,
    ) -> Gradients:
        """Gradients for grad = dL/dy (P, D); `output` is y after a ReLU, None without one."""
