"""`PixelNetModule`: any PixelNet and any task, trained as the paper does, by Lightning."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from ..models import PixelNet
from ..models.checkpoint import KEY, read_lightning
from ..tools.settings import whole_number
from .feature_batches import check_frozen, predict_features
from .lightning import LightningModule, OptimizerLRSchedulerConfig
from .loader import derived_seed
from .recipe import Recipe, parameter_groups, rate_factor
from .saved import describe, parts
from .tasks import Task

__all__ = ["PixelNetModule"]


class PixelNetModule(LightningModule):
    r"""Train a PixelNet on N sampled pixels of each of M images (section 3).

    A step takes M images, draws N pixels of each on the module's device, and minimises

    .. math:: \frac{1}{|V|} \sum_{p \in V} \mathrm{loss}(g(h_p), y_p)

    over the valid ones V of them by SGD. The pixels and dropout of a step are functions of
    (`seed`, rank, step): a resumed run takes the steps that the killed one would have taken. To
    that end the global random generators are seeded anew at each step.

    Precision (``precision="bf16-mixed"``), devices, DDP (``strategy="ddp"``, or torchrun),
    gradient accumulation and so on are options of Lightning's Trainer, which
    :func:`pixelnet_triton.training.fit` makes.

    Args:
        model: any :class:`pixelnet_triton.models.PixelNet`; its `output` must be the task's.
        task: Segmentation, Edges, Normals, Depth, or anything with their methods.
        recipe: the optimiser; the paper's by default.
        seed: of everything random in a step.
        channels_last: the memory format of weights and images, the fast one for the sampling
            layer and for convolutions on GPUs with tensor cores.

    Raises:
        ValueError: the model's output is not the task's, or the seed no integer >= 0.

    Example:
        >>> from pixelnet_triton.models import VGG16, PixelMLP, PixelNet
        >>> from pixelnet_triton.training import PixelNetModule, Segmentation
        >>> backbone = VGG16(batch_norm=True, width=0.125)
        >>> head = PixelMLP(backbone.channels, (64, 64), out_features=11)
        >>> module = PixelNetModule(PixelNet(backbone, head, output="softmax"), Segmentation(11))
        >>> module.recipe.lr
        0.001
    """

    def __init__(
        self,
        model: PixelNet,
        task: Task,
        *,
        recipe: Recipe = Recipe(),  # noqa: B008 (frozen)
        seed: int = 1989,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        if model.output != task.output:
            raise ValueError(
                f"model.output={model.output!r} but the task {type(task).__name__} needs "
                f"{task.output!r}; build PixelNet(backbone, head, output={task.output!r})"
            )
        self.model = model
        self.task = task
        self.recipe = recipe
        self.seed = whole_number("seed", seed, least=0)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.model.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        self.metrics = task.metrics()

    def forward(self, images: Tensor) -> Tensor:
        """Dense prediction ``(B, K, H, W)``, after the output activation."""
        return self.model.predict(images.contiguous(memory_format=self.memory_format))

    def training_step(self, batch: dict[str, Any], batch_index: int) -> Tensor:
        """The loss of one mini-batch: ``image (M, 3, H, W)``, ``target`` as the task has it.

        In the place of ``image`` there may be ``features``, the backbone's maps, as
        :class:`CachedFeatures` gives them: then the head alone is computed.
        """
        step_seed = derived_seed(self.seed, self.global_rank, self.global_step, batch_index)
        torch.manual_seed(step_seed)  # dropout, on every device
        generator = torch.Generator(device=self.device).manual_seed(step_seed)
        target = batch["target"]
        pixels = self.task.sample(target, generator=generator)
        if "features" in batch:
            check_frozen(self.model)
            size = (target.shape[-2], target.shape[-1])
            scores = self.model.head(batch["features"], pixels.points, size)
        else:
            images = batch["image"].contiguous(memory_format=self.memory_format)
            scores = self.model(images, pixels.points)
        loss = self.task.loss(scores, target, pixels)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=target.shape[0])
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin with a new metric: bf16-true and 16-true make the states of one half precision.

        Sums over pixels would stop growing there, and the thresholds of a curve coincide.
        """
        self.metrics = self.task.metrics().to(self.device)

    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        """Update the task's metrics with the dense prediction, of images or of their features."""
        target = batch["target"]
        if "features" in batch:
            size = (target.shape[-2], target.shape[-1])
            prediction = predict_features(self.model, batch["features"], size)
        else:
            prediction = self(batch["image"])
        self.metrics.update(_single(prediction), _single(target))

    def on_validation_epoch_end(self) -> None:
        """Log each scalar of the metrics as ``val/NAME``, over all ranks."""
        values = self.metrics.compute()
        self.metrics.reset()
        for name, value in values.items():
            if value.numel() == 1:
                self.log(f"val/{name}", value, prog_bar=name == self.task.monitor)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """SGD over the paper's parameter groups; its schedule in steps of the whole training."""
        optimizer = torch.optim.SGD(
            parameter_groups(self.model, self.recipe),
            lr=self.recipe.lr,
            momentum=self.recipe.momentum,
        )
        factor = rate_factor(self.recipe, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the configuration of network, task and recipe, from which both are built again."""
        checkpoint[KEY] = describe(self)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | os.PathLike[str],
        map_location: torch.device | str | None = "cpu",
        **given: Any,
    ) -> PixelNetModule:
        """The module of a checkpoint, which is enough by itself; nothing is downloaded.

        Args:
            checkpoint_path: a file that :func:`pixelnet_triton.training.fit` or the Trainer
                wrote; it is read with ``weights_only=True``.
            map_location: the device.
            **given: arguments of this class, in the place of the checkpoint's: a model or task
                that the checkpoint cannot describe, another recipe.

        Raises:
            ValueError: the file is another one, or does not describe a part that is not given.
            ModuleNotFoundError: the backbone's package is not installed.
        """
        checkpoint = read_lightning(checkpoint_path, map_location)
        module = cls(**parts(checkpoint[KEY], given))
        module.on_load_checkpoint(checkpoint)
        module.load_state_dict(checkpoint["state_dict"])
        return module if map_location is None else module.to(map_location)


def _single(tensor: Tensor) -> Tensor:
    """Floating values as float32, in which metrics count, whatever the run's precision."""
    return tensor.float() if tensor.is_floating_point() else tensor
