"""Hugging Face Accelerate around a loop of one's own.

python -m examples.integrations.accelerate_loop
accelerate launch --num_processes 2 -m examples.integrations.accelerate_loop   # two GPUs
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader

from .task import Discs, Network, loss_of

__all__ = ["main"]

EPOCHS = 4


def main() -> None:
    """Train, and print the loss of each epoch from the first process."""
    accelerator = Accelerator()
    set_seed(0)
    model = Network()
    model, optimizer, loader = accelerator.prepare(
        model,
        torch.optim.AdamW(model.parameters(), lr=3e-3),
        DataLoader(Discs(), batch_size=16 // accelerator.num_processes, shuffle=True),
    )
    for epoch in range(EPOCHS):
        total = torch.zeros((), device=accelerator.device)
        for batch in loader:
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            accelerator.backward(loss)
            optimizer.step()
            total += loss.detach() / len(loader)
        mean = accelerator.reduce(total, "mean").item()
        accelerator.print(f"epoch {epoch}: loss {mean:.3f}")
    accelerator.end_training()


if __name__ == "__main__":
    main()
