"""`calibrate`: find the rates of this machine by running the library itself.

The model says time = sum over kinds of work of amount * cost. Each probe is a call with a forced
plan, whose amounts are known and whose time is measured; the costs are then a least-squares fit
of relative errors. They are kept positive, and what the probes cannot tell apart stays near the
shipped profile.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np

from .call import STRATEGIES, Backend, CallShape, DeviceProfile, LayerShape, Plan, Work
from .functional import sparse_hypercolumn
from .op import backend_for, backend_named, forget_calls
from .planner import CostModel
from .planner.profiles import shipped_profile
from .planner.store import profile_path, save_profile
from .tools.machine import device_name

__all__ = ["Probe", "calibrate", "fit", "measure"]

# How strongly a cost is drawn to the shipped one, where a probe's relative error counts 1.
TOWARDS_SHIPPED = 0.2
BOUNDS = (0.1, 10.0)
REPEATS, SECONDS_A_REPEAT = 4, 0.015


@dataclass(frozen=True)
class Probe:
    """A call, how to compute it, and the seconds that it took (0: not measured)."""

    call: CallShape
    plan: Plan
    seconds: float = 0.0


def calibrate(
    device: torch.device | str | None = None, save: bool = True, verbose: bool = True
) -> DeviceProfile:
    """Measure this machine for the planner; it takes some seconds.

    Args:
        device: the GPU or CPU to measure; by default the current GPU if there is one.
        save: keep the profile in the cache folder, where later processes find it; plans made in
            this one are made anew.
        verbose: report progress on standard error.

    Returns:
        The profile, whose `source` tells when, and how well it explains the measurements.

    Raises:
        ValueError: `device` is a GPU that is not there.
        OSError: there is no cache folder, which is said at once, or it cannot be written (see
            ``PIXELNET_TRITON_CACHE``).

    Example:
        >>> import pixelnet_triton
        >>> profile = pixelnet_triton.calibrate(save=False)  # doctest: +SKIP
        >>> print(profile)  # doctest: +SKIP
    """
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if where.type == "cuda" and (where.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device={str(where)!r}, but torch finds {torch.cuda.device_count()} GPUs; there is "
            "nothing to measure. Pass one that is there, or device='cpu'"
        )
    path = profile_path(where) if save else None
    start = shipped_profile(where).with_threads(torch.get_num_threads())
    backend = backend_for(where)
    probes = [Probe(call, plan) for call in _calls(where) for plan in _plans(call, backend)]
    measured = []
    for n, probe in enumerate(probes):
        if verbose:
            print(f"\rcalibrating {where}: {n + 1} of {len(probes)}", end="", file=sys.stderr)
        with torch.inference_mode(False), torch.enable_grad():  # some probes are of training
            seconds = measure(probe.call, probe.plan, where)
        measured.append(replace(probe, seconds=seconds))
    profile = fit(measured, backend, start)
    errors = [
        abs(CostModel(p.call, backend, profile).seconds(p.plan) / p.seconds - 1) for p in measured
    ]
    profile = replace(
        profile,
        name=device_name(where),
        source=f"measured on {date.today()} with torch {torch.__version__}, "
        f"{len(measured)} calls, median error {statistics.median(errors):.0%}",
    )
    if verbose:
        print(f"\r{profile}", file=sys.stderr)
    if path is not None:
        save_profile(profile, path)
        forget_calls()
    return profile


def _calls(device: torch.device) -> list[CallShape]:
    """Shapes on which different kinds of work dominate, from tiny ones to milliseconds."""

    def stack(*sizes: tuple[int, int], channels_last: bool = True) -> tuple[LayerShape, ...]:
        return tuple(LayerShape(channels, side, side, channels_last) for channels, side in sizes)

    tiny, small = stack((16, 8)), stack((24, 24), (64, 6), (96, 3))
    on_cpu = device.type == "cpu"
    itemsizes = (4,) if on_cpu else (2, 4)
    scale = 1 if on_cpu else 8
    three = ((64, 112), (256, 28), (512, 7)) if on_cpu else ((64, 224), (256, 56), (1024, 14))
    fine, middle, coarse = three
    shapes: list[tuple[tuple[LayerShape, ...], int, int, int, bool]] = [
        # layers, images, points of all images, outputs, ragged
        (tiny, 1, 32, 16, False),
        (tiny, 1, 32, 1024, False),
        (small, 2, 200, 64, False),
        (small, 2, 600, 8, True),
        (stack(fine), 1, 1000 * scale, 64, False),
        (stack(fine, channels_last=False), 1, 1000 * scale, 64, False),
        (stack(middle), 2, 800 * scale, 256, False),
        (stack(middle, channels_last=False), 2, 2000 * scale, 8, False),
        (stack(coarse), 4, 2000 * scale, 1024, False),
        (stack(*three), 2, 1000 * scale, 512, False),
        (stack(*three, channels_last=False), 2, 1000 * scale, 128, False),
        (stack(*three), 2, 1000 * scale, 64, True),
    ]
    calls = [
        CallShape(
            *(layers, batch, points, width, itemsize, ragged, training),
            half_products=not on_cpu,
            torch_coordinates=True,  # as in `prepared`
        )
        for itemsize in itemsizes
        for layers, batch, points, width, ragged in shapes
        for training in (False, True)
    ]
    if on_cpu and backend_named("cpu").multiplies(torch.bfloat16):  # only their products differ
        calls += [
            CallShape(stack(*three), 1, 2000, width, 2, half_products=True) for width in (512, 2048)
        ]
    return calls


def _plans(call: CallShape, backend: Backend) -> list[Plan]:
    """All layers gathered in each mode, projected, and a mixture, by each route."""
    layers = len(call.layers)
    uniform = [
        Plan((strategy,) * layers, mode)
        for mode in backend.modes
        for strategy in STRATEGIES
        if mode == "two_step" or strategy == "gather"
    ]
    mixed = [Plan(("gather",) + ("project",) * (layers - 1), "two_step")] if layers > 1 else []
    return [
        replace(plan, route=route)
        for plan in uniform + mixed[: layers - 1]
        for route in backend.routes(call, plan)
    ]


def measure(call: CallShape, plan: Plan, device: torch.device) -> float:
    """Seconds of a call with this plan, on random inputs: the least disturbed of some repeats."""
    once = prepared(call, plan, device)

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def run(times: int) -> float:
        wait()
        start = time.perf_counter()
        for _ in range(times):
            once()
        wait()
        return (time.perf_counter() - start) / times

    run(1)
    times = max(1, min(1000, int(SECONDS_A_REPEAT / run(1))))
    return min(run(times) for _ in range(REPEATS))


def prepared(call: CallShape, plan: Plan | str, device: torch.device) -> Callable[[], None]:
    """The call on random inputs, ready to run: forward, or forward and backward."""
    maps, points, index, weight = random_inputs(call, device)

    def once() -> None:
        y = sparse_hypercolumn(
            maps,
            points,
            (256, 256),
            weight=weight,
            batch_index=index,
            coordinates="unit",
            plan=plan,
        )
        if call.training:
            torch.autograd.grad(y, [*maps, weight], y.detach())

    return once


def random_inputs(
    call: CallShape, device: torch.device
) -> tuple[list[Tensor], Tensor, Tensor | None, Tensor]:
    """Maps, points in [0, 1], batch_index and weight of that shape; always the same."""
    dtype = {8: torch.float64, 4: torch.float32, 2: torch.bfloat16}[call.itemsize]
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float32).to(device, dtype)

    maps = [normal(call.batch, layer.channels, layer.rows, layer.columns) for layer in call.layers]
    for i, layer in enumerate(call.layers):
        if layer.channels_last:
            maps[i] = maps[i].contiguous(memory_format=torch.channels_last)
    weight = normal(call.out_features, sum(layer.channels for layer in call.layers))
    points = torch.rand(call.points, 2, generator=random, dtype=torch.float32).to(device)
    index = None
    if call.ragged:
        index = torch.randint(call.batch, (call.points,), generator=random).to(device)
    else:
        points = points.unflatten(0, (call.batch, -1))
    for leaf in (*maps, weight):
        leaf.requires_grad_(call.training)
    return maps, points, index, weight


def fit(probes: list[Probe], backend: Backend, start: DeviceProfile) -> DeviceProfile:
    """The profile whose predictions are nearest to the probes' seconds, in relative terms.

    Minimises the sum over probes of (predicted / measured - 1)^2, plus a small penalty on
    (cost / shipped cost - 1)^2, over costs within BOUNDS of the shipped ones: by coordinate
    descent, which for a convex quadratic under bounds on each variable finds the minimum.
    """
    import numpy as np  # `import pixelnet_triton` needs torch alone

    kinds = Work._fields
    itemsizes = sorted({probe.call.itemsize for probe in probes})
    variables = [(kind, size) for kind in kinds for size in _sizes(kind, itemsizes)]
    shares = np.zeros((len(probes), len(variables)))
    for row, probe in enumerate(probes):
        model = CostModel(probe.call, backend, start)
        work, costs = model.work(probe.plan).total, model.costs
        for column, (kind, size) in enumerate(variables):
            if size in (None, probe.call.itemsize):
                shares[row, column] = getattr(work, kind) * getattr(costs, kind) / probe.seconds
    factors = _bounded_least_squares(shares)
    fitted: dict[str, float] = {}
    for (kind, size), factor in zip(variables, factors, strict=True):
        name = (
            "operator_seconds"
            if kind == "operators"
            else kind
            if size is None
            else f"{kind}_{8 * size}"
        )
        change = factor if kind == "operators" else 1 / factor
        fitted[name] = float(f"{getattr(start, name) * change:.3g}")
    return replace(start, **fitted)  # type: ignore[arg-type]


def _sizes(kind: str, itemsizes: list[int]) -> list[int] | list[None]:
    """Products have a rate for each element size, everything else has one."""
    return itemsizes if kind in ("dense_flops", "fused_flops") else [None]


def _bounded_least_squares(shares: np.ndarray) -> np.ndarray:
    """Factors f in BOUNDS of least |shares f - 1|^2 + TOWARDS_SHIPPED^2 |f - 1|^2."""
    import numpy as np

    normal = shares.T @ shares + TOWARDS_SHIPPED**2 * np.eye(shares.shape[1])
    right = shares.sum(0) + TOWARDS_SHIPPED**2
    factors = np.ones(len(right))
    for _ in range(2000):
        for k in range(len(factors)):
            step = (right[k] - normal[k] @ factors) / normal[k, k]
            factors[k] = np.clip(factors[k] + step, *BOUNDS)
    return factors
