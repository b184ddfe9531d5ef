"""`fit`: Lightning's Trainer with checkpoints from which a killed run goes on."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .lightning import Callback, CSVLogger, LearningRateMonitor, ModelCheckpoint, Trainer
from .module import PixelNetModule

__all__ = ["fit"]


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
    that the outcome is the same as without the interruption.

    Args:
        module: what to train.
        train: mini-batches, usually a :class:`StepLoader`; another loader works, but does not
            resume in mid-epoch unless it has a ``state_dict`` of its own.
        validation: mini-batches for `PixelNetModule.validation_step`, or None.
        folder: made if it is missing. Logs go to ``folder/logs/version_N/metrics.csv``, one
            version a start.
        steps: of the whole training, those before an interruption included.
        resume: go on from ``folder/last.ckpt``; without one, begin.
        checkpoint_every: steps.
        callbacks: further ones.
        **options: of ``lightning.Trainer``: accelerator, devices, strategy, precision,
            accumulate_grad_batches, val_check_interval, enable_progress_bar ...

    Returns:
        The trainer, done.

    Raises:
        ValueError: `steps` or `checkpoint_every` is not positive.
        FileExistsError: there is a checkpoint in `folder`, and `resume` is False.
    """
    for name, value in (("steps", steps), ("checkpoint_every", checkpoint_every)):
        if value < 1:
            raise ValueError(f"{name}={value}; expected at least 1")
    folder = Path(folder)
    last = folder / "last.ckpt"
    if last.exists() and not resume:
        raise FileExistsError(
            f"{last} is the checkpoint of an earlier run; pass resume=True (--resume) to go on "
            "from it, or another folder to begin anew"
        )
    last_one = str(last) if last.exists() else None
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
        trainer = Trainer(
            max_steps=steps,
            max_epochs=-1,
            logger=CSVLogger(folder, name="logs"),
            callbacks=[checkpoints, LearningRateMonitor("step"), *callbacks],
            use_distributed_sampler=False,  # StepLoader gives each rank its own images
            **options,
        )
        trainer.fit(module, train, validation, ckpt_path=last_one)
        trainer.save_checkpoint(last)
    return trainer
