"""Plain PyTorch with fully sharded data parallelism (FSDP2).

torchrun --nproc-per-node 2 -m examples.integrations.fsdp2

`fully_shard` splits each parameter over the processes and joins it for the module's own forward
and backward. Shard modules that are called: a `HypercolumnLinear`, the backbone, the network.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from .task import Discs, Network, Sample, loss_of, to_device

__all__ = ["main"]

EPOCHS = 4


def main() -> None:
    """Train, and print the loss of each epoch from the first process."""
    cuda = torch.cuda.is_available()
    dist.init_process_group("nccl" if cuda else "gloo")
    rank = dist.get_rank()
    device = torch.device("cuda", rank % torch.cuda.device_count()) if cuda else torch.device("cpu")
    mesh = dist.device_mesh.init_device_mesh(device.type, (dist.get_world_size(),))
    torch.manual_seed(0)
    model = Network().to(device)
    for stage in model.stages:
        fully_shard(stage, mesh=mesh)
    fully_shard(model.first, mesh=mesh)
    fully_shard(model, mesh=mesh)  # what is left: the last layer
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    data = Discs()
    sampler: DistributedSampler[Sample] = DistributedSampler(data)
    loader = DataLoader(data, batch_size=8, sampler=sampler)
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        total = torch.zeros((), device=device)
        for batch in loader:
            optimizer.zero_grad()
            loss = loss_of(model, to_device(batch, device))
            loss.backward()
            optimizer.step()
            total += loss.detach() / len(loader)
        dist.all_reduce(total)
        if rank == 0:
            print(f"epoch {epoch}: loss {total.item() / dist.get_world_size():.3f}")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
