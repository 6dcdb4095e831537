"""What iBOT and DINOv2 add to DINO: the student also fills in masked patches as the teacher saw.

A method adds how it masks. In its logs `patch_top1` says for how many masked patches, in %, student
and teacher choose the same prototype (by chance about 100 / prototypes, more where the teacher
prefers some), beside DINO's `teacher_entropy`, `teacher_kl` and `target_information`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.api import Batch, Panel, Step
from bench.errors import BenchError
from bench.kernels import dino, ibot
from bench.nn import memory
from bench.nn.momentum import momentum_copy
from bench.nn.multicrop import local_side
from bench.nn.patch_masks import as_pixels, masked_first
from bench.nn.prototypes import Center, watch_targets
from bench.nn.regions import require_class_token
from bench.nn.self_distillation import SelfDistillation, SelfDistillationConfig

TILES = 8

# iBOT's and DINOv2's for small pictures.
SMALL: dict[str, Any] = {
    "epochs": 10,
    "batch_size": 64,
    "global_size": 0.75,  # 9 patches of 8 px in place of 16: three minutes of a CPU core
    "local_crops": 0,
    "prototypes": 512,
    "hidden": 256,
    "bottleneck": 64,
    "teacher_temperature": 0.04,
    "temperature_epochs": 0,
    "jitter": (0.4, 0.4, 0.4, 0.2),
    "blur": 0.0,
    "lr": 4e-3,
    "momentum": 0.99,
    "warmup_epochs": 1,
}


class MaskedDistillationConfig(SelfDistillationConfig):
    """DINO's settings and those of the masked patches."""

    shared_head: bool = True  # of class token and patches
    patch_weight: float = Field(1.0, ge=0)


