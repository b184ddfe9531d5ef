"""A direct launch hands the compiled kernel what Triton would hand to the same one.

Nothing is compiled: a stand-in for the compiled kernel notes how it was run, and for what Triton
asked to have it compiled. Every kernel is launched with every single argument changed in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from triton import knobs
from triton.backends.amd.compiler import HIPBackend
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from pixelnet_triton.kernels import direct
from pixelnet_triton.kernels.direct import Launch, launch

from .launches import KERNELS, Problem
from .stand_in import Call, Driver, Ran, leaves, takes_direct_launches, variants
from .targets import TARGETS, compiling_for


@pytest.fixture(scope="module")
def calls() -> dict[str, list[Call]]:
    """The launches of every kernel, as the library makes them."""
    made: dict[str, list[Call]] = {name: [] for name in KERNELS}
    with compiling_for("sm_90"), pytest.MonkeyPatch.context() as patch:
        for name, kernel in KERNELS.items():

            def note(jit: Any, *args: Any, grid: Any, warmup: bool, name: str = name, **named: Any):
                made[name].append(Call(jit, grid, args, named))

            patch.setattr(JITFunction, "run", note)
            kernel.launch(Problem(torch.bfloat16), None)
    return made


def usual(call: Call) -> Ran:
    call.kernel[call.grid](*call.arguments, **call.named)
    return driver.active.take()


def through_launch(call: Call) -> Ran:
    launch(call.kernel, call.grid, **call.named)
    return driver.active.take()


def in_two_steps(call: Call) -> Launch:
    """What takes the arguments with tensors."""
    takes = {name for name, value in call.named.items() if has_tensors(value)}
    others = {name: value for name, value in call.named.items() if name not in takes}
    return Launch(call.kernel, call.grid, " ".join(sorted(takes)), **others)


def has_tensors(value: Any) -> bool:
    return any(isinstance(leaf, torch.Tensor) for leaf in leaves(value))


def second_step(launch: Launch, call: Call) -> Ran:
    launch(*[call.named[name] for name in sorted(call.named) if has_tensors(call.named[name])])
    return driver.active.take()


def count_usual(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels that Triton itself launches from here on."""
    went, run = [], JITFunction.run

    def counted(kernel: Any, *arguments: Any, **named: Any) -> Any:
        went.append(kernel.__name__)
        return run(kernel, *arguments, **named)

    monkeypatch.setattr(JITFunction, "run", counted)
    return went


