"""Gradients for many vectors at once: `torch.autograd.grad(..., is_grads_batched=True)`.

`torch.autograd.functional.jacobian(..., vectorize=True)` asks for the same. torch hands a backward
pass one tensor that hides the axis of the vectors, and most operators on it are refused. Unlike
torch.func, it asks a function for no rule: the function has to find the axis by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["hides_vectors", "vector_by_vector"]

#: torch's bound on transforms within transforms.
LEVELS = 64

NESTED = (
    "is_grads_batched=True within another transform of the same kind is not served; "
    "use torch.func.jacrev, or call torch.autograd.grad once a vector"
)


#: Whether a gradient stands for several. torch has the question for its own use.
hides_vectors: Callable[[Tensor], bool] = getattr(
    torch._C._functorch, "is_legacy_batchedtensor", lambda tensor: False
)


def vector_by_vector(
    backward: Callable[[Tensor], tuple[Tensor | None, ...]], grad: Tensor
) -> tuple[Tensor | None, ...]:
    """What `backward` gives for each vector of `grad`, with the axis of the vectors hidden again.

    Raises:
        RuntimeError: several axes are hidden.
    """
    with torch._C.DisableTorchFunctionSubclass():
        for level in range(1, LEVELS + 1):
            vectors = torch._remove_batch_dim(grad, level, 0, 0)
            if not hides_vectors(vectors):
                break
        else:
            raise RuntimeError(NESTED)
        gradients = zip(*map(backward, vectors), strict=True)
        return tuple([_hidden(of_vectors, level) for of_vectors in gradients])


def _hidden(gradients: Sequence[Tensor | None], level: int) -> Tensor | None:
    """The gradients of one tensor, in which `level` hides their axis; None if there are none."""
    tensors = [gradient for gradient in gradients if gradient is not None]
    return torch._add_batch_dim(torch.stack(tensors), 0, level) if tensors else None