class MaskedDistillation(SelfDistillation):
    """DINO on class tokens; and for each masked patch, the teacher's assignment of that patch."""

    def build(self) -> None:
        """DINO's parts, the mask token, and the patches' head and centre.

        Raises:
            BenchError: the backbone has no patches or no class token.
        """
        cfg = self.cfg
        self.prefix = require_class_token(self.backbone, type(self).__name__)
        super().build()
        self.side = local_side(self.backbone, self.data.size, cfg.global_size)
        cells = self.side // local_side(self.backbone, self.data.size, 0)  # by a patch's side
        self.grid = (cells, cells)
        masked = self.most_masked(2 * cfg.batch_size)
        if not masked:
            raise BenchError(
                f"of {cells} x {cells} patches none is ever masked: larger pictures, smaller "
                "patches or a greater share of masked ones are needed"
            )
        memory.require(
            memory.BYTES_PER_LOGIT * cfg.prototypes * masked,
            f"{cfg.prototypes:,} prototypes for {masked:,} masked patches",
            "set fewer prototypes or a smaller batch",
        )
        self.mask_token = nn.Parameter(torch.zeros(self.backbone.dim))
        if not cfg.shared_head:
            self.patch_head = self.new_head()
            self.teacher_patch_head = momentum_copy(self.patch_head)
        self.patch_center = Center(cfg.prototypes, cfg.center_momentum)

    def patch_heads(self) -> tuple[nn.Module, nn.Module]:
        """The teacher's and the student's head of the patches."""
        if self.cfg.shared_head:
            return self.teacher_head, self.head
        return self.teacher_patch_head, self.patch_head

    @abstractmethod
    def masks(self, n: int, rng: torch.Generator) -> Tensor:
        """Which patches of `n` global views the student does not see, `[n, P]` bool."""

    @abstractmethod
    def most_masked(self, n: int) -> int:
        """The most patches that `masks` can choose, of all `n` views together."""

    def match(self, batch: Batch, step: Step) -> tuple[Tensor, Tensor]:
        """DINO's loss plus that of the masked patches, and what the student made of the views.

        Returns:
            The loss, and the student's class tokens of the two global views, `[2, B, D]`.
        """
        cfg = self.cfg
        views = torch.cat(batch.views["global"] + batch.views["solarized"])
        mask = self.masks(len(views), step.rng)
        at, weight = masked_first(mask, self.most_masked(len(views)))
        teacher_patch_head, patch_head = self.patch_heads()
        with torch.no_grad():
            classes, patches = self.split(self.teacher.tokens(views))
            targets = self.assign(self.teacher_head(classes).unflatten(0, (2, -1)), step)
            truth = self.assign(teacher_patch_head(patches[at]), step, self.patch_center)
        classes, patches = self.split(
            self.backbone.tokens(views, mask=mask, mask_token=self.mask_token)
        )
        student = [self.head(classes).unflatten(0, (2, -1))]
        if local := batch.views.get("local"):
            seen, _ = self.split(self.backbone.tokens(torch.cat(local)))
            student.append(self.head(seen).unflatten(0, (len(local), -1)))
        logits = torch.cat(student)
        guess = patch_head(patches[at])

        watch_targets(step, targets.view(0), logits[0], cfg.student_temperature)
        rows = memory.watched(guess.shape[1])  # the masked ones come first
        chosen, hidden = truth.rows(rows).probabilities().argmax(1), weight[:rows] > 0
        right = (guess[:rows].detach().argmax(1) == chosen) & hidden
        step.log("patch_top1", 100 * right.sum() / hidden.sum().clamp(min=1))
        patch_loss = ibot(guess, truth, weight, cfg.student_temperature)
        step.log("patch_loss", patch_loss)
        loss = dino(logits, targets, cfg.student_temperature) + cfg.patch_weight * patch_loss
        return loss, classes.unflatten(0, (2, -1))

    def split(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Class tokens `[n, D]`, and all patches one after the other, `[n * P, D]`."""
        return tokens[:, 0], tokens[:, self.prefix :].flatten(0, 1)

    def pairs(self) -> Sequence[tuple[nn.Module, nn.Module]]:
        """DINO's, and the patches' head where it is another."""
        own = () if self.cfg.shared_head else (self.patch_heads(),)
        return (*super().pairs(), *own)

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """Views with holes, and each patch in the colour of its most likely prototype."""
        teacher_patch_head, patch_head = self.patch_heads()
        views = batch.views["global"][0][:TILES]
        mask = self.masks(len(views), step.rng)
        seen = ~as_pixels(mask, self.grid, self.side)[:, None]
        _, patches = self.split(self.teacher.tokens(views))
        truth = teacher_patch_head(patches) - self.patch_center.mean
        _, patches = self.split(self.backbone.tokens(views, mask=mask, mask_token=self.mask_token))
        guess = patch_head(patches) - self.patch_center.mean
        chosen, guessed = (x.argmax(1).view_as(mask) for x in (truth, guess))
        right = ((chosen == guessed) & mask).sum(1).tolist()
        counts = mask.sum(1).tolist()
        return [
            Panel("a view", self.data.rgb(views)),
            Panel("what the student sees", self.data.rgb(views * seen)),
            Panel("the teacher's prototypes", self.colors(chosen)),
            Panel(
                "with the student's where masked",
                self.colors(torch.where(mask, guessed, chosen)),
                tuple(f"{r} of {n}" for r, n in zip(right, counts, strict=True)),
            ),
        ]

    def colors(self, prototypes: Tensor) -> Tensor:
        """Tiles `[n, 3, s, s]` of patches `[n, P]`; neighbouring numbers have distant colours."""
        # Powers of 1 / 1.2207, which solves x^4 = x + 1: their multiples fill a cube evenly.
        steps = torch.tensor([0.8192, 0.6710, 0.5497], device=prototypes.device)
        rgb = (prototypes[..., None] * steps).frac()
        channels = [as_pixels(x, self.grid, self.side) for x in rgb.unbind(-1)]
        return torch.stack(channels, 1)
