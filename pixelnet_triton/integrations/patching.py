"""`patch`: this library under the sampling functions of other packages, in one call.

    with patch("transformers"): ...      or      patch("transformers") ... unpatch("transformers")

A function is replaced by its identity: in the module that defines it, and under whatever name
other modules imported it before. Modules imported later find the replacement. A call that the
library does not serve, or would answer otherwise, goes to the original: see :func:`patch`.
"""

from __future__ import annotations

import inspect
import sys
import threading
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

from .replacements import PACKAGES, Function, Target

__all__ = ["Patch", "patch", "unpatch"]


@dataclass(frozen=True)
class _Replacement:
    owner: Any
    attribute: str
    original: Function
    replacement: Function

    def put(self, old: Function, new: Function) -> list[str]:
        """Put `new` wherever `old` is; says where."""
        holders: list[tuple[str, Any]] = [
            (name, module)
            for name, module in list(sys.modules.items())
            if isinstance(module, ModuleType)
        ]
        if not isinstance(self.owner, ModuleType):
            holders.append((f"{self.owner.__module__}.{self.owner.__qualname__}", self.owner))
        places = []
        for holder_name, holder in holders:
            for name, value in list(vars(holder).items()):
                if value is old:
                    setattr(holder, name, new)
                    places.append(f"{holder_name}.{name}")
        return places


#: Patches are made and undone one at a time, whatever the thread.
_LOCK = threading.RLock()
#: What was put for each target; more than one where its module was loaded anew in between.
_ACTIVE: dict[Target, list[_Replacement]] = {}
#: The patches that are not undone: a target is put back with the last that holds it.
_HOLDING: list[Patch] = []


class Patch:
    """What one call of :func:`patch` replaced. As a context manager it undoes that at the end.

    Several may hold the same functions, in one thread or in many: the originals come back when the
    last of them is undone. One that was undone may be entered again.

    Attributes:
        package: the package it is of.
        places: the names that were replaced, such as ``"mmcv.ops.point_sample"``; none for a
            package that was patched before.
    """

    def __init__(self, package: str) -> None:
        self.package = package
        self.places: tuple[str, ...] = ()
        self._targets: tuple[Target, ...] = ()
        self._entered = 0
        self._hold()

    def _hold(self) -> None:
        """Put the replacements where they are not in place; all or, with an exception, none."""
        with _LOCK:
            if self in _HOLDING:
                return
            owners = _owners(self.package)
            prepared = {
                target: _checked(target, owner)
                for target, owner in owners.items()
                if getattr(owner, target.attribute, None)
                not in [done.replacement for done in _ACTIVE.get(target, ())]
            }
            places: list[str] = []
            for target, new in prepared.items():
                places += new.put(new.original, new.replacement)
                _ACTIVE.setdefault(target, []).append(new)
            self.places, self._targets = tuple(places), tuple(owners)
            _HOLDING.append(self)

    def undo(self) -> None:
        """Put the originals back that no other patch holds; again without effect."""
        with _LOCK:
            if self not in _HOLDING:
                return
            _HOLDING.remove(self)
            held = {target for other in _HOLDING for target in other._targets}
            for target in set(self._targets) - held:
                for done in _ACTIVE.pop(target):
                    done.put(done.replacement, done.original)

    def __enter__(self) -> Patch:
        with _LOCK:
            self._hold()
            self._entered += 1
        return self

    def __exit__(self, *_: object) -> None:
        with _LOCK:
            self._entered -= 1
            if not self._entered:
                self.undo()

    def __repr__(self) -> str:
        return f"Patch({', '.join(self.places) or 'nothing'})"


