"""How much work each route is on the CPU, counted beside the code that it counts.

P points, C channels, D outputs, cells = B H_i W_i; a point has K corners (4, or 1).

               forward                                      backward
    gather     P C K corners gathered, P x C x D            gathered again, P x C x D twice (dW_i
                                                            and G W_i), P C K corners scattered
    project    cells x C x D, P D K corners of projected    P D K corners collected into Q,
               rows read                                    cells x C x D twice (dW_i and dX_i)

Operators are what PyTorch dispatches, views included; what autograd records counts twice. The
counts are averages over shapes: tests/test_cpu_work.py runs calls, and counts FLOPs and operators.
"""

from __future__ import annotations

from functools import lru_cache

from ..call import CallShape, Plan, PlanWork, Route, Work
from .layer_work import LayerCount, Way

__all__ = ["FUNCTION_OPERATORS", "LOCATING_OPERATORS", "picking_operators", "work"]

# What a pass through `torch.autograd.Function` takes, in operators; an expression has none of it.
FUNCTION_OPERATORS = 8
# How many operators take as long as it takes NumPy to begin all that finds corners (locating.py).
LOCATING_OPERATORS = 12


def picking_operators(shape: CallShape, route: Route) -> int:
    """Those of an expression that autograd does not record: what finds corners for all layers."""
    picked = [m for m, word in zip(shape.layers, route.read, strict=True) if word == "picked"]
    if not (route.by_autograd and picked):
        return 0
    kinds = {layer.channels_last for layer in picked}
    return sum(LOCATING_OPERATORS + (8 if channels_last else 16) for channels_last in kinds)


def work(shape: CallShape, plan: Plan) -> PlanWork:
    """Forward and, for training, backward; `plan.route` says how."""
    assert plan.route is not None
    return _count(shape).work(plan, plan.route)


@lru_cache(maxsize=64)
def _count(shape: CallShape) -> _Count:
    """One for all plans of a call, which have most of their layers alike."""
    return _Count(shape)


class _Count(LayerCount):
    """Counts the work of a call: that of its layers, and what they share."""

    def __init__(self, shape: CallShape) -> None:
        super().__init__(shape)
        self._layers: dict[tuple[int, Way], Work] = {}

    def work(self, plan: Plan, route: Route) -> PlanWork:
        layers = []
        for i, strategy in enumerate(plan.layers):
            write = route.write[i] if route.write else ""
            projected = strategy != "gather"
            way = Way(projected, route.forward, route.backward, route.read[i], write)
            if (i, way) not in self._layers:
                self._layers[i, way] = self.layer(i, way)
            layers.append(self._layers[i, way])
        return PlanWork(tuple(layers), self.shared(plan, route))

    def shared(self, plan: Plan, route: Route) -> Work:
        """The output, and the operators that serve all layers at once."""
        work = self._shared(plan, route.forward, backward=False)
        passes = 1
        if route.backward:
            if route.by_autograd:  # the forward pass is recorded
                work += Work(operators=work.operators)
            work += self._shared(plan, route.backward, backward=True)
            passes = 2
        if route.by_autograd:
            return work + Work(operators=picking_operators(self.shape, route))
        return work + Work(operators=passes * FUNCTION_OPERATORS)

    def _shared(self, plan: Plan, way: str, backward: bool) -> Work:
        """Of one pass."""
        several = self.shape.batch > 1
        if way == "lists":
            work = Work(operators=3 if backward else 5)
            if plan.gathered:
                work += self._gathered_shared(plan, backward)
            return work + self._projected_shared(plan, backward) if plan.projected else work
        if way in ("expression", "autograd"):
            ragged = self.shape.ragged
            operators = 10 + 3 * ragged if backward else 10 + 2 * several + 18 * ragged
        else:
            operators = 21 if backward else 11 + 2 * several
        return Work(streams=self.output, operators=operators)

    def _gathered_shared(self, plan: Plan, backward: bool) -> Work:
        """Adjacent gathered layers share a product, which reads and writes the output.

        The first one only writes it, unless projected layers came first; then all points in one
        part are added to while the block is in the cache. Backward, both products of a run read
        the upstream gradient.
        """
        gathered, projected = plan.gathered, bool(plan.projected)
        runs = sum(i - 1 not in gathered for i in gathered)
        several = 5 * (self.shape.batch > 1)
        if backward:
            passes = 2 * runs - 1 - (projected and self.one_part)
            operators = 23 + several + self.parts * (1 + 6 * runs + self.blocks * (3 + 3 * runs))
            return Work(streams=self.output * passes, operators=operators)
        passes, products = 2 * runs - 1, runs * self.parts
        if projected:
            passes = 0 if self.one_part else 2 * runs
            products = runs * (self.blocks if self.one_part else self.parts)
        operators = 8 + several + 9 * self.parts + 4 * products
        return Work(streams=self.output * passes, operators=operators)

    def _projected_shared(self, plan: Plan, backward: bool) -> Work:
        """Blocks of columns are copied to their places where there are several.

        What is interpolated in float32 and multiplied in half precision is converted on the way.
        """
        mixed = 3 * self.output if self.mixed else 0.0
        if backward:
            operators = 33 + 3 * self.blocks
            if self.shape.moving_points:
                operators += 18 + 24 * self.blocks
            return Work(streams=self.output + mixed, operators=operators)
        added = mixed if plan.gathered else 0.0
        operators = 16 + 3 * (self.shape.batch > 1) + 12 * self.blocks
        return Work(streams=self.output + added, operators=operators)
