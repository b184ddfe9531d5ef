"""How far the planner's choice is from the best plan, found by trying them all.

    python -m bench.planner_regret                 # random first layers
    python -m bench.planner_regret --small         # calls bound by the host
    python -m bench.planner_regret --workloads     # those of bench/workloads.py

For random first layers of one to four maps, every assignment of gather or project to the layers is
timed, forward with backward (or alone), in turns within one process, and so are `plan="auto"` and
`grid_sample` + `cat` + `linear`. (For the workloads, which are large: auto's choice, all gathered,
and the choice with one layer changed.) Regret is auto's time over the least of any plan, minus one;
times are 20th percentiles. Tables go to the screen, and a line for each call to
bench/results/planner_regret.jsonl.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from dataclasses import asdict, replace

import torch

from .machine import identity
from .measure import measure_case
from .planning import Plan, call_shape, plan_of, predicted
from .report_planner import Result, regrets
from .results import append, duration
from .workloads import WORKLOADS, Case, Workload, random_workloads, small_workloads

CPU = torch.device("cpu")
PEER = "grid_sample"


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


def try_all(case: Case, plans_of: Callable[[Workload, Plan], list[Plan]] = every_plan) -> Result:
    """Time the plans of a call in turns; all are checked first."""
    chosen = plan_of("auto", case, CPU)
    plans = {plan.encode(): plan for plan in plans_of(case.workload, chosen)}
    names = ["auto", PEER, *plans]
    # Not strict: whether each route is as accurate as it could be is for the test suite to say.
    lines = measure_case(case, names, CPU, memory=False, cold=False, strict=False)
    for name, line in lines.items():
        assert "problem" not in line, f"{case}: {name}: {line['problem']}"
    seconds = {name: line["p20"] for name, line in lines.items()}
    return Result(
        chosen.encode(),
        {name: seconds[name] for name in plans},
        {name: predicted(plan, case, CPU)[1] for name, plan in plans.items()},
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


def main(arguments: list[str] | None = None) -> None:
    """Measure, record and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.planner_regret", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--configurations", type=int, default=30, help="random layers (30)")
    parser.add_argument("--seed", type=int, default=0, help="of the random layers (0)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch's")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="instead of their own")
    parser.add_argument("--forward", action="store_true", help="without the backward pass")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--small", action="store_true", help="small calls instead")
    kind.add_argument("--workloads", action="store_true", help="W1 to W5 instead")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    workloads = random_workloads(options.configurations, options.seed)
    if options.small:
        workloads = small_workloads()
    elif options.workloads:
        workloads = workload_cases()
    plans_of = neighbours if options.workloads else every_plan
    run = {**identity(CPU), "clock": "wall"}
    lines = []
    for workload in workloads:
        case = Case(replace(workload, dtype=options.dtype or workload.dtype), not options.forward)
        result = try_all(case, plans_of)
        shape = asdict(call_shape(case, CPU))
        profile = predicted(Plan.decode(result.chosen), case, CPU)[2]
        figures = {"call": shape, "profile": profile, **asdict(result)}
        lines.append(append("planner_regret", run, figures))
        print(
            f"{case}: {case.workload.sizes()}: {result.chosen} {duration(result.auto)}, "
            f"best {result.best}, regret {result.regret:.1%}",
            flush=True,
        )
    print(regrets(lines))


if __name__ == "__main__":
    main()
