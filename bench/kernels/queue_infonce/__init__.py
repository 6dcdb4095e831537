"""InfoNCE against a queue of keys: MoCo (arXiv:1911.05722)."""

from __future__ import annotations

from torch import Tensor

from bench.kernels import dispatch
from bench.kernels.queue_infonce import reference

# Logits, N K, from which `auto` takes the kernel. Provisional: to be set where
# `bench profile losses` finds the two level on a GPU.
FROM_LOGITS = 2**22


def queue_infonce(query: Tensor, key: Tensor, queue: Tensor, temperature: float | Tensor) -> Tensor:
    """Each query must find its own key among K keys of other pictures.

    mean over i of -log(exp(q_i k_i / t) / (exp(q_i k_i / t) + sum over queue of exp(q_i k / t))).

    Args:
        query: `[N, D]` embeddings.
        key: `[N, D]` of the same pictures; no gradient flows into them.
        queue: `[K, D]` unit vectors, without gradient; the kernel copies one that is not of the
            queries' type.
        temperature: above 0; may carry a gradient.
    """
    many = len(query) * len(queue) >= FROM_LOGITS
    worth = many and query.shape[1] <= dispatch.LONGEST
    if dispatch.triton("queue_infonce", query, worth=worth):
        from bench.kernels.queue_infonce.triton import queue_infonce as fused

        return fused(query, key, queue, temperature)
    return reference.queue_infonce(query, key, queue, temperature)
