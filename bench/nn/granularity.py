"""Mugs' losses and projectors: instances, local groups, groups (arXiv:2203.14415, sail-sg/mugs)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.kernels import Teacher, dino, queue_infonce

HEAD = 64  # channels of an attention head, as in ViT-S


def perceptron(*dims: int) -> nn.Sequential:
    """Linear layers without bias, GELU between them; initialised as the prototype head's."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(dims):
        linear = nn.Linear(inputs, outputs, bias=False)
        nn.init.trunc_normal_(linear.weight, std=0.02)
        layers += [linear, nn.GELU()]
    return nn.Sequential(*layers[:-1])


class Projectors(nn.Module):
    """From what a network gives to the unit vectors that both contrastive losses compare.

    Args:
        view_dim: D, channels of the representation of a view.
        token_dim: C, channels of the mean of its regions.
        hidden: of the projectors' two hidden layers.
        projection: width of the vectors.
        neighbors: that a view's token is joined with.
    """

    def __init__(
        self, view_dim: int, token_dim: int, hidden: int, projection: int, neighbors: int
    ) -> None:
        super().__init__()
        self.neighbors = neighbors
        heads = token_dim // HEAD if token_dim % HEAD == 0 else 1
        self.block = nn.TransformerEncoderLayer(
            token_dim, heads, 4 * token_dim, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.norm = nn.LayerNorm(token_dim)
        self.instance = perceptron(view_dim, hidden, hidden, projection)
        self.local = perceptron(token_dim, hidden, hidden, projection)

    def forward(self, views: Tensor, tokens: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors `[V, N, projection]` of views, and of tokens among their neighbours.

        Args:
            views: `[V, N, D]`.
            tokens: `[V, N, C]`.
            memory: `[K, C]` unit vectors; their length does not matter, the block norms its input.
        """
        neighbors = nearest(tokens, memory, self.neighbors).to(tokens.dtype)
        joined = torch.cat([tokens[:, :, None], neighbors], 2).flatten(0, 1)
        local = self.norm(self.block(joined)[:, 0]).unflatten(0, tokens.shape[:2])
        return F.normalize(self.instance(views), dim=2), F.normalize(self.local(local), dim=2)


@torch.no_grad()
def nearest(tokens: Tensor, memory: Tensor, count: int) -> Tensor:
    """The `count` rows of `memory` `[K, C]`, unit vectors, nearest to `[..., C]`, by cosine.

    Returns:
        `[..., count, C]`, the nearest first.
    """
    cosines = F.normalize(tokens.to(memory.dtype), dim=-1) @ memory.T
    return memory[cosines.topk(count, dim=-1).indices]


def contrast(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """InfoNCE over pairs of different views; global and local crops have an equal say.

    Args:
        query: `[V, N, D]`, of the two global crops first.
        key: `[2, N, D]` of the global crops; no gradient flows into them.
        queue: `[K, D]` unit vectors, keys of other pictures.
        temperature: above 0.
    """
    (one, two), local = key, query[2:].flatten(0, 1)
    rows = query[:2].flatten(0, 1)
    among = queue_infonce(rows, torch.cat([two, one]), queue, temperature)
    if not len(local):
        return among
    to = [queue_infonce(local, each.repeat(len(query) - 2, 1), queue, temperature) for each in key]
    return (among + torch.stack(to).mean()) / 2


def group(student: Tensor, teacher: Teacher, temperature: float) -> Tensor:
    """DINO's loss, but that global and local crops have an equal say.

    Args:
        student: `[V, N, K]` logits, of the two global crops first.
        teacher: of the global crops, `[2, N, K]`; no gradient flows into it.
        temperature: the student's.
    """
    among, local = dino(student[:2], teacher, temperature), len(student) - 2
    if not local:
        return among
    # All 2 + 2 * local pairs but the two among global crops.
    to = ((1 + local) * dino(student, teacher, temperature) - among) / local
    return (among + to) / 2
