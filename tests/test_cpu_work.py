"""The work table of the CPU against calls that are counted: operators dispatched, and FLOPs."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from pixelnet_triton import Plan, sparse_hypercolumn
from pixelnet_triton.calibration import random_inputs
from pixelnet_triton.call import CallShape, LayerShape, Route
from pixelnet_triton.cpu import picked, reading
from pixelnet_triton.cpu.backend import BACKEND
from pixelnet_triton.cpu.work import FUNCTION_OPERATORS, LOCATING_OPERATORS, picking_operators

CPU = torch.device("cpu")
SIZES = ((20, 40, 41), (8, 12, 13), (3, 4, 5))
WIDE = ((20, 40, 41), (18, 12, 13), (16, 4, 5))  # of many outputs: fewer channels are filled up


class Operators(TorchDispatchMode):
    """Counts what PyTorch dispatches, and what finding corners by NumPy is worth."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __enter__(self) -> Any:
        locate = reading.locate

        def counting(*args: Any, **kwargs: Any) -> Any:
            self.count += LOCATING_OPERATORS
            return locate(*args, **kwargs)

        self._patches = [mock.patch.object(it, "locate", counting) for it in (reading, picked)]
        for patch in self._patches:
            patch.start()
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        for patch in self._patches:
            patch.stop()
        super().__exit__(*raised)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.count += 1
        return function(*args, **(kwargs or {}))


# Older versions dispatch up to a third fewer operators, which the table does not follow.
COUNTED = tuple(int(n) for n in torch.__version__.split(".")[:2]) >= (2, 13)


@pytest.fixture(autouse=True)
def _cpu_only(device: torch.device) -> None:
    if device.type != "cpu":
        pytest.skip("about the CPU back end")


def shapes() -> list[CallShape]:
    """One image and several, rows and planes, ragged points, one block of outputs and several."""
    return [
        CallShape(
            tuple(
                LayerShape(*size, channels_last=last)
                for size in (SIZES if outputs == 16 else WIDE)[:layers]
            ),
            batch,
            batch * points,
            outputs,
            ragged=ragged,
            torch_coordinates=True,
        )
        for layers in (1, 3)
        for last in (True, False)
        for batch, ragged in ((1, False), (3, False), (3, True))
        for points, outputs in ((30, 16), (500, 16), (500, 2100))
    ]


def plans(shape: CallShape) -> list[Plan]:
    """All gathered, all projected and a mixture, by each route with one way there and back."""
    layers = len(shape.layers)
    mixed = ("gather", "project", "gather")[:layers]
    strategies = {("gather",) * layers, ("project",) * layers, mixed}
    return [
        replace(plan, route=route)
        for plan in [Plan(s, "two_step") for s in sorted(strategies)]
        for route in BACKEND.routes(shape, plan)
        if route.by_autograd or route.forward == route.backward
    ]


def expressions() -> list[tuple[CallShape, Plan]]:
    """Of points between pixels: maps are sampled in float64, or the cells touched are picked."""
    between = [
        replace(shape, torch_coordinates=False, single=False)
        for shape in shapes()
        if shape.points == 30 * shape.batch
    ]
    return [(s, p) for s in between for p in plans(s) if p.route and p.route.by_autograd]


CALLS = [(shape, plan) for shape in shapes() for plan in plans(shape)] + expressions()


def call_id(value: CallShape | Plan) -> str:
    if isinstance(value, Plan):
        letters = "".join(strategy[0] for strategy in value.layers)
        assert value.route is not None
        picks = "-picks" if "picked" in value.route.read and value.route.by_autograd else ""
        return f"{letters}-{value.route.forward}{picks}"
    layout = "nhwc" if value.layers[0].channels_last else "nchw"
    kind = f"{layout}{'-ragged' if value.ragged else ''}{'' if value.single else '-between'}"
    return f"{len(value.layers)}x{value.batch}-{kind}-{value.points}-{value.out_features}"


def counted(shape: CallShape, plan: Plan, moving: bool = False) -> tuple[int, int]:
    """Operators of the forward pass, and of forward and backward."""
    maps, points, index, weight = random_inputs(shape, CPU)
    points.requires_grad_(moving)
    options = {"weight": weight, "batch_index": index, "plan": plan}
    options["coordinates"] = "unit" if shape.torch_coordinates else "pixel"

    def forward() -> torch.Tensor:
        return sparse_hypercolumn(maps, points, (256, 256), **options)

    forward()  # what is made once for all calls of a kind is made now
    with Operators() as there:
        y = forward()
    with Operators() as back:
        torch.autograd.grad(y, [*maps, weight, *[points] * moving], y.detach())
    return there.count, there.count + back.count


@pytest.mark.skipif(not COUNTED, reason="the table counts the operators of torch 2.13")
@pytest.mark.parametrize(("shape", "plan"), CALLS, ids=call_id)
def test_operators_are_counted(shape: CallShape, plan: Plan) -> None:
    assert plan.route is not None
    forward, both = counted(shape, plan)
    predicted = BACKEND.work(shape, plan).total.operators
    if plan.route.by_autograd:
        both += forward - picking_operators(shape, plan.route)  # what is recorded counts twice
    else:
        predicted -= 2 * FUNCTION_OPERATORS
    assert predicted == pytest.approx(both, rel=0.25)


@pytest.mark.skipif(not COUNTED, reason="the table counts the operators of torch 2.13")
@pytest.mark.parametrize(("shape", "plan"), CALLS[::3], ids=call_id)
def test_operators_for_points_are_counted(shape: CallShape, plan: Plan) -> None:
    assert plan.route is not None
    if plan.route.by_autograd:
        pytest.skip("points want no gradient of it")
    shape = replace(shape, moving_points=True)
    predicted = BACKEND.work(shape, plan).total.operators - 2 * FUNCTION_OPERATORS
    assert predicted == pytest.approx(counted(shape, plan, moving=True)[1], rel=0.25)


@pytest.mark.skipif(not COUNTED, reason="the table counts the operators of torch 2.13")
def test_the_forward_pass_is_counted_by_itself() -> None:
    for shape, plan in CALLS[::7] + expressions():
        route = plan.route
        assert route is not None
        inference = replace(shape, training=False)
        alone = replace(plan, route=Route(route.forward, "", route.read, (), route.by_autograd))
        predicted = BACKEND.work(inference, alone).total.operators
        predicted -= 0 if route.by_autograd else FUNCTION_OPERATORS
        assert predicted == pytest.approx(counted(shape, plan)[0], rel=0.25)


@pytest.mark.parametrize(("shape", "plan"), CALLS[::5], ids=call_id)
def test_flops_are_counted(shape: CallShape, plan: Plan) -> None:
    maps, points, index, weight = random_inputs(shape, CPU)
    with warnings.catch_warnings(), FlopCounterMode(display=False) as counter:
        warnings.simplefilter("ignore")  # flop_counter of some torch warns of itself
        y = sparse_hypercolumn(
            maps,
            points,
            (256, 256),
            weight=weight,
            batch_index=index,
            coordinates="unit" if shape.torch_coordinates else "pixel",
            plan=plan,
        )
        torch.autograd.grad(y, [*maps, weight], y.detach())
    assert BACKEND.work(shape, plan).total.flops == counter.get_total_flops()
