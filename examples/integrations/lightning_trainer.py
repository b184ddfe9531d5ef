"""Lightning.

python -m examples.integrations.lightning_trainer

`pixelnet_triton.training` has a LightningModule with the paper's recipe; this is the least that a
module of one's own needs.
"""

from __future__ import annotations

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from .task import Discs, Network, Sample, loss_of

__all__ = ["Segmenter", "main"]

EPOCHS = 4


class Segmenter(L.LightningModule):
    """The network, its loss and its optimiser."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Network()

    def training_step(self, batch: Sample, batch_index: int) -> Tensor:
        loss = loss_of(self.network, batch)
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["image"]))
        return loss

    def on_train_epoch_end(self) -> None:
        print(f"epoch {self.current_epoch}: loss {self.trainer.callback_metrics['loss']:.3f}")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def main() -> None:
    """Train with everything Lightning would write to disk switched off."""
    L.seed_everything(0, verbose=False)
    trainer = L.Trainer(
        max_epochs=EPOCHS,
        accelerator="auto",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Segmenter(), DataLoader(Discs(), batch_size=16, shuffle=True))


if __name__ == "__main__":
    main()
