"""An executor launches what Triton itself would, whatever its calls may differ in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from triton import knobs
from triton.runtime.driver import driver

from pixelnet_triton.call import (
    CallShape,
    Executor,
    LayerShape,
    Linear,
    Plan,
    Route,
    Sampling,
    Wanted,
    layer_geometry,
)
from pixelnet_triton.gpu import BACKEND, backend
from pixelnet_triton.kernels import direct

from .stand_in import Driver, misaligned, takes_direct_launches
from .targets import TARGETS


@takes_direct_launches
def test_tensors_that_begin_elsewhere_are_of_another_kind(
    stand_in: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An executor launches what Triton itself would, wherever in memory the call's tensors are."""
    shape = CallShape((LayerShape(8, 5, 6), LayerShape(16, 3, 3)), 2, 14, 16, 2, ragged=True)
    geometry = layer_geometry([(5, 6), (3, 3)], (10, 12))
    route = Route("", "", ("fused_linear", "project_rows"), ("scatter", "collect"))
    plan = Plan(("gather", "project"), "one_pass", route)
    half = {"dtype": torch.bfloat16}
    usual_tensors = {
        "fine": torch.zeros(2, 8, 5, 6, **half),
        "coarse": torch.zeros(2, 16, 3, 3, **half),
        "points": torch.zeros(14, 2),
        "index": torch.zeros(14, dtype=torch.int64),
        "weight": torch.zeros(16, 24, **half),
        "bias": torch.zeros(16, **half),
        "grad": torch.zeros(14, 16, **half),
        "output": torch.zeros(14, 16, **half),
    }

    def compiled(executor: Executor, given: dict[str, torch.Tensor]) -> list[Any]:
        fine, coarse, points, index, weight, bias, grad, output = given.values()
        s = Sampling([fine, coarse], points, index, geometry)
        head = Linear(weight, bias, "relu")
        executor.forward(s, head)
        executor.backward(s, head, grad, output, Wanted((True, True), False, True, True))
        ran = [one.compiled for one in stand_in.ran]
        stand_in.ran.clear()
        return ran

    known = BACKEND.executor(shape, geometry, plan)
    kinds = [usual_tensors]
    for name, tensor in usual_tensors.items():
        # Not contiguous, it is copied to an aligned address, which says nothing of the next.
        if tensor.dim() == 2:
            kinds.append(usual_tensors | {name: misaligned(tensor.t().contiguous()).t()})
        kinds.append(usual_tensors | {name: misaligned(tensor)})
    for kind in [*kinds, *kinds]:
        with monkeypatch.context() as patch:
            patch.setattr(direct, "_AS_EXPECTED", False)
            patch.setattr(direct, "_FORMS", {})
            expected = compiled(BACKEND.executor(shape, geometry, plan), kind)
        assert compiled(known, kind) == expected
    assert compiled(known, kinds[-1]) != compiled(known, usual_tensors)


@takes_direct_launches
def test_an_executor_looks_at_the_driver_debugging_and_hooks(
    stand_in: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its launches do not look at any more; its tensors are on one device."""
    shape = CallShape((LayerShape(8, 5, 6),), 2, 14, 0, 2)
    plan = Plan(("gather",), "two_step", Route("", "", ("gather",), ("scatter",)))
    executor = BACKEND.executor(shape, layer_geometry([(5, 6)], (10, 12)), plan)
    maps, points = [torch.zeros(2, 8, 5, 6, dtype=torch.bfloat16)], torch.zeros(14, 2)

    def compiled() -> Any:
        executor.forward(Sampling(maps, points, None, layer_geometry([(5, 6)], (10, 12))), None)
        return driver.active.take().compiled

    first = compiled()
    assert compiled() is first
    with monkeypatch.context() as patch:
        patch.setattr(knobs.runtime, "debug", True)
        assert compiled() is not first
    assert compiled() is first
    driver.set_active(Driver(TARGETS["sm_80"]))
    assert compiled() is not first
    driver.set_active(stand_in)
    before = stand_in.hooked
    hook = knobs.runtime.launch_enter_hook
    if hook is None:
        monkeypatch.setattr(knobs.runtime, "launch_enter_hook", print)
    else:
        monkeypatch.setattr(hook, "calls", [print])
    compiled()
    assert stand_in.hooked > before


@pytest.mark.parametrize(("current", "elsewhere"), [(0, False), (1, True)])
def test_launches_go_to_the_device_of_the_tensors(
    current: int, elsewhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is made the current one only where it is not, as that takes a few microseconds."""
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current)
    device = torch.device("cuda", 0)
    tensor: Any = SimpleNamespace(is_cuda=True, device=device, get_device=lambda: 0)
    entered: list[torch.device] = []

    class Entered:
        def __init__(self, device: torch.device) -> None:
            entered.append(device)

        def __enter__(self) -> None:
            monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(torch.cuda, "device", Entered)
    route = Route("", "", ("gather",), ("scatter",))
    steps: Any = SimpleNamespace(
        settings=lambda dtype: None,
        gather=lambda s: torch.cuda.current_device(),
        hypercolumn_gradients=lambda *_: torch.cuda.current_device(),
    )
    executor: Any = backend.Launches(route, steps)
    monkeypatch.setattr(executor, "_recall", lambda *_, **__: None)
    s: Any = SimpleNamespace(points=tensor)
    assert executor.forward(s, None) == 0
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current)
    assert executor.backward(s, None, None, None, None) == 0
    assert entered == 2 * elsewhere * [device]
