"""How far the planner's choice is from the best plan, found by trying them all.

    python -m bench.planner_regret                 # random first layers
    python -m bench.planner_regret --small         # calls bound by the host
    python -m bench.planner_regret --workloads     # those of bench/workloads.py
    python -m bench.planner_regret --fit           # a profile from all results so far

For random first layers of one to four maps, every assignment of gather or project to the layers is
timed, forward with backward (or alone), in turns within one process, and so are `plan="auto"` and
`grid_sample` + `cat` + `linear`. (For the workloads, which are large: auto's choice, all gathered,
and the choice with one layer changed.) Regret is auto's time over the least of any plan, minus one;
times are 20th percentiles. A table goes to the screen, and a line for each call to
bench/results/planner_regret.jsonl.

The wall clock is disturbed by whatever else runs. The process's CPU time, on one thread, is not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace

import torch

from .machine import identity
from .measure import Case, measure_case
from .planning import Plan, call_shape, cpu_name, fitted, plan_of, predicted
from .random_layers import random_workloads, small_workloads
from .results import Line, append, read
from .workloads import WORKLOADS, Workload

__all__ = ["Result", "letters", "main", "try_all"]

CPU = torch.device("cpu")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
PEER = "grid_sample"


@dataclass(frozen=True)
class Result:
    """One call: seconds of each plan, measured and predicted, by encoded plan.

    `auto` and `peer` are seconds, too. Auto may be faster than the plan it chooses: by name, that
    plan keeps nothing for its backward pass, which a small call else does.
    """

    chosen: str
    measured: dict[str, float]
    predicted: dict[str, float]
    auto: float
    peer: float

    @staticmethod
    def of(line: Line) -> Result:
        """From a line of results."""
        return Result(**{field.name: line[field.name] for field in fields(Result)})

    def error(self, plan: str) -> float:
        """How far the prediction of a plan is off, relative to its time.

        What is predicted of the choice is the route that auto takes.
        """
        time = self.auto if plan == self.chosen else self.measured[plan]
        return abs(self.predicted[plan] / time - 1)

    @property
    def best(self) -> str:
        return min(self.measured, key=self.measured.__getitem__)

    @property
    def regret(self) -> float:
        return self.auto / min(self.auto, self.measured[self.best]) - 1

    @property
    def speedup(self) -> float:
        """How much faster than the peer."""
        return self.peer / self.auto

    @property
    def gain(self) -> float:
        """How much faster than gathering every layer."""
        gathered = next(time for plan, time in self.measured.items() if "project" not in plan)
        return gathered / self.auto


def every_plan(workload: Workload, chosen: Plan) -> list[Plan]:
    """Gather or project, for each layer: what a CPU can do."""
    choices = itertools.product(("gather", "project_gather"), repeat=len(workload.layers))
    return [Plan(layers, "two_step") for layers in choices]


def neighbours(workload: Workload, chosen: Plan) -> list[Plan]:
    """All layers gathered, the choice, and the choice with one layer changed."""
    plans = [Plan(("gather",) * len(workload.layers), "two_step"), chosen]
    for i, (strategy, (_, height, width)) in enumerate(
        zip(chosen.layers, workload.layers, strict=True)
    ):
        other = "project_gather" if strategy == "gather" else "gather"
        if height * width <= 4 * workload.points:  # projecting more cells than that takes minutes
            plans.append(Plan((*chosen.layers[:i], other, *chosen.layers[i + 1 :]), "two_step"))
    return list(dict.fromkeys(plans))


def try_all(
    case: Case,
    plans_of: Callable[[Workload, Plan], list[Plan]] = every_plan,
    clock: str = "wall",
) -> Result:
    """Time the plans of a call in turns; all are checked first."""
    workload, training = case.workload, case.training
    chosen = plan_of("auto", workload, training, CPU)
    plans = {plan.encode(): plan for plan in plans_of(workload, chosen)}
    names = ["auto", PEER, *plans]
    # Not strict: whether each route is as accurate as it could be is for the test suite to say.
    options = {"memory": False, "cold": False, "strict": False}
    figures = measure_case(case, names, CPU, ticks=CLOCKS[clock], **options)
    for name in names:
        assert not figures[name].problem, f"{workload.name}: {name}: {figures[name].problem}"
    seconds = {name: figures[name].line["p20"] for name in names}
    return Result(
        chosen.encode(),
        {name: seconds[name] for name in plans},
        {name: predicted(plan, workload, training, CPU)[0] for name, plan in plans.items()},
        seconds["auto"],
        seconds[PEER],
    )


def workload_cases() -> list[Workload]:
    """W1 to W5 on one image (W4: two), in both layouts."""
    return [
        replace(workload, images=2 if workload.name == "W4" else 1, channels_last=last)
        for workload in WORKLOADS
        for last in (True, False)
    ]


def letters(encoded: str) -> str:
    """A plan in short: g for a layer that is gathered, p for one that is projected."""
    return "".join(strategy[0] for strategy in Plan.decode(encoded).layers)


def _row(workload: Workload, result: Result) -> str:
    return (
        f"{workload.name:12} {workload.sizes():60} "
        f"{letters(result.chosen):<6} {letters(result.best):<6} "
        f"{result.auto * 1e3:9.3f} {result.predicted[result.chosen] * 1e3:9.3f} "
        f"{result.regret:7.1%} {result.gain:6.2f}x {result.speedup:6.2f}x"
    )


def summary(results: list[Result]) -> str:
    """How often the choice was good, and how far the predictions are off."""
    regrets = [result.regret for result in results]
    within = sum(regret <= 0.15 for regret in regrets)
    errors = [result.error(plan) for result in results for plan in result.measured]
    of_chosen = [result.error(result.chosen) for result in results]
    speedups = [result.speedup for result in results]
    return (
        f"within 15% of the best: {within} of {len(results)}; regret median "
        f"{statistics.median(regrets):.1%}, worst {max(regrets):.1%}; prediction off by "
        f"{statistics.median(errors):.0%} (median of all plans), "
        f"{statistics.median(of_chosen):.0%} (of the chosen)\n"
        f"slower than grid_sample + cat + linear: {sum(s < 1 for s in speedups)} of "
        f"{len(results)}; times as fast: median {statistics.median(speedups):.2f}, "
        f"least {min(speedups):.2f}"
    )


def _fit(clock: str, threads: int) -> None:
    """Print the profile nearest to all results of this machine by that clock."""
    lines = [
        line
        for line in read("planner_regret")
        if (line["cpu"], line["clock"], line["threads"]) == (cpu_name(), clock, threads)
    ]
    print(json.dumps(fitted(lines, threads), indent=1))


def main(arguments: list[str] | None = None) -> None:
    """Measure, record and print; or fit."""
    parser = argparse.ArgumentParser(prog="python -m bench.planner_regret", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--configurations", type=int, default=30, help="random layers (30)")
    parser.add_argument("--seed", type=int, default=0, help="of the random layers (0)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch's")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="what seconds are of")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="instead of each call's own"
    )
    parser.add_argument("--forward", action="store_true", help="without the backward pass")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--small", action="store_true", help="small calls instead")
    kind.add_argument("--workloads", action="store_true", help="W1 to W5 instead")
    kind.add_argument("--fit", action="store_true", help="measure nothing: print a profile")
    options = parser.parse_args(arguments)
    if options.fit:
        return _fit(options.clock, options.threads)
    torch.set_num_threads(options.threads)
    workloads = random_workloads(options.configurations, options.seed)
    if options.small:
        workloads = small_workloads()
    elif options.workloads:
        workloads = workload_cases()
    plans_of = neighbours if options.workloads else every_plan
    run = {**identity(CPU), "cpu": cpu_name(), "clock": options.clock}
    print(f"g: gather, p: project; ms of {options.clock} time, {options.threads} threads")
    print(f"{'':73} plan   best    measured predicted  regret    gain   peer")
    results = []
    for workload in workloads:
        dtype = options.dtype or workload.dtype
        case = Case(replace(workload, dtype=dtype), not options.forward)
        result = try_all(case, plans_of, options.clock)
        shape = asdict(call_shape(case.workload, case.training, CPU))
        figures = {"call": shape, **asdict(result)}
        append(
            "planner_regret", run, figures | {"regret": result.regret, "speedup": result.speedup}
        )
        print(_row(workload, result), flush=True)
        results.append(result)
    print(summary(results))
    return None


if __name__ == "__main__":
    main()
