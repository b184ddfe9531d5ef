"""How far the planner's choice is from the best plan, found by trying them all.

    python -m bench.planner_regret [--configurations 30] [--threads 2] [--clock wall|cpu]
                                  [--dtype bfloat16] [--forward]
    python -m bench.planner_regret --workloads     # those of bench/workloads.py instead
    python -m bench.planner_regret --fit           # a profile from all results so far

For random first layers of one to four maps, every assignment of gather or project to the layers is
timed, forward with backward (or alone), in turns within one process, and so are `plan="auto"` and
the peer, `grid_sample` + `cat` + `linear`. (For the workloads, which are large: auto's choice, all
gathered, and the choice with one layer changed.) Regret is auto's time over the least of any plan,
minus one. A table goes to the screen, and one line of JSON for each configuration is appended to
bench/results/planner_regret.jsonl.

The wall clock is disturbed by whatever else runs. The process's CPU time, on one thread, is not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelnet_triton import DeviceProfile, Plan
from pixelnet_triton.call.shape import CallShape, LayerShape
from pixelnet_triton.cpu.products import multiplies_half
from pixelnet_triton.env_report import cpu_name
from pixelnet_triton.planner import work_cpu
from pixelnet_triton.planner.calibration import Probe, fit, prepared, random_inputs
from pixelnet_triton.planner.choose import named_plan
from pixelnet_triton.planner.cost import CostModel
from pixelnet_triton.planner.profiles import SHIPPED
from pixelnet_triton.planner.store import profile_for

from .planning import call_shape
from .workloads import WORKLOADS

RESULTS = Path(__file__).parent / "results" / "planner_regret.jsonl"
CPU = torch.device("cpu")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Result:
    """One configuration: seconds of each plan, measured and predicted, by encoded plan.

    `auto` and `peer` are seconds, too. Auto may be faster than the plan it chooses: by name, that
    plan keeps nothing for its backward pass, which a small call else does.
    """

    call: CallShape
    chosen: str
    measured: dict[str, float]
    predicted: dict[str, float]
    auto: float
    peer: float

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
        gather = Plan(("gather",) * len(self.call.layers), "two_step").encode()
        return self.measured[gather] / self.auto


def random_call(source: random.Random) -> CallShape:
    """A first layer of one to four maps: anything from tiny to a tenth of a second."""

    def around(least: int, most: int) -> int:
        return round(least * (most / least) ** source.random())

    image = around(32, 256)
    channels_last = source.random() < 0.5
    strides = sorted(source.choice((1, 2, 4, 8, 16, 32)) for _ in range(source.randint(1, 4)))
    layers = []
    for stride in strides:
        side = max(1, image // stride)
        layers.append(LayerShape(around(3, 64) * min(8, stride), side, side, channels_last))
    batch = source.choice((1, 1, 2, 4))
    points = batch * around(16, 3000 // batch)
    return CallShape(tuple(layers), batch, points, around(8, 1024), ragged=source.random() < 0.2)


def every_plan(call: CallShape, chosen: Plan) -> list[Plan]:
    """Gather or project, for each layer: what a CPU can do."""
    choices = itertools.product(("gather", "project_gather"), repeat=len(call.layers))
    return [Plan(layers, "two_step") for layers in choices]


def neighbours(call: CallShape, chosen: Plan) -> list[Plan]:
    """All layers gathered, the choice, and the choice with one layer changed."""
    plans = {Plan(("gather",) * len(call.layers), "two_step"): None, chosen: None}
    for i, strategy in enumerate(chosen.layers):
        other = "project_gather" if strategy == "gather" else "gather"
        cells = call.batch * call.layers[i].cells
        if cells <= 4 * call.points:  # projecting more cells than that takes minutes
            plans[Plan((*chosen.layers[:i], other, *chosen.layers[i + 1 :]), "two_step")] = None
    return list(plans)


def try_all(
    call: CallShape,
    profile: DeviceProfile,
    clock: Callable[[], float],
    plans_of: Callable[[CallShape, Plan], list[Plan]] = every_plan,
    rounds: int = 15,
    seconds_a_round: float = 0.01,
) -> Result:
    """Time the plans of a call in turns, `rounds` times each after one to warm up; the least."""
    chosen = named_plan("auto", call, profile)
    plans = plans_of(call, chosen)
    once = [prepared(call, plan, CPU) for plan in plans]
    once += [prepared(call, "auto", CPU), peer(call)]

    def run(function: Callable[[], None], times: int) -> float:
        start = clock()
        for _ in range(times):
            function()
        return (clock() - start) / times

    for function in once:
        function()
    times = [max(1, int(seconds_a_round / max(run(f, 1), 1e-6))) for f in once]
    seconds: list[list[float]] = [[] for _ in once]
    turns = list(zip(seconds, once, times, strict=True))
    order = random.Random(0)  # so that nobody always follows the same neighbour
    for _ in range(rounds):
        order.shuffle(turns)
        for own, function, n in turns:
            function()  # not counted: it finds the memory as the last one left it
            own.append(run(function, n))
    model = CostModel(call, profile)
    *of_plans, auto, of_peer = (min(own) for own in seconds)
    return Result(
        call,
        chosen.encode(),
        {plan.encode(): own for plan, own in zip(plans, of_plans, strict=True)},
        {plan.encode(): model.seconds(plan) for plan in plans},
        auto,
        of_peer,
    )


def peer(call: CallShape) -> Callable[[], None]:
    """`grid_sample` of each layer + `cat` + `linear`, image by image where points are ragged."""
    maps, points, index, weight = random_inputs(call, CPU)

    def sampled(features: list[Tensor], at: Tensor) -> Tensor:
        grid = (2 * at - 1)[:, None]  # (B, 1, N, 2)
        each = [  # in half precision `grid_sample` would round the coordinates, too
            F.grid_sample(f.float(), grid, padding_mode="border", align_corners=False)
            for f in features
        ]
        return torch.cat(each, 1)[:, :, 0].mT.to(weight.dtype)  # (B, N, sum C)

    def hypercolumns() -> Tensor:
        if index is None:
            return sampled(maps, points)
        h = maps[0].new_empty((len(points), weight.shape[1]))
        for image in range(call.batch):
            own = (index == image).nonzero()[:, 0]
            of_image = sampled([f[image : image + 1] for f in maps], points[own][None])
            h = h.index_put((own,), of_image[0])
        return h

    def once() -> None:
        y = F.linear(hypercolumns(), weight)
        if call.training:
            torch.autograd.grad(y, [*maps, weight], y.detach())

    return once


def workload_calls(dtype: str) -> list[CallShape]:
    """W1 to W5 on one image (W4: two), in both layouts."""
    return [
        call_shape(replace(workload, images=images, dtype=dtype, channels_last=last), True, CPU)
        for workload in WORKLOADS
        for images in [2 if workload.name == "W4" else 1]
        for last in (True, False)
    ]


def fitted(clock: str, threads: int) -> DeviceProfile:
    """The profile nearest to all results of this machine in the file by that clock.

    By name, a plan that gathers all layers keeps nothing for its backward pass, which auto does in
    small calls; it counts with auto's time if that is what auto did, and in small calls only then.
    """
    probes = []
    for text in RESULTS.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        if (line["cpu"], line["clock"], line["threads"]) != (cpu_name(), clock, threads):
            continue
        layers = tuple(LayerShape(**layer) for layer in line["call"].pop("layers"))
        call = CallShape(layers=layers, **line["call"])
        measured = dict(line["measured"])
        gather = Plan(("gather",) * len(layers), "two_step").encode()
        way = work_cpu.way_of(call, all_gathered=True)
        if line["chosen"] == gather:
            measured[gather] = line["auto"]
        elif way is work_cpu.Way.KEPT:
            del measured[gather]
        probes += [Probe(call, Plan.decode(p), t) for p, t in measured.items()]
    return fit(probes, SHIPPED["cpu"].with_threads(threads))


def record(result: Result, profile: DeviceProfile, clock: str) -> None:
    """Append one line to the results, with what it takes to read it later."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent
    ).stdout.strip()
    line = {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit or None,
        "torch": torch.__version__,
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "clock": clock,
        "profile": str(profile),
        **asdict(result),
        "regret": result.regret,
        "speedup": result.speedup,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _row(number: int, result: Result) -> str:
    letters = "".join(s[0] for s in Plan.decode(result.chosen).layers)
    best = "".join(s[0] for s in Plan.decode(result.best).layers)
    call = result.call
    maps = " ".join(f"{layer.channels}@{layer.rows}" for layer in call.layers)
    layout = "nhwc" if call.layers[0].channels_last else "nchw"
    kind = f"{layout}{' ragged' if call.ragged else ''}"
    predicted = result.predicted[result.chosen]
    return (
        f"{number:3}  {call.batch} x {maps:<34} {kind:<11} P {call.points:<5} "
        f"D {call.out_features:<5} {letters:<6} {best:<6} {result.auto * 1e3:9.3f} "
        f"{predicted * 1e3:9.3f} {result.regret:7.1%} {result.gain:6.2f}x {result.speedup:6.2f}x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--configurations", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--forward", action="store_true", help="without the backward pass")
    parser.add_argument("--workloads", action="store_true")
    parser.add_argument("--fit", action="store_true")
    options = parser.parse_args()
    if options.fit:
        print(json.dumps(fitted(options.clock, options.threads).as_dict(), indent=1))
        return
    torch.set_num_threads(options.threads)
    profile = profile_for(CPU)
    source = random.Random(options.seed)
    calls = [random_call(source) for _ in range(options.configurations)]
    if options.workloads:
        calls = workload_calls(options.dtype)
    elif options.dtype == "bfloat16":
        units = multiplies_half(torch.bfloat16)
        calls = [replace(call, itemsize=2, half_products=units) for call in calls]
    calls = [replace(call, training=not options.forward) for call in calls]
    plans_of, rounds = (neighbours, 5) if options.workloads else (every_plan, 15)
    print(f"profile: {profile}; g: gather, p: project; ms of {options.clock} time")
    print(f"{'':71}plan   best     measured predicted  regret  gain   peer")
    results = []
    for number, call in enumerate(calls):
        results.append(try_all(call, profile, CLOCKS[options.clock], plans_of, rounds))
        record(results[-1], profile, options.clock)
        print(_row(number, results[-1]), flush=True)
    regrets = [result.regret for result in results]
    within = sum(regret <= 0.15 for regret in regrets)
    errors = [abs(r.predicted[p] / r.measured[p] - 1) for r in results for p in r.measured]
    print(
        f"within 15% of the best: {within} of {len(results)}; regret median "
        f"{statistics.median(regrets):.1%}, worst {max(regrets):.1%}; "
        f"prediction off by {statistics.median(errors):.0%} (median)"
    )
    speedups = [result.speedup for result in results]
    slower = sum(speedup < 1 for speedup in speedups)
    print(
        f"slower than grid_sample + cat + linear: {slower} of {len(results)}; times as fast: "
        f"median {statistics.median(speedups):.2f}, least {min(speedups):.2f}"
    )


if __name__ == "__main__":
    main()