@takes_direct_launches
@pytest.mark.parametrize("name", KERNELS)
def test_the_launcher_gets_what_triton_gives_it(
    name: str,
    calls: dict[str, list[Call]],
    stand_in: Driver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """First, while kinds are met; then once more, when all of them are known."""
    for call in calls[name]:
        before = [(variant, usual(variant)) for variant in variants(call)]
        for variant, expected in before:
            assert through_launch(variant).same(expected), variant
        assert len({id(ran.compiled) for _, ran in before}) > 10
        with monkeypatch.context() as patch:
            went = count_usual(patch)
            for variant, expected in before:
                assert through_launch(variant).same(expected), variant
        assert not went


def facts(call: Call) -> list[Any]:
    """What calls of one kind agree in: numbers, dtypes and alignment."""
    return [
        (leaf.dtype, leaf.data_ptr() % 16 == 0) if has_tensors(leaf) else leaf
        for leaf in leaves(tuple(call.named.values()))
    ]


@takes_direct_launches
@pytest.mark.parametrize("name", KERNELS)
def test_in_two_steps_too(
    name: str,
    calls: dict[str, list[Call]],
    stand_in: Driver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With every tensor exchanged in turn for one that is alike."""
    for call in calls[name]:
        made = in_two_steps(call)
        alike = [variant for variant in variants(call) if facts(variant) == facts(call)]
        assert len(alike) > 2
        expected = [(variant, usual(variant)) for variant in alike]
        second_step(made, call)
        with monkeypatch.context() as patch:
            went = count_usual(patch)
            patch.setattr(direct, "launch", None)
            for variant, ran in expected:
                assert second_step(made, variant).same(ran)
        assert not went


@takes_direct_launches
def test_on_amd_tensors_are_looked_at(
    calls: dict[str, list[Call]], stand_in: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There Triton compiles for the size of a tensor's memory, too: it is asked every time."""
    driver.set_active(Driver(TARGETS["gfx942"]))
    (call,) = calls["gather"]
    # The call was noted for an NVIDIA GPU, which alone has this option.
    call = call._replace(named={k: v for k, v in call.named.items() if k != "maxnreg"})
    made = in_two_steps(call)
    first = second_step(made, call)
    monkeypatch.setattr(HIPBackend, "is_within_2gb", lambda tensor: False)
    assert second_step(made, call).compiled is not first.compiled


@takes_direct_launches
def test_two_steps_look_at_the_stream(call: Call, stand_in: Driver) -> None:
    made = in_two_steps(call)
    second_step(made, call)
    stand_in.stream = 8
    assert second_step(made, call).stream == 8


@pytest.fixture
def call(calls: dict[str, list[Call]], stand_in: Driver) -> Call:
    """A launch that is known."""
    (call,) = calls["gather"]
    through_launch(call)
    return call


def with_points(call: Call, total: int) -> Call:
    return call._replace(named=call.named | {"points": call.named["points"]._replace(total=total)})


@takes_direct_launches
def test_numbers_of_points_share_what_was_compiled(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    through_launch(with_points(call, 1234567))
    went = count_usual(monkeypatch)
    for total in (3, 5, 4001, 2**31 - 1, 16, 4096):
        assert through_launch(with_points(call, total)).arguments
    assert not went
    assert through_launch(with_points(call, 1)).arguments
    assert len(went) == 1


def test_streams_and_grids_are_those_of_the_moment(call: Call, stand_in: Driver) -> None:
    stand_in.stream = 8
    ran = through_launch(call._replace(grid=(5,)))
    assert (ran.stream, ran.grid) == (8, (5, 1, 1))
    assert through_launch(call._replace(grid=(5, 6, 7))).grid == (5, 6, 7)


def test_another_device_has_its_own_kernel(call: Call, stand_in: Driver) -> None:
    first = through_launch(call).compiled
    stand_in.device = 1
    assert through_launch(call).compiled is not first
    stand_in.device = 0
    assert through_launch(call).compiled is first


def test_debugging_is_another_kind(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    first = through_launch(call).compiled
    monkeypatch.setattr(knobs.runtime, "debug", True)
    assert through_launch(call).compiled is not first


@takes_direct_launches
@pytest.mark.parametrize("name", ["launch_enter_hook", "launch_exit_hook"])
def test_hooks_are_told(
    name: str, call: Call, stand_in: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stand_in.hooked
    through_launch(call)
    assert stand_in.hooked == before
    hook = getattr(knobs.runtime, name)
    if hook is None:
        monkeypatch.setattr(knobs.runtime, name, print)
    else:
        monkeypatch.setattr(hook, "calls", [print])
    through_launch(call)
    assert stand_in.hooked > before


def unknown_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(JITFunction, "run", lambda kernel, *arguments, **named: None)
        expected = direct._as_expected()
    monkeypatch.setattr(direct, "_AS_EXPECTED", expected)


def switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXELNET_TRITON_DIRECT", "0")


@pytest.mark.parametrize("change", [unknown_versions, switched_off])
def test_the_usual_way_is_always_open(
    change: Callable[[pytest.MonkeyPatch], None],
    calls: dict[str, list[Call]],
    stand_in: Driver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change(monkeypatch)
    went = count_usual(monkeypatch)
    (call,) = calls["gather"]
    assert all(through_launch(call).same(usual(call)) for _ in range(2))
    assert len(went) == 4


def test_a_hook_before_a_run_is_called(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(call.kernel, "pre_run_hooks", [lambda *a, **k: told.append(1)])
    through_launch(call)
    assert told


def test_other_callables_are_launched_as_they_are() -> None:
    """The interpreter's kernels, and those under Triton's autotuner."""
    went = []

    class Kernel:
        fn, pre_run_hooks = print, ()

        def __getitem__(self, grid: Any) -> Callable[..., None]:
            return lambda **named: went.append((grid, named))

    for _ in range(2):
        launch(Kernel(), (1, 2), four=4)
        Launch(Kernel(), (1, 2), "three", four=4)(3)
    assert went == [((1, 2), {"four": 4}), ((1, 2), {"three": 3, "four": 4})] * 2


@takes_direct_launches
def test_what_was_only_compiled_is_not_remembered(
    calls: dict[str, list[Call]], stand_in: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    (call,) = calls["gather"]
    monkeypatch.setattr(JITFunction, "run", lambda *a, **k: SimpleNamespace(module=None))
    launch(call.kernel, call.grid, **call.named)
    (form,) = direct._FORMS.values()
    assert form is not None
    assert not form.known


@takes_direct_launches
def test_a_kernel_that_was_compiled_in_earnest(
    calls: dict[str, list[Call]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton's own `CompiledKernel`; only loading it and its launcher are stand-ins."""
    given: list[tuple[Any, ...]] = []
    active: Any = Driver(TARGETS["sm_90"])
    active.launcher_cls = lambda source, metadata: lambda *arguments: given.append(arguments)
    active.utils = SimpleNamespace(
        load_binary=lambda *arguments: (object(), 11, 32, 0, 1024),
        get_device_properties=lambda device: {"max_shared_mem": TARGETS["sm_90"].shared},
    )
    driver.set_active(active)
    monkeypatch.setattr(direct, "_FORMS", {})
    (call,) = calls["gather"]
    launch(call.kernel, call.grid, **call.named)
    went = count_usual(monkeypatch)
    launch(call.kernel, call.grid, **call.named)
    assert not went
    first, second = given
    assert first[:6] == second[:6] == (*call.grid, 1, 7, 11, first[5])
    assert all(a is b for a, b in zip(first[9:], second[9:], strict=True))
