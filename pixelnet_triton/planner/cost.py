"""The cost model: a pure function of a call's shapes, a plan and a device profile.

    time(plan) = sum over layers of time(layer, strategy, mode) + time(what they share)

and time is linear in the work (work.py), so the best plan is found layer by layer.
"""

from __future__ import annotations

from functools import lru_cache

from ..call.estimate import Estimate, Line
from ..call.plan import Plan
from ..call.profile import DeviceProfile
from ..call.shape import CallShape
from ..call.work import Work
from ..gpu import BACKEND
from . import work_cpu

__all__ = ["CostModel"]


class CostModel:
    """What plans for one call cost on one device.

    Args:
        call: the shapes. profile: the device's rates; its kind tells which back end's work counts.
    """

    def __init__(self, call: CallShape, profile: DeviceProfile) -> None:
        self.call = call
        self.profile = profile
        on_cpu = profile.kind == "cpu"
        converted = on_cpu and not call.half_products
        self.costs = profile.costs(max(4, call.itemsize) if converted else call.itemsize)
        self._on_cpu = on_cpu
        #: The CPU always takes two steps.
        self.modes = ("two_step",) if on_cpu else ("two_step", "one_pass")
        self._layer_seconds = lru_cache(maxsize=None)(self._price_layer)

    def strategies(self, layer: int) -> tuple[str, ...]:
        """The strategies open to a layer, gathering first."""
        if self._on_cpu:
            return work_cpu.strategies(self.call.layers[layer], self.call.ragged)
        return BACKEND.strategies(self.call, layer)

    def layer_work(self, layer: int, strategy: str, mode: str, all_gathered: bool) -> Work:
        """Work that one layer causes by itself, among others that are all gathered or not."""
        if self._on_cpu:
            shape = self.call.layers[layer]
            return work_cpu.layer_work(self.call, shape, strategy, mode, all_gathered)
        others = ["gather" if all_gathered else "project_gather"] * len(self.call.layers)
        others[layer] = strategy
        return BACKEND.work(self.call, Plan(tuple(others), mode)).layers[layer]

    def shared_work(self, plan: Plan) -> Work:
        """Work that no single layer causes."""
        if self._on_cpu:
            return work_cpu.shared_work(self.call, plan)
        return BACKEND.work(self.call, plan).shared

    def work(self, plan: Plan) -> Work:
        """All work of the call with this plan."""
        all_gathered = not plan.projected
        total = self.shared_work(plan)
        for i, strategy in enumerate(plan.layers):
            total += self.layer_work(i, strategy, plan.mode, all_gathered)
        return total

    def seconds(self, plan: Plan) -> float:
        """Predicted time of the call with this plan."""
        all_gathered = not plan.projected
        return self.shared_work(plan).at(self.costs) + sum(
            self._layer_seconds(i, strategy, plan.mode, all_gathered)
            for i, strategy in enumerate(plan.layers)
        )

    def _price_layer(self, layer: int, strategy: str, mode: str, all_gathered: bool) -> float:
        return self.layer_work(layer, strategy, mode, all_gathered).at(self.costs)

    def cheapest(self) -> Plan:
        """The plan of least predicted time.

        What layers share depends mostly on whether any is gathered and whether any is projected.
        So the candidates are, for each mode: all gathered, all projected, each as it likes best;
        the best of them is then improved by changing one layer at a time.
        """
        kinds = ("gather", "project", "")
        candidates = [self._each_at_its_best(mode, kind) for mode in self.modes for kind in kinds]
        best = min(candidates, key=self.seconds)
        while True:
            better = min((best, *self._with_one_change(best)), key=self.seconds)
            if better is best:
                return best
            best = better

    def _with_one_change(self, plan: Plan) -> list[Plan]:
        return [
            Plan((*plan.layers[:i], strategy, *plan.layers[i + 1 :]), plan.mode)
            for i, own in enumerate(plan.layers)
            for strategy in self.strategies(i)
            if strategy != own
        ]

    def cheapest_of_kind(self, kind: str) -> Plan:
        """The cheapest plan that gathers ("gather") or projects ("project") every layer."""
        return min((self._each_at_its_best(m, kind) for m in self.modes), key=self.seconds)

    def _each_at_its_best(self, mode: str, kind: str) -> Plan:
        """The strategies of least cost among those whose name starts with `kind`."""
        all_gathered = kind == "gather"

        def best(layer: int) -> str:
            options = [s for s in self.strategies(layer) if s.startswith(kind)]
            seconds = [self._layer_seconds(layer, s, mode, all_gathered) for s in options]
            return options[seconds.index(min(seconds))]

        return Plan(tuple([best(i) for i in range(len(self.call.layers))]), mode)

    def estimate(self, plan: Plan) -> Estimate:
        """The prediction, line by line."""

        def line(name: str, strategy: str, work: Work) -> Line:
            return Line(name, strategy, work.flops, work.bytes, work.at(self.costs))

        all_gathered = not plan.projected
        layers = tuple(
            line(f"{i}: {shape}", strategy, self.layer_work(i, strategy, plan.mode, all_gathered))
            for i, (shape, strategy) in enumerate(zip(self.call.layers, plan.layers, strict=True))
        )
        shared = line("shared", "", self.shared_work(plan))
        gather_first = self.seconds(self.cheapest_of_kind("gather"))
        return Estimate(str(self.call), str(self.profile), layers, shared, gather_first)
