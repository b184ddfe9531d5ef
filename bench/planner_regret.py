"""How far the planner's choice is from the best plan, found by trying them all.

    python -m bench.planner_regret                 # random first layers
    python -m bench.planner_regret --of small      # calls bound by the host
    python -m bench.planner_regret --of workloads  # those of bench/workloads.py

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
from dataclasses import asdict, replace

import torch

from .machine import identity
from .measure import Preparation
from .planning import Plan, call_shape, plan_of, predicted
from .report_planner import best, regret, regrets
from .results import Line, append, duration
from .workloads import WORKLOADS, Case, Workload, random_workloads, small_workloads

CPU = torch.device("cpu")
PEER = "grid_sample"


def plans_of(workload: Workload, chosen: Plan) -> list[Plan]:
    """Gather or project, for each layer: what a CPU can do. Of a workload, which is large: all
    layers gathered, the choice, and the choice with one layer changed."""
    choices = itertools.product(("gather", "project_gather"), repeat=len(workload.layers))
    plans = [Plan(layers, "two_step") for layers in choices]
    if workload.family != "workload":
        return plans

    def near(plan: Plan) -> bool:
        changed = [i for i, layer in enumerate(plan.layers) if layer != chosen.layers[i]]
        cells = [workload.layers[i][1] * workload.layers[i][2] for i in changed]
        # Projecting more cells than that takes minutes.
        return len(changed) <= 1 and all(n <= 4 * workload.points for n in cells)

    return [plan for plan in plans if near(plan) or not plan.projected]


def try_all(case: Case) -> Line:
    """Time the plans of a call in turns; all are checked first."""
    chosen = plan_of("auto", case, CPU)
    plans = {plan.encode(): plan for plan in plans_of(case.workload, chosen)}
    # Not strict: whether each route is as accurate as it could be is for the test suite to say.
    lines = Preparation(case, CPU, strict=False).measure(["auto", PEER, *plans])
    for name, line in lines.items():
        assert "problem" not in line, f"{case}: {name}: {line['problem']}"
    seconds = {name: line["p20"] for name, line in lines.items()}
    return {
        "call": asdict(call_shape(case, CPU)),
        "profile": predicted(chosen, case, CPU)[2],
        "chosen": chosen.encode(),
        "measured": {name: seconds[name] for name in plans},
        "predicted": {name: predicted(plan, case, CPU)[1] for name, plan in plans.items()},
        "auto": seconds["auto"],
        "peer": seconds[PEER],
    }


def workload_cases() -> list[Workload]:
    """W1 to W5 on one image (W4: two), in both layouts."""
    return [
        replace(workload, images=2 if workload.name == "W4" else 1, channels_last=last)
        for workload in WORKLOADS
        for last in (True, False)
    ]


KINDS = {"random": random_workloads, "small": small_workloads, "workloads": workload_cases}


def main(arguments: list[str] | None = None) -> None:
    """Measure, record and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.planner_regret", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--of", choices=KINDS, default="random", help="default: %(default)s")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="instead of their own")
    parser.add_argument("--forward", action="store_true", help="without the backward pass")
    options = parser.parse_args(arguments)
    run = {**identity(CPU), "clock": "wall"}
    lines = []
    for workload in KINDS[options.of]():
        case = Case(replace(workload, dtype=options.dtype or workload.dtype), not options.forward)
        line = append("planner_regret", run, try_all(case))
        lines.append(line)
        print(
            f"{case}: {case.workload.sizes()}: {line['chosen']} {duration(line['auto'])}, "
            f"best {best(line)}, regret {regret(line):.1%}",
            flush=True,
        )
    print(regrets(lines))


if __name__ == "__main__":
    main()
