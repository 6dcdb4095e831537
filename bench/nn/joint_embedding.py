"""What methods without negatives share: two views, a projector, and the diagnosis of collapse.

BYOL, SimSiam, Barlow Twins and VICReg differ in what they minimise on the two embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Batch, Method, OptimSpec, Panel, Step, View
from bench.data.augment import Augmented
from bench.kernels.precision import in_full
from bench.nn.mlp import mlp
from bench.nn.view_pairs import TILES, match_top1, pair_panels

# 10,000 pictures of 32 px and the small backbone: about a minute on a CPU core. Larger crops than
# SMALL_PICTURES, and the paper's full colour strength: found on held-out training pictures.
SMALL: dict[str, Any] = {
    "crop": (0.5, 1.0),
    "jitter": (0.8, 0.8, 0.8, 0.2),
    "blur": 0.0,
    "second_blur": 0.0,
    "solarize": 0.0,
    "epochs": 10,
    "batch_size": 64,
    "hidden": 512,
    "projection": 256,
    "optimizer": "adamw",
    "lr": 8e-3,
    "weight_decay": 1e-4,
    "warmup_epochs": 1,
}


class JointEmbeddingConfig(Augmented):
    """BYOL's augmentation (arXiv:2006.07733, B) and LARS, which the later two took over."""

    batch_size: int = Field(2048, ge=2)  # one picture has no variance: batch norm needs two
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    blur: float = Field(1.0, ge=0, le=1)  # of the first view
    second_blur: float = Field(0.1, ge=0, le=1)
    solarize: float = Field(0.2, ge=0, le=1)  # of the second view; the first never is
    hidden: int = Field(8192, ge=1)
    projection: int = Field(8192, ge=1)
    optimizer: Literal["lars", "sgd", "adamw"] = "lars"
    lr: float = Field(0.2, ge=0)  # per 256 pictures
    final_lr: float = Field(0.0, ge=0, le=1)  # at the cosine's end, share of lr
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-6, ge=0)
    warmup_epochs: float = Field(10, ge=0)


class JointEmbedding(Method):
    """Two views of a picture, each embedded by backbone and projector in a pass of its own."""

    def build(self) -> None:
        """The projector."""
        self.projector = self.new_projector()

    def new_projector(self) -> nn.Sequential:
        """Three layers; the last without bias or batch norm, as Barlow Twins and VICReg have it."""
        cfg = self.cfg
        return mlp(self.backbone.dim, cfg.hidden, cfg.hidden, cfg.projection, bias=False)

    def embed(self, x: Tensor) -> Tensor:
        """Embeddings `[B, projection]` of one view; its batch norms see no other."""
        embedding: Tensor = self.projector(self.backbone(x))
        return embedding

    def views(self) -> Sequence[View]:
        """Two views; only the second is solarised, and each has its own chance of blur."""
        cfg, info = self.cfg, self.data
        return (
            View("one", cfg.ops(info, solarize=0.0)),
            View("two", cfg.ops(info, blur=cfg.second_blur)),
        )

    def watch(self, step: Step, one: Tensor, two: Tensor) -> None:
        """Log `embedding_std` of `one`, and `match_top1` of both, %.

        Args:
            step: where the values are logged.
            one: `[B, D]` embeddings of the first views.
            two: `[B, D]` those of the second, in the same order.
        """
        step.watch(one)
        step.log("match_top1", match_top1(one, two))

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """Two views of some pictures, and which second view each of the first is nearest to."""
        first, second = batch.view("one"), batch.view("two")
        one, two = self.embed(first[:TILES]), self.embed(second)
        return pair_panels(self.data.rgb(first), self.data.rgb(second), one, two)

    def optim(self, phase: str) -> OptimSpec:
        """LARS by default; biases and batch norms are neither decayed nor adapted."""
        cfg = self.cfg
        return OptimSpec(
            name=cfg.optimizer,
            lr=cfg.lr,
            base_batch=256,
            momentum=cfg.momentum,
            weight_decay=cfg.weight_decay,
            decay_bias_and_norm=False,
            warmup_epochs=cfg.warmup_epochs,
            min_lr=cfg.final_lr * cfg.lr * cfg.batch_size / 256,
        )


@in_full
def mean_cosine(one: Tensor, two: Tensor) -> Tensor:
    """Mean cosine similarity of rows of `[N, D]` and their partners in `[N, D]`."""
    return F.cosine_similarity(one, two, dim=1).mean()
