"""How every kernel is launched: a launch like one before goes straight to the compiled kernel.

    launch(kernel, grid, **arguments)                          is    kernel[grid](**arguments)
    Launch(kernel, grid, "out points", **others)(out, points)  is the same, in two steps

For tuples of tensors over several layers Triton takes 50 to 100 microseconds of Python to bind the
arguments, to describe them and to find the compiled kernel. Here the first launch of a kind goes
that way and leaves the compiled kernel behind; later ones hand their arguments to its launcher,
which receives the same as from Triton itself. A `Launch` serves calls of one kind: only their
tensors differ, and these agree in device, dtype, and whether they begin at a multiple of 16 bytes;
:func:`modes` is the same. Whoever keeps a `Launch` sees to that
(gpu/backend.py); after the first launch nothing of it is looked at again.

Two launches are of one kind if they agree in all that a kernel is compiled for: the device, every
constant and option, and what Triton makes of each other argument (a tensor's dtype and alignment;
of an integer its width, and whether it is 1 or a multiple of 16), which Triton's own function says.
So another number of points is no other kind, unless to the compiler.

Whatever this file does not know goes the usual way: kernels in the interpreter or under Triton's
autotuner, hooks of a profiler, versions of Triton with other insides. With
``PIXELNET_TRITON_DIRECT=0`` in the environment every launch does.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

from triton import knobs
from triton.backends.compiler import BaseBackend
from triton.compiler.compiler import make_backend
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

try:
    from triton._C.libtriton import native_specialize_impl as describe
except ImportError:  # older versions of Triton have it in Python
    describe = None

__all__ = ["Launch", "launch", "modes"]

#: (run, function, packed_metadata) of a compiled kernel.
Compiled = tuple[Callable[..., None], Any, Any]
_Picker = Callable[[tuple[Any, ...]], tuple[Any, ...]]
_MOST_KNOWN = 1024


def _as_expected() -> bool:
    """Does this version of Triton launch as `launch` does it? From 3.6 to 3.9 all do.

    Read in Triton's own source: how it runs a compiled kernel, and which options it adds itself.
    The interpreter does not: there nothing is compiled.
    """
    runtime = knobs.runtime
    if describe is None or runtime.interpret or not hasattr(runtime, "add_stages_inspection_hook"):
        return False
    try:
        source = " ".join(inspect.getsource(JITFunction.run).split())
    except OSError:
        return False
    modes = {"debug", "instrumentation_mode", "fpsan_homomorphic_casts"}
    return _RUNS in source and modes.issuperset(re.findall(r"kwargs\[\"(\w+)\"\] =", source))


_RUNS = (
    "kernel.run(grid_0, grid_1, grid_2, stream, kernel.function, kernel.packed_metadata, "
    "launch_metadata, knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook, "
    "*bound_args.values())"
)
_AS_EXPECTED = _as_expected()


class _Form(NamedTuple):
    """Launches of one kernel with the same names: what to pick from the values as they come.

    Args:
        arguments: all that the kernel takes, in its order.
        constants: what it is compiled for, value by value, and options.
        variables: the other arguments.
        known: what was compiled, by kind of launch.
    """

    arguments: _Picker
    constants: _Picker
    variables: _Picker
    known: dict[tuple[Any, ...], Compiled]


#: By the kernel's Python function: a hash of the kernel itself is one of its source.
_FORMS: dict[tuple[Any, ...], _Form | None] = {}


def launch(kernel: Any, grid: tuple[int, ...], **arguments: Any) -> Compiled | None:
    """``kernel[grid](**arguments)``; what was compiled, where it can be launched directly."""
    form = _form_of(kernel, tuple(arguments))
    compiled_for = None if form is None or kernel.pre_run_hooks else modes()
    if form is None or compiled_for is None:
        kernel[grid](**arguments)
        return None
    active = driver.active
    device = active.get_current_device()
    values = tuple(arguments.values())
    kind = (
        device,
        compiled_for,
        kernel.debug,
        form.constants(values),
        *describe(_backend(active, device), form.variables(values), False, True, True),
    )
    compiled = form.known.get(kind)
    if compiled is not None:
        run, function, packed = compiled
        x, y, z = (*grid, 1, 1)[:3]
        stream = active.get_current_stream(device)
        run(x, y, z, stream, function, packed, None, None, None, *form.arguments(values))
        return compiled
    result = kernel[grid](**arguments)
    if getattr(result, "module", None) is not None:  # it was loaded, not only compiled
        if len(form.known) >= _MOST_KNOWN:
            form.known.clear()
        compiled = form.known[kind] = (result.run, result.function, result.packed_metadata)
    return compiled


class Launch:
    """A kernel, its grid, and all of its arguments but those that `takes` names: with tensors.

    Its calls take these, in that order. Only the tensors may differ from call to call, not their
    device, dtypes and alignment, nor the numbers that stand beside them in tuples.
    """

    def __init__(self, kernel: Any, grid: tuple[int, ...], takes: str, **others: Any) -> None:
        self._kernel, self._grid, self._takes, self._others = kernel, grid, takes.split(), others
        self._xyz, self._values = (*grid, 1, 1)[:3], tuple(others.values())
        self._form = _form_of(kernel, (*self._takes, *others))
        self._known: tuple[Any, int, Compiled] | None = None

    def __call__(self, *values: Any) -> None:
        if self._known is not None and self._form is not None:
            active, device, (run, function, packed) = self._known
            stream = active.get_current_stream(device)
            arguments = self._form.arguments((*values, *self._values))
            run(*self._xyz, stream, function, packed, None, None, None, *arguments)
            return
        named = dict(zip(self._takes, values, strict=True))
        compiled = launch(self._kernel, self._grid, **named, **self._others)
        if compiled is not None:
            active = driver.active
            device = active.get_current_device()
            if _looks_at_addresses(active, device):
                self._known = (active, device, compiled)


def _looks_at_addresses(active: Any, device: object) -> bool:
    """Does Triton see nothing of a tensor but its dtype and whether 16 divides its address?"""
    backend = _backend(active, device)
    return backend.get_tensor_specialization is BaseBackend.get_tensor_specialization


def modes() -> Hashable:
    """What else Triton compiles for, and its driver; None where every launch is to go the usual
    way: in the interpreter, for example, and where somebody is to be told of launches.

    Triton's chains of hooks may be empty.
    """
    runtime, compilation = knobs.runtime, knobs.compilation
    enter, leave = runtime.launch_enter_hook, runtime.launch_exit_hook
    if (
        not _AS_EXPECTED
        or runtime.add_stages_inspection_hook is not None
        or (enter is not None and getattr(enter, "calls", True))
        or (leave is not None and getattr(leave, "calls", True))
    ):
        return None
    return (
        driver.active,
        runtime.debug,
        compilation.instrumentation_mode,
        getattr(compilation, "fpsan_homomorphic_casts", None),  # since Triton 3.9
    )


@lru_cache(maxsize=64)
def _backend(active: Any, device: object) -> Any:
    """Triton's back end for the current device."""
    return make_backend(active.get_current_target())


def _form_of(kernel: Any, given: tuple[str, ...]) -> _Form | None:
    """None for launches that are to go the usual way."""
    names = (kernel.fn, *given)
    try:
        return _FORMS[names]
    except KeyError:
        form = _FORMS[names] = _form(kernel, given)
        return form


def _form(kernel: Any, given: tuple[str, ...]) -> _Form | None:
    off = os.environ.get("PIXELNET_TRITON_DIRECT") == "0"
    if off or not _AS_EXPECTED or type(kernel) is not JITFunction:
        return None
    names = [parameter.name for parameter in kernel.params]
    places = {name: place for place, name in enumerate(given)}
    if not places.keys() >= {*names}:  # a default is to be filled in
        return None
    variable = {parameter.name for parameter in kernel.params if not parameter.is_constexpr}
    return _Form(
        _picker([places[name] for name in names]),
        _picker([place for name, place in places.items() if name not in variable]),
        _picker([place for name, place in places.items() if name in variable]),
        {},
    )


def _picker(places: Sequence[int]) -> _Picker:
    """`itemgetter` alone gives no tuple of less than two."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda values: tuple([values[place] for place in places])
