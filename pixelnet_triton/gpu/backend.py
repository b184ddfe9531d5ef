"""The GPU back end, as planner and operator know it (:class:`pixelnet_triton.call.Backend`).

Nothing of size P x C is kept from the forward pass; where the backward needs it (two steps, or sums
in a fixed order) it lives for one call.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType

import torch
from torch import Tensor

from ..call.backend import Backend
from ..call.linear import Gradients, Linear, Wanted
from ..call.plan import Plan
from ..call.profile import DeviceProfile
from ..call.route import Route
from ..call.sampling import Sampling
from ..call.shape import CallShape
from ..call.work import PlanWork
from . import routes
from .work import work

__all__ = ["BACKEND", "GpuBackend"]


class GpuBackend(Backend):
    """Triton kernels, and plain products by cuBLAS."""

    name = "gpu"
    modes: tuple[str, ...] = ("two_step", "one_pass")
    _steps: ModuleType | None = None

    def strategies(self, shape: CallShape, layer: int) -> tuple[str, ...]:
        """The strategies open to a layer, gathering first."""
        return routes.strategies(shape, layer)

    def route(self, shape: CallShape, plan: Plan, profile: DeviceProfile) -> Route:
        """How a call of that shape is carried out by a plan: no rate of the profile enters."""
        return routes.route(shape, plan)

    def work(self, shape: CallShape, plan: Plan) -> PlanWork:
        """What that route takes."""
        return work(shape, plan)

    def multiplies(self, dtype: torch.dtype) -> bool:
        """Operands of every dtype are multiplied as they are."""
        return True

    def load(self, device: torch.device | str = "a GPU") -> ModuleType:
        """The code that launches, :mod:`.steps`: the one place that imports Triton.

        Done once, at the first call; and the one place with a side effect: where
        ``PIXELNET_TRITON_AUTOTUNE=1`` launches are tuned from here on.

        Raises:
            RuntimeError: Triton is not installed.
        """
        if self._steps is None:
            try:
                from . import steps
            except ModuleNotFoundError as error:
                if (error.name or "").split(".")[0] != "triton":
                    raise
                raise RuntimeError(
                    f"the features are on {device}, which needs Triton, and Triton is not "
                    "installed. Install it (pip install triton), or move the tensors to the CPU"
                ) from error
            if os.environ.get("PIXELNET_TRITON_AUTOTUNE") == "1":
                from .tuning import autotune

                autotune()
            self._steps = steps
        return self._steps

    def forward(self, s: Sampling, head: Linear | None, plan: Plan) -> Tensor:
        """act(S X W^T + b), (P, D); without a head the hypercolumns S X, (P, sum C_i)."""
        steps = self.load(s.points.device)
        with _on(s.points):
            if head is None:
                return steps.gather(s)
            route = routes.route_of(plan, s.batch_index is not None, linear=True, training=False)
            return steps.linear(s, head, route)

    def backward(
        self,
        s: Sampling,
        head: Linear | None,
        plan: Plan,
        grad: Tensor,
        output: Tensor | None,
        wanted: Wanted,
    ) -> Gradients:
        """Gradients for grad = dL/dy; `output` is y after a ReLU, whose zeros mask it."""
        steps = self.load(s.points.device)
        in_order = torch.are_deterministic_algorithms_enabled()
        scatter = steps.scatter_in_order if in_order else steps.scatter_as_it_comes
        with _on(s.points):
            if head is None:
                return steps.hypercolumn_gradients(s, grad, wanted, scatter)
            if output is not None:
                grad = torch.ops.aten.threshold_backward(grad, output, 0)
            route = routes.route_of(plan, s.batch_index is not None, linear=True, training=True)
            if in_order or wanted.points:
                route = routes.with_columns(route)
            return steps.linear_gradients(s, head, route, grad.contiguous(), wanted, scatter)


def _on(tensor: Tensor) -> AbstractContextManager[object]:
    """Launches go to the tensor's own device, whichever is current."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


BACKEND = GpuBackend()