def patch(package: str) -> Patch:
    """Put this library under the sampling functions of a package, everywhere they are imported.

    ==================  ====================================================================
    ``"detectron2"``    PointRend's `point_sample` and `point_sample_fine_grained_features`,
                        which the original Mask2Former uses, too
    ``"mmcv"``          `mmcv.ops.point_sample`, also under `SimpleRoIAlign`, and as imported by
                        mmdetection's PointRend and Mask2Former
    ``"mmseg"``         the same, and `PointHead`: all its maps are sampled in one call
    ``"transformers"``  `sample_point` of Mask2Former, OneFormer, EoMT, VideoMT and RF-DETR
    ==================  ====================================================================

    Bilinear sampling with zero or border padding goes to this library; its results are those of
    `grid_sample` but for rounding, with the same dtype and strides. The original is called for
    other modes, coordinates in half precision, float64 on a GPU, other devices, subclasses of
    tensors, and while `torch.jit.trace`, `torch.export` or the ONNX exporter is at work. On a CPU
    points that are not finite raise `ValueError`, where `grid_sample` gives 0 or a border cell.

    Args:
        package: one of the four names.

    Returns:
        What was replaced: ``.places``, and ``.undo()``; or use it in a ``with`` statement. Of
        several patches, nested or in several threads, the last to be undone puts the originals
        back; :func:`unpatch` undoes all of a package. A module that `importlib.reload` loaded anew
        is patched by a further call. References that are no names of modules, such as
        arguments bound by ``functools.partial`` before, keep the original.

    Raises:
        ValueError: the package is none of the four.
        ImportError: it is not installed, or none of its modules can be imported.
        RuntimeError: a function has another signature, or gives other values: the version is not
            known here. Nothing is replaced then.

    Example:
        >>> from pixelnet_triton.integrations import patch
        >>> with patch("transformers") as patched:  # doctest: +SKIP
        ...     trainer.train()
    """
    return Patch(package)


def unpatch(package: str) -> None:
    """Undo all patches of a package; none is no error.

    What a patch of another package holds as well stays: mmseg's holds `mmcv.ops.point_sample`.

    Raises:
        ValueError: the package is none of those that :func:`patch` knows.

    Example:
        >>> from pixelnet_triton.integrations import unpatch
        >>> unpatch("transformers")
    """
    _targets(package)
    with _LOCK:
        for held in [held for held in _HOLDING if held.package == package]:
            held.undo()


def _owners(package: str) -> dict[Target, Any]:
    """The targets of a package with the modules or classes that hold them, as far as imported."""
    targets = _targets(package)
    owners = {}
    missing: ImportError | None = None
    for target in targets:
        try:
            owners[target] = target.owner()
        except ImportError as error:  # what cannot be imported is not in use
            missing = error
    own = [target for target in targets if target.package == package]
    if not any(target in owners for target in own):
        modules = ", ".join(dict.fromkeys(target.module for target in own))
        raise ImportError(
            f"patch({package!r}) found none of {modules}; install {package}, in a version that "
            "has them"
        ) from missing
    return owners


def _targets(package: str) -> tuple[Target, ...]:
    if package not in PACKAGES:
        raise ValueError(f"package={package!r} is unknown; use one of {tuple(PACKAGES)}")
    return PACKAGES[package]


def _checked(target: Target, owner: Any) -> _Replacement:
    """The replacement, not yet in place, of a function that is what this module knows."""
    version = getattr(sys.modules.get(target.package), "__version__", "of unknown version")
    where = f"{target.module}.{target.name} ({target.package} {version})"
    remedy = (
        "This version is not known to patch: call the functions of pixelnet_triton.integrations "
        "where they are needed, and report it"
    )
    original = getattr(owner, target.attribute, None)
    if original is None:
        raise RuntimeError(f"{where} does not exist. {remedy}")
    signature = inspect.signature(original)
    # as written, without annotations and defaults: "**kwargs" keeps its stars
    names = tuple(
        str(p.replace(annotation=p.empty, default=p.empty)) for p in signature.parameters.values()
    )
    if names != target.parameters:
        raise RuntimeError(
            f"{where} has the signature {signature}; expected ({', '.join(target.parameters)}). "
            f"{remedy}"
        )
    replacement = target.replace(original)
    if target.trial is not None:
        came, expected = target.trial(original), target.trial(replacement)
        if not torch.allclose(came, expected, rtol=1e-4, atol=1e-4):
            raise RuntimeError(
                f"{where} gives {came.flatten().tolist()} in a trial; expected bilinear samples "
                f"{expected.flatten().tolist()}. {remedy}"
            )
    return _Replacement(owner, target.attribute, original, replacement)
