"""The cost model: a pure function of a call's shape, a plan, a back end and a device profile.

time(plan) = sum over layers of time(layer) + time(what they share),   linear in the work
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from ..call import STRATEGIES, Backend, CallShape, DeviceProfile, Plan, PlanWork, Work
from ..call.estimate import Estimate, Line

__all__ = ["CostModel", "open_strategies"]


def open_strategies(shape: CallShape) -> tuple[str, ...]:
    """What a plan may do with a layer; without a weight there is nothing to project."""
    return STRATEGIES if shape.out_features else STRATEGIES[:1]


class CostModel:
    """What plans for one call cost on one device.

    Args:
        shape: of the call. backend: whose work counts. profile: the device's rates.
    """

    def __init__(self, shape: CallShape, backend: Backend, profile: DeviceProfile) -> None:
        self.shape = replace(shape, capability=profile.capability)
        self.backend = backend
        self.profile = profile
        self.costs = profile.costs(shape.operand_size)
        self._seconds: dict[Plan, float] = {}
        costs = self.costs
        self._cost = cache(lambda work: work.at(costs))

    def routed(self, plan: Plan) -> Plan:
        """The plan with its route: its own where that fits, else the one of least time."""
        if plan.route is not None and self.backend.fits(self.shape, plan, plan.route):
            return plan
        routes = self.backend.routes(self.shape, plan)
        plans = [replace(plan, route=route) for route in routes]
        return plans[0] if len(plans) == 1 else min(plans, key=self._price)

    def _price(self, plan: Plan) -> float:
        """The plan's seconds, without those of other plans' layers that are the same."""
        work = self.backend.work(self.shape, plan)
        return self._cost(work.shared) + sum(map(self._cost, work.layers))

    def work(self, plan: Plan) -> PlanWork:
        """Work of the call with this plan."""
        return self.backend.work(self.shape, self.routed(plan))

    def seconds(self, plan: Plan) -> float:
        """Predicted time of the call with this plan."""
        if plan not in self._seconds:
            self._seconds[plan] = self._price(self.routed(plan))
        return self._seconds[plan]

    def cheapest(self) -> Plan:
        """The plan of least predicted time.

        What layers share depends mostly on whether any is gathered and whether any is projected:
        from either end, and each mode, one layer is changed at a time as long as that helps.
        """
        starts = [plan for strategy in self._strategies for plan in self._uniform(strategy)]
        return min(map(self._improved, starts), key=self.seconds)

    def cheapest_of_kind(self, strategy: str) -> Plan:
        """The cheapest plan with that strategy for every layer, if it is open."""
        return min(self._uniform(strategy), key=self.seconds)

    @property
    def _strategies(self) -> tuple[str, ...]:
        """Those open to a layer."""
        return open_strategies(self.shape)

    def _uniform(self, strategy: str) -> list[Plan]:
        """All layers alike, in each mode."""
        open_one = strategy if strategy in self._strategies else self._strategies[0]
        layers = (open_one,) * len(self.shape.layers)
        return [Plan(layers, mode) for mode in self.backend.modes]

    def _improved(self, plan: Plan) -> Plan:
        while True:
            better = min((plan, *self._with_one_change(plan)), key=self.seconds)
            if better is plan:
                return plan
            plan = better

    def _with_one_change(self, plan: Plan) -> list[Plan]:
        return [
            Plan((*plan.layers[:i], strategy, *plan.layers[i + 1 :]), plan.mode)
            for i, current in enumerate(plan.layers)
            for strategy in self._strategies
            if strategy != current
        ]

    def estimate(self, plan: Plan) -> Estimate:
        """The prediction, line by line; by the route that the plan has, if it has one."""
        plan = self.routed(plan) if plan.route is None else plan
        work = self.backend.work(self.shape, plan)

        def line(name: str, strategy: str, access: str, amount: Work) -> Line:
            return Line(name, strategy, access, amount.flops, amount.bytes, amount.at(self.costs))

        layers = tuple(
            line(f"{i}: {layer}", plan.layers[i], _access(plan, i), work.layers[i])
            for i, layer in enumerate(self.shape.layers)
        )
        shared = line("shared", "", "", work.shared)
        gather_first = self.seconds(self.cheapest_of_kind("gather"))
        route = f"{self.backend.name}: {plan.route}"
        notes = tuple(self.backend.notes(self.shape, plan))
        words = str(self.shape), str(self.profile), route
        return Estimate(*words, layers, shared, gather_first, notes)


def _access(plan: Plan, layer: int) -> str:
    """How a layer's map is read and its gradient written."""
    assert plan.route is not None
    read = plan.route.read[layer]
    return f"{read}, {plan.route.write[layer]}" if plan.route.write else read
