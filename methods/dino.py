"""DINO: a student matches its teacher's view of other crops (Caron 2021, arXiv:2104.14294).

`teacher_entropy` between 0 and log(prototypes), `teacher_kl` above 0 and `target_information` above
0 say that it has not collapsed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bench.api import Batch, Panel, Step
from bench.kernels import dino
from bench.nn.attention import attention_panels
from bench.nn.multicrop import by_size
from bench.nn.prototypes import watch_targets
from bench.nn.self_distillation import SMALL, TOY, SelfDistillation, SelfDistillationConfig


class DINO(SelfDistillation):
    """Every crop's student must give the assignment that the teacher gives each global view."""

    deviations = (
        "no stochastic depth; the official transformers drop a tenth",
        "crops are resampled bilinearly; the official code's bicubically",
    )
    recipes = {"small": SMALL, "toy": TOY}

    class Config(SelfDistillationConfig):
        """DINO's own, as the base has them."""

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """Cross-entropy between all pairs of different crops, the first of them a global one."""
        shared = batch.views["global"] + batch.views["solarized"]
        crops = shared + batch.views.get("local", [])
        student = torch.stack(by_size(nn.Sequential(self.backbone, self.head), crops))
        with torch.no_grad():
            teach = nn.Sequential(self.teacher, self.teacher_head)
            targets = self.assign(torch.stack(by_size(teach, shared)), step)
        watch_targets(step, targets.view(0), student[0], self.cfg.student_temperature)
        return dino(student, targets, self.cfg.student_temperature)

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """Where each head of the teacher's class token looks; the views, if it has none."""
        seen = attention_panels(self.teacher, batch.views["global"][0][:8], self.data)
        return seen or super().picture(batch, step)
