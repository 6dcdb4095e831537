"""InstDisc: tell every picture from all others, from a memory bank (Wu 2018, arXiv:1805.01978)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Batch, Method, OptimSpec, Panel, Step, TrainSet, View
from bench.data.augment import Augmented
from bench.nn.memory_bank import MemoryBank, match_top1

TILES = 8  # of the picture


class InstDisc(Method):
    """A view's embedding must find what the bank keeps of its picture.

    `match_top1` is how often no other candidate is nearer, %; candidates are the own row and
    `negatives` others with "nce" (among which the own row may be drawn again, as in the official
    code), the whole bank with "softmax". Chance is 100 divided by their number.
    """

    deviations = (
        "proximal regularisation is off by default, as in the official code: its authors have the "
        "bank's momentum in its place",
        "flip, then jitter, then gray: the official code turns the order round",
    )
    recipes = {
        "small": {
            "epochs": 10,
            "batch_size": 128,
            "schedule": "cosine",
            "lr": 0.1,
            "loss": "softmax",
            "temperature": 0.1,
            "jitter": (0.4, 0.4, 0.4, 0.1),
            "jitter_p": 0.8,
            "refresh": True,
        },
    }

    class Config(Augmented):
        """Settings of the official code, zhirongw/lemniscate.pytorch, main.py on ImageNet."""

        epochs: int = 200
        batch_size: int = 256
        lr: float = 0.03
        momentum: float = 0.9  # of SGD
        weight_decay: float = 1e-4
        schedule: Literal["step", "cosine"] = "step"  # tenths after 120 and 160 of 200 epochs
        loss: Literal["nce", "softmax"] = "nce"  # softmax: --nce-k 0, over the whole bank
        negatives: int = Field(4096, ge=1)
        temperature: float = Field(0.07, gt=0)
        bank_momentum: float = Field(0.5, ge=0, lt=1)
        refresh: bool = False  # make the bank anew before every epoch, and only then
        projection: int = Field(128, ge=1)
        proximal: float = Field(0.0, ge=0)  # the paper's lambda, on the squared move in the bank
        crop: tuple[float, float] = (0.2, 1.0)
        jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.4)
        jitter_p: float = Field(1.0, ge=0, le=1)
        blur: float = Field(0.0, ge=0, le=1)

    def build(self) -> None:
        """A linear projection, and the bank."""
        cfg = self.cfg
        self.projector = nn.Linear(self.backbone.dim, cfg.projection)
        self.bank = MemoryBank(
            self.data.n_train, cfg.projection, cfg.bank_momentum, cfg.temperature
        )

    def before_epoch(self, epoch: int, train: TrainSet) -> None:
        """Few epochs move a network too far for rows of the last one: make all of them anew."""
        if self.cfg.refresh:
            self.bank.fill(train.features(nn.Sequential(self.backbone, self.projector)))

    def views(self) -> Sequence[View]:
        """One rendering: the other one is in the bank."""
        return (View("view", self.cfg.ops(self.data)),)

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """Noise-contrastive estimation, or the cross-entropy over the whole bank."""
        cfg, bank = self.cfg, self.bank
        embeddings = self.projector(self.backbone(batch.view("view")))
        step.watch(embeddings)
        self.seen = embeddings.detach(), batch.index
        if cfg.loss == "softmax":
            logits = bank.logits(embeddings)
            step.log("match_top1", 100 * (logits.argmax(1) == batch.index).float().mean())
            own = logits.gather(1, batch.index[:, None])
            loss = F.cross_entropy(logits, batch.index)
        else:
            logits = bank.logits(embeddings, bank.candidates(batch.index, cfg.negatives, step.rng))
            step.log("match_top1", match_top1(logits))
            own = logits[:, :1]
            loss = bank.nce(logits)
        # Of unit vectors, the squared distance is 2 - 2 cosines.
        total: Tensor = loss + cfg.proximal * (2 - 2 * own * cfg.temperature).mean()
        return total

    def after_step(self, step: Step) -> None:
        """The bank takes in the batch."""
        # Among rows of one age, a newer one would be known as no picture's own by its age alone.
        if not self.cfg.refresh:
            self.bank.update(*self.seen)

    def optim(self, phase: str) -> OptimSpec:
        """SGD with momentum and two drops by ten."""
        return OptimSpec(
            lr=self.cfg.lr,
            momentum=self.cfg.momentum,
            weight_decay=self.cfg.weight_decay,
            schedule=self.cfg.schedule,
            milestones=(0.6, 0.8),
            gammas=(0.1, 0.1),
        )

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """Pictures, and the others in the batch that are nearest to them, with cosines."""
        view = batch.view("view")
        unit = F.normalize(self.projector(self.backbone(view)), dim=1)
        cosine, nearest = (unit[:TILES] @ unit.T).fill_diagonal_(-1).max(1)
        rgb = self.data.rgb(view)
        return [
            Panel("picture", rgb[:TILES]),
            Panel("nearest other", rgb[nearest], tuple(f"{value:.2f}" for value in cosine)),
        ]
