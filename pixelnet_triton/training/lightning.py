"""The parts of Lightning in use, or an error that names the extra. No other file imports it."""

from __future__ import annotations

try:
    from lightning import LightningModule, Trainer
    from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
    from lightning.pytorch.loggers import CSVLogger
    from lightning.pytorch.plugins import TorchCheckpointIO
    from lightning.pytorch.utilities.exceptions import (
        MisconfigurationException,
        SIGTERMException,
    )
    from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
except ImportError as error:
    raise ImportError(
        "pixelnet_triton.training needs Lightning, which is not installed; "
        "pip install 'pixelnet-triton[train]'"
    ) from error

__all__ = [
    "CSVLogger",
    "Callback",
    "LearningRateMonitor",
    "LightningModule",
    "MisconfigurationException",
    "ModelCheckpoint",
    "OptimizerLRSchedulerConfig",
    "SIGTERMException",
    "TorchCheckpointIO",
    "Trainer",
]
