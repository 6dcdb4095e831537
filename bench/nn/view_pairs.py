"""What SimCLR and its second version share: pairs of views, a projector, and how it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Batch, Method, OptimSpec, Panel, Step, View
from bench.data.augment import Augmented
from bench.kernels.precision import in_full
from bench.nn import memory
from bench.nn.mlp import mlp

TILES = 8  # of a row in the picture

# 10,000 pictures and the small backbone: under a minute on a CPU core. Crops are mild: of a scene's
# few pixels, a fifth holds no object, and two backgrounds are all that could be matched.
SMALL: dict[str, Any] = {
    "crop": (0.5, 1.0),
    "blur": 0.0,
    "epochs": 10,
    "batch_size": 64,
    "optimizer": "adam",
    "lr": 2e-3,
    "scaling": "sqrt",
    "weight_decay": 1e-6,
    "warmup_epochs": 1,
}


class ViewPairsConfig(Augmented):
    """SimCLR's settings on ImageNet (arXiv:2002.05709); [c] is google-research/simclr."""

    epochs: int = 100  # the paper's best: 1000
    batch_size: int = Field(4096, ge=2)  # one picture alone has none to be told from
    temperature: float = Field(0.1, gt=0)
    projector_layers: int = Field(2, ge=1)
    hidden: int | None = Field(None, ge=1)  # width of the hidden layers; None: the backbone's
    projection: int = Field(128, ge=1)
    projector_norm: bool = True  # batch norm after every layer, the last one too [c]
    optimizer: Literal["lars", "sgd", "adam"] = "lars"  # the same choice as [c]
    lr: float = 0.3  # of 256 pictures
    scaling: Literal["linear", "sqrt"] = "linear"  # sqrt for small batches, then lr = 1.2
    momentum: float = 0.9
    weight_decay: float = 1e-6
    warmup_epochs: float = 10


class ViewPairs(Method):
    """Two views of each picture, embedded by one network; a method adds the loss between them."""

    projector: nn.Sequential

    def build(self) -> None:
        """The projector."""
        cfg = self.cfg
        hidden = [self.hidden] * (cfg.projector_layers - 1)
        last: Literal["norm", "plain"] = "norm" if cfg.projector_norm else "plain"
        dims = (self.backbone.dim, *hidden, cfg.projection)
        self.projector = mlp(*dims, norm=cfg.projector_norm, last=last)
        if cfg.projector_norm:  # the last one scales and does not shift [c]
            list(self.projector.parameters())[-1].requires_grad_(False)

    @property
    def hidden(self) -> int:
        """The width of the projector's hidden layers."""
        return self.cfg.hidden or self.backbone.dim

    def views(self) -> Sequence[View]:
        """Two views of the same distribution."""
        return (View("view", self.cfg.ops(self.data), count=2),)

    def embeddings(self, batch: Batch, step: Step) -> tuple[Tensor, Tensor]:
        """The projections `[B, projection]` of the first and of the second views.

        Both go through the network at once, so its batch norms see all 2B views, as in [c].
        """
        projected = self.projector(self.backbone(torch.cat(batch.views["view"])))
        step.watch(projected)
        one, two = projected.chunk(2)
        step.log("match_top1", match_top1(one, two))
        return one, two

    def optim(self, phase: str) -> OptimSpec:
        """A cosine after a warm-up; LARS leaves biases and batch norms out, the others do not."""
        cfg = self.cfg
        return OptimSpec(
            name=cfg.optimizer,
            lr=cfg.lr,
            base_batch=256,
            scaling=cfg.scaling,
            momentum=cfg.momentum,
            weight_decay=cfg.weight_decay,
            decay_bias_and_norm=cfg.optimizer != "lars",
            warmup_epochs=cfg.warmup_epochs,
        )

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """First views, and among the second views of all pictures the nearest to each."""
        first, second = batch.views["view"]
        one, two = (self.projector(self.backbone(x)) for x in (first[:TILES], second))
        return pair_panels(self.data.rgb(first), self.data.rgb(second), one, two)


@torch.no_grad()
@in_full
def match_top1(one: Tensor, two: Tensor) -> Tensor:
    """The share of the 2N views, in %, whose nearest other view is their pair.

    Chance is 100 / (2N - 1). Of very large batches, some of the views are asked for theirs.

    Args:
        one: `[N, D]` embeddings of the pictures' first views.
        two: `[N, D]` of their second views, in the same order.
    """
    rows = F.normalize(torch.cat([one, two]), dim=1)
    asked = rows[: memory.watched(len(rows))]
    nearest = (asked @ rows.T).fill_diagonal_(float("-inf")).argmax(1)
    pair = torch.arange(len(rows), device=rows.device).roll(len(one))
    return 100 * (nearest == pair[: len(asked)]).float().mean()


def pair_panels(
    first: Tensor,
    second: Tensor,
    one: Tensor,
    two: Tensor,
    names: tuple[str, str, str] = ("first view", "second view", "second views"),
) -> list[Panel]:
    """Views of some pictures, their pairs, and which of all the second views each is nearest to.

    Args:
        first: `[B, 3, h, w]` first views, RGB in [0, 1].
        second: `[B, 3, h, w]` second views of the same pictures.
        one: `[n, D]` embeddings of the first n first views.
        two: `[B, D]` embeddings of the second views.
        names: of one, of the other, and of many of those.
    """
    cosine, chosen = (F.normalize(one, dim=1) @ F.normalize(two, dim=1).T).max(1)
    count = len(one)
    return [
        Panel(names[0], first[:count]),
        Panel(names[1], second[:count]),
        Panel(
            f"nearest of {len(two)} {names[2]}",
            second[chosen],
            tuple(f"{value:.2f}" for value in cosine.tolist()),
            tuple(found == own for own, found in enumerate(chosen.tolist())),
        ),
    ]
