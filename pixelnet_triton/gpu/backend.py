"""The GPU back end, as planner and operator know it (:class:`pixelnet_triton.call.Backend`).

Nothing of size P x C is kept from the forward pass; where the backward needs it, it lives for one
call.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache, reduce
from operator import or_
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..call import (
    CallShape,
    Executor,
    Geometry,
    Gradients,
    Linear,
    Plan,
    PlanWork,
    Route,
    Sampling,
    Wanted,
)
from ..kernels.select import RULES, Key, Rule, choose
from ..tools.settings import switched_on
from . import routes
from .work import DTYPES, work

__all__ = ["BACKEND", "GpuBackend", "load"]


#: Earlier ones lack what kernels and launches are written with. torch 2.8 brings this one.
LEAST_TRITON = (3, 4)


def _triton() -> str | None:
    """The version of Triton, if there is any."""
    try:
        import triton
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "triton":
            raise
        return None
    return str(triton.__version__)


class GpuBackend:
    """Triton kernels, and plain products by cuBLAS; see :class:`pixelnet_triton.call.Backend`."""

    name = "gpu"
    modes: tuple[str, ...] = ("two_step", "one_pass")

    def unserved(self, shape: CallShape) -> list[str]:
        reasons = []
        version = _triton()
        if version is None:
            reasons.append(
                "needs Triton, and Triton is not installed. Install it (pip install triton)"
            )
        elif tuple(map(int, version.split(".")[:2])) < LEAST_TRITON:
            least = ".".join(map(str, LEAST_TRITON))
            reasons.append(
                f"needs Triton {least} or later, and {version} is installed. Install a later one "
                f"(pip install 'triton>={least}')"
            )
        if shape.itemsize == 8:
            reasons.append("has no kernels for float64. Convert with .to(torch.float32)")
        return reasons

    def multiplies(self, dtype: torch.dtype) -> bool:
        return True

    def routes(self, shape: CallShape, plan: Plan) -> list[Route]:
        return routes.open_routes(shape, plan)

    def fits(self, shape: CallShape, plan: Plan, route: Route) -> bool:
        return routes.fits(shape, route)

    def work(self, shape: CallShape, plan: Plan) -> PlanWork:
        return work(shape, plan)

    def notes(self, shape: CallShape, plan: Plan) -> list[str]:
        """The tile of each kernel, and the rule behind it."""
        assert plan.route is not None
        gathered = [i for i, word in enumerate(plan.route.read) if word in routes.GATHERED]
        channels = [shape.layers[i].channels for i in gathered or range(len(shape.layers))]
        dtype, outputs = DTYPES[shape.itemsize], shape.out_features
        contiguous = all(shape.layers[i].channels_last for i in gathered)
        gathered_key = Key(
            dtype, shape.points, outputs, min(channels), shape.capability, None, contiguous
        )
        collected = gathered_key._replace(channels=outputs)
        names = f"{plan.route.forward} + {plan.route.backward}".split(" + ")
        notes = []
        for name in dict.fromkeys(names):
            if name in RULES:
                key = collected if name == "collect" else gathered_key
                rule, gelu = (choose(name, key._replace(activation=a)) for a in (None, "gelu"))
                note = f"kernel {name}: {_words(rule)}"
                notes.append(note if gelu is rule else f"{note}; with a GELU {_words(gelu)}")
        return notes

    def executor(self, shape: CallShape, geometry: Geometry, plan: Plan) -> Executor:
        assert plan.route is not None
        return Launches(plan.route, load())

    def dense(
        self,
        features: Sequence[Tensor],
        head: Linear,
        geometry: Geometry,
        image_size: tuple[int, int],
        memory: int,
    ) -> None:
        """None: tiles of pixels are calls like others."""


def _words(rule: Rule) -> str:
    return f"tile {rule.rows} x {rule.columns}, {rule.num_warps} warps: {rule.why}"


@lru_cache(maxsize=1)
def load() -> ModuleType:
    """The module :mod:`.steps`, which launches; imported, with the kernels, at the first call.

    And the one place with a side effect: where ``PIXELNET_TRITON_AUTOTUNE=1`` launches are tuned
    from here on.
    """
    from . import steps

    if switched_on("PIXELNET_TRITON_AUTOTUNE"):
        from .tuning import autotune

        autotune()
    return steps


#: Kinds of calls that all executors remember together: calls of another number of points are one,
#: and so is each place in memory of a misaligned tensor.
MOST_KINDS = 1024
_KNOWN: dict[tuple[Launches, Hashable], dict[Hashable, Any]] = {}


class Launches:
    """Carries a route out; `steps` is the module of that name.

    What follows from the shapes of its calls is worked out by the first of them; and again for
    another number of points, where settings are others, or tensors begin elsewhere in memory:
    kernels are compiled for addresses that 16 divides, or not.
    """

    def __init__(self, route: Route, steps: ModuleType) -> None:
        self.route, self.steps = route, steps

    def forward(self, s: Sampling, head: Linear | None) -> Tensor:
        if _is_elsewhere(s.points):
            with torch.cuda.device(s.points.device):
                return self.forward(s, head)
        if head is None:
            self._recall(s)
            return self.steps.gather(s)
        self._recall(s, head.weight, head.bias)
        return self.steps.linear(s, head, self.route)

    def backward(
        self, s: Sampling, head: Linear | None, grad: Tensor, output: Tensor | None, wanted: Wanted
    ) -> Gradients:
        if _is_elsewhere(s.points):
            with torch.cuda.device(s.points.device):
                return self.backward(s, head, grad, output, wanted)
        if head is None:
            self._recall(s, grad, saved=True)
            return self.steps.hypercolumn_gradients(s, grad, wanted)
        self._recall(s, head.weight, grad, output, saved=True)
        route = routes.scattered(self.route) if wanted.points else self.route
        return self.steps.linear_gradients(s, head, route, grad, output, wanted)

    def _recall(self, s: Sampling, *others: Tensor | None, saved: bool = False) -> None:
        """What calls of that kind left behind; `others` go to kernels, too.

        Maps that autograd `saved` may come back with other strides, from hooks that move them.
        """
        features, points, index, _ = s
        tensors = [t for t in (*features, points, index, *others) if t is not None]
        strides = tuple(map(Tensor.stride, features)) if saved else ()
        kind: Hashable = (points.shape[0], self.steps.settings(features[0].dtype), strides)
        if reduce(or_, map(Tensor.data_ptr, tensors)) % 16:
            # A tensor that is not contiguous may be copied first, to an address that 16 divides.
            kind = (kind, *[(t.data_ptr() % 16, t.is_contiguous()) for t in tensors])
        known = _KNOWN.get((self, kind))
        if known is None:
            if len(_KNOWN) >= MOST_KINDS:
                _KNOWN.clear()
            known = _KNOWN[self, kind] = {}
        s.known = known


def _is_elsewhere(tensor: Tensor) -> bool:
    """Is the tensor on a GPU that is not the current one? Launches go to the current one."""
    return tensor.is_cuda and tensor.get_device() != torch.cuda.current_device()


BACKEND = GpuBackend()
