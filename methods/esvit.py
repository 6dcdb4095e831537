"""EsViT: DINO's task for views, and for their corresponding regions (Li 2021, arXiv:2106.09785).

`region_loss` and `view_loss` are the tasks' shares of the loss; log(prototypes) is chance in both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Backbone, Batch, Panel, Step
from bench.kernels import Teacher, dino, ibot
from bench.nn import memory
from bench.nn.momentum import momentum_copy
from bench.nn.prototypes import Center, PrototypeHead, watch_targets
from bench.nn.regions import region_shape, regions
from bench.nn.self_distillation import SMALL, TOY, SelfDistillation, SelfDistillationConfig

# Regions are many times the views: a smaller head. DINO's temperature suits short runs.
LIGHTER = {
    "prototypes": 512,
    "hidden": 128,
    "teacher_temperature": 0.04,
    "temperature_epochs": 0,
}


class Seen(NamedTuple):
    """What a network makes of one crop."""

    view: Tensor  # [B, K] logits
    features: Tensor  # [B, T, C] regions
    regions: Tensor  # [B, T, K] logits


class EsViT(SelfDistillation):
    """A region's target is that of the teacher's most similar region of the other view."""

    deviations = (
        "a plain vision transformer by default; the paper's have stages, as Swin",
        "no stochastic depth",
        "crops are resampled bilinearly; the official code's bicubically",
        "prototypes have unit length; the official command learns it",
    )
    recipes = {"small": {**SMALL, **LIGHTER}, "toy": {**TOY, **LIGHTER}}

    class Config(SelfDistillationConfig):
        """The command for Swin-T in microsoft/esvit's README; the rest is DINO's."""

        epochs: int = 300
        batch_size: int = 512  # 16 GPUs of 32
        teacher_temperature: float = 0.07
        temperature_epochs: int = 30

    def build(self) -> None:
        """A second head and centre, for regions."""
        super().build()
        cfg = self.cfg
        count, dim = region_shape(self.backbone, self.data.size)
        local = cfg.local_crops * (cfg.local_size / cfg.global_size) ** 2
        memory.require(
            memory.BYTES_PER_LOGIT * cfg.prototypes * cfg.batch_size * count * (4 + local),
            f"{cfg.prototypes:,} prototypes for {count} regions of every crop",
            "set fewer prototypes or a smaller batch",
        )
        self.region_head = PrototypeHead(dim, cfg.prototypes, cfg.hidden, cfg.bottleneck)
        self.region_teacher_head = momentum_copy(self.region_head)
        self.region_center = Center(cfg.prototypes, cfg.center_momentum)

    def pairs(self) -> Sequence[tuple[nn.Module, nn.Module]]:
        """DINO's, and the region heads."""
        return (*super().pairs(), (self.region_teacher_head, self.region_head))

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """The mean of both tasks."""
        shared = batch.views["global"] + batch.views["solarized"]
        student = see(self.backbone, self.head, self.region_head, shared)
        if self.cfg.local_crops:
            local = batch.views["local"]
            student += see(self.backbone, self.head, self.region_head, local)
        with torch.no_grad():
            teacher = see(self.teacher, self.teacher_head, self.region_teacher_head, shared)
            targets = self.assign(torch.stack([seen.view for seen in teacher]), step)
            logits = torch.stack([seen.regions for seen in teacher])
            region_targets = self.assign(logits, step, self.region_center)
        temperature = self.cfg.student_temperature
        watch_targets(step, targets.view(0), student[0].view, temperature)
        view_loss = dino(torch.stack([seen.view for seen in student]), targets, temperature)
        pairs = [
            region_loss(
                mine.regions,
                region_targets.view(other),
                match(mine.features, theirs.features),
                temperature,
            )
            for other, theirs in enumerate(teacher)
            for number, mine in enumerate(student)
            if number != other
        ]
        loss = torch.stack(pairs).mean()
        step.log("view_loss", view_loss)
        step.log("region_loss", loss)
        return (view_loss + loss) / 2

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """Two views, and the first laid out with the second's regions that match its own."""
        one, two = (batch.views[name][0][:8] for name in ("global", "solarized"))
        index = match(regions(self.backbone, one)[1], regions(self.teacher, two)[1])
        across = math.isqrt(index.shape[1])
        side = one.shape[2] // across
        tiles = F.unfold(two, side, stride=side)[..., : across**2]
        chosen = tiles.gather(2, index[:, None].expand(-1, tiles.shape[1], -1))
        laid = F.fold(chosen, (side * across, side * across), side, stride=side)
        names = ("a view", "another view", "the first, of the second's regions")
        return [
            Panel(name, self.data.rgb(x)) for name, x in zip(names, (one, two, laid), strict=True)
        ]


def see(
    network: Backbone, head: nn.Module, region_head: nn.Module, crops: Sequence[Tensor]
) -> list[Seen]:
    """What `network` makes of crops of one size `[B, 3, s, s]`, all in one pass."""
    view, features = regions(network, torch.cat(list(crops)))
    made = (head(view), features, region_head(features))
    return [Seen(*each) for each in zip(*(x.chunk(len(crops)) for x in made), strict=True)]


@torch.no_grad()
def match(student: Tensor, teacher: Tensor) -> Tensor:
    """The most similar of `[B, T, C]` regions for each of `[B, S, C]`, `[B, S]`."""
    one, two = F.normalize(student.float(), dim=2), F.normalize(teacher.float(), dim=2)
    return (one @ two.mT).argmax(2)


def region_loss(student: Tensor, teacher: Teacher, index: Tensor, temperature: float) -> Tensor:
    """Mean over regions of -sum over k of p_teacher[matched] log softmax(student / t).

    Args:
        student: `[B, S, K]` logits.
        teacher: of `[B, T, K]` logits; no gradient flows into it.
        index: `[B, S]` which of the T each of the S shall agree with.
        temperature: the student's.
    """
    known = Teacher(teacher.logits.flatten(0, 1), teacher.temperature, teacher.center)
    first = torch.arange(len(index), device=index.device) * teacher.logits.shape[1]
    rows = (first[:, None] + index).flatten()
    one = torch.ones(len(rows), device=index.device)
    return ibot(student.flatten(0, 1), known, one, temperature, rows) / len(rows)
