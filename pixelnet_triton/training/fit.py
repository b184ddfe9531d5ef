"""`fit`: Lightning's Trainer with checkpoints from which a killed run goes on."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from ..tools.settings import whole_number
from .lightning import (
    Callback,
    CSVLogger,
    LearningRateMonitor,
    ModelCheckpoint,
    SIGTERMException,
    TorchCheckpointIO,
    Trainer,
)
from .loader import FirstEpoch, StepLoader
from .module import PixelNetModule
from .saved import check_continues

__all__ = ["Terminated", "fit"]


class Terminated(SIGTERMException):
    """SIGTERM ended a training. Uncaught it ends the process, with the status 128 + 15.

    Lightning's own exception has no status, and a process that it ends is taken for a success.

    Args:
        step: the optimiser steps that were taken.
    """

    STATUS = 143

    def __init__(self, step: int) -> None:
        super().__init__(self.STATUS)
        self.step = step


def fit(
    module: PixelNetModule,
    train: Iterable[Any],
    validation: Iterable[Any] | None = None,
    *,
    folder: str | Path,
    steps: int,
    resume: bool = False,
    checkpoint_every: int = 500,
    callbacks: Iterable[Callback] = (),
    **options: Any,
) -> Trainer:
    """Train for `steps` optimiser steps in all; write checkpoints and a log to `folder`.

    ``folder/last.ckpt`` is replaced, atomically, every `checkpoint_every` steps and at the end.
    A run that is killed loses no more than that: the same call with ``resume=True`` goes on from
    there, with weights, momenta, schedule, the position in the data and every random draw, so
    that the outcome is the same as without the interruption. `steps`, and how it is computed
    (workers, precision, the kind of device), may be others then; network, task, recipe, seed and
    mini-batches may not.

    Args:
        module: what to train.
        train: mini-batches, usually a :class:`StepLoader`; another loader works, but does not
            resume in mid-epoch unless it has a ``state_dict`` of its own.
        validation: mini-batches for `PixelNetModule.validation_step`, or None. Of a
            :class:`StepLoader` each validation takes the first epoch.
        folder: made if it is missing. Logs go to ``folder/logs/version_N/metrics.csv``, one
            version a start.
        steps: of the whole training, those before an interruption included.
        resume: go on from ``folder/last.ckpt``; without one, begin.
        checkpoint_every: steps.
        callbacks: further ones.
        **options: of ``lightning.Trainer``: accelerator, devices, strategy, precision, logger,
            accumulate_grad_batches, val_check_interval, enable_progress_bar ..., but for max_steps
            and max_epochs, in whose place there is `steps`.

    Returns:
        The trainer, done.

    Raises:
        ValueError: `steps` or `checkpoint_every` is not positive; the checkpoint to go on from is
            damaged, or of a run with other settings; two epochs had no mini-batch.
        FileExistsError: there is a checkpoint in `folder`, and `resume` is False.
        Terminated: SIGTERM stopped it. `SystemExit` is its base.
    """
    steps = whole_number("steps", steps)
    checkpoint_every = whole_number("checkpoint_every", checkpoint_every)
    for name in ("max_steps", "max_epochs"):
        if name in options:
            raise ValueError(
                f"{name}={options[name]!r}: the length of the training is steps={steps}, in "
                f"optimiser steps; leave {name} out"
            )
    folder = Path(folder)
    last = folder / "last.ckpt"
    if last.exists() and not resume:
        raise FileExistsError(
            f"{last} is the checkpoint of an earlier run; pass resume=True (--resume) to go on "
            "from it, or another folder to begin anew"
        )
    last_one = str(last) if last.exists() else None
    if last_one is not None:
        check_continues(last, module)
    if isinstance(validation, StepLoader):
        validation = FirstEpoch(validation)
    # StepLoader gives each rank its own images.
    options = {
        "logger": CSVLogger(folder, name="logs"),
        "use_distributed_sampler": False,
        **options,
    }
    checkpoints = ModelCheckpoint(
        dirpath=folder,
        filename="last",
        every_n_train_steps=checkpoint_every,
        enable_version_counter=False,  # the same file, replaced
    )
    with warnings.catch_warnings():
        # Both states are intended: the folder holds what the run goes on from.
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
        warnings.filterwarnings("ignore", "You defined a `validation_step` but have no")
        # A frozen backbone and fixed statistics stay in evaluation mode.
        warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode at the start")
        # Lightning's own use of torch.utils._pytree causes this one.
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
        rates = [LearningRateMonitor("step")] if options["logger"] else []
        trainer = Trainer(
            max_steps=steps,
            max_epochs=-1,
            callbacks=[checkpoints, *rates, _NoEmptyEpochs(), *callbacks],
            **options,
        )
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = _Replacing()
        try:
            trainer.fit(module, train, validation, ckpt_path=last_one)
        except SIGTERMException as stopped:
            raise Terminated(trainer.global_step) from stopped
        trainer.save_checkpoint(last)
    return trainer


class _Replacing(TorchCheckpointIO):
    """Files that replace the old ones at once, or not at all.

    Lightning's own are written below TMPDIR, and put in place by a copy where that is another file
    system: a run killed meanwhile would leave half of one.
    """

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        if "://" in str(path):  # not a file of this machine
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        part = Path(f"{path}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, part)
        os.replace(part, path)


class _NoEmptyEpochs(Callback):
    """Raises where epochs have no mini-batch: Lightning would begin epochs for ever."""

    _empty = 0  # the epochs without one since the last mini-batch

    def on_train_batch_start(self, *_: Any) -> None:
        self._empty = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._empty += 1
        if self._empty > 2:  # an epoch that a resumed run only ends has none, and may
            raise ValueError(
                "train gave no mini-batch in two epochs, and the training would never end; "
                "expected a StepLoader, or an iterable that begins anew whenever it is gone through"
            )
