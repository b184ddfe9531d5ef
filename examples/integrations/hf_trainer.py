"""The Trainer of Hugging Face transformers.

python -m examples.integrations.hf_trainer

It calls the model with the batch's entries as keyword arguments and takes the loss from what the
model returns, so that the model has to compute it itself.
"""

from __future__ import annotations

import tempfile

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments, set_seed

from .task import Discs, Network

__all__ = ["WithLoss", "main"]

EPOCHS = 4


class WithLoss(nn.Module):
    """A network whose forward takes the labels too, and returns a dictionary with the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Network()

    def forward(
        self, image: Tensor, points: Tensor, labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        scores = self.network(image, points)
        if labels is None:
            return {"logits": scores}
        loss = F.cross_entropy(scores.flatten(0, 1), labels.flatten())
        return {"loss": loss, "logits": scores}


def main() -> None:
    """Train, and print the losses that the Trainer logged."""
    set_seed(0)  # the Trainer's own comes after the network's first weights
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=16,
            learning_rate=3e-3,
            logging_strategy="epoch",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
            remove_unused_columns=False,
            seed=0,
        )
        trainer = Trainer(model=WithLoss(), args=settings, train_dataset=Discs())
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    for epoch, loss in enumerate(losses):
        print(f"epoch {epoch}: loss {float(loss):.3f}")


if __name__ == "__main__":
    main()
