"""What DINO and its descendants share: crops of two sizes, a momentum teacher, sharpened targets.

A method adds its loss. The settings' defaults are those of DINO's main_dino.py (arXiv:2104.14294).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.api import Backbone, Encoder, Method, OptimSpec, Step, View
from bench.data.augment import Augmented
from bench.kernels import Teacher, sinkhorn_center
from bench.nn import memory
from bench.nn.momentum import cosine, follow, momentum_copy
from bench.nn.multicrop import local_side
from bench.nn.prototypes import Center, PrototypeHead, cancel_gradients

# 10,000 pictures of 32 px on a CPU core: about 2 minutes with the small ViT, 1 with the small CNN.
# Crops hold most of an object, and colours change more than in the paper: on 32 px, colour is the
# easiest thing to agree on. Ten epochs leave no time for a slow teacher.
SMALL: dict[str, Any] = {
    "epochs": 10,
    "batch_size": 64,
    "crop": (0.5, 1.0),
    "global_size": 0.75,
    "local_crops": 1,
    "local_crop": (0.2, 0.6),
    "local_size": 0.5,
    "jitter": (0.8, 0.8, 0.8, 0.2),
    "blur": 0.0,
    "prototypes": 1024,
    "hidden": 256,
    "bottleneck": 64,
    "lr": 4e-3,
    "momentum": 0.99,
    "warmup_epochs": 1,
}
# In the first steps the loss rises with the centre, and conformance wants to see it fall.
TOY: dict[str, Any] = {**SMALL, "center_momentum": 0.999}


class SelfDistillationConfig(Augmented):
    """DINO's settings for ViT-S/16: defaults of main_dino.py, the paper's long runs where noted."""

    epochs: int = 100  # the paper's best: 800
    batch_size: int = 1024  # 16 GPUs of 64
    crop: tuple[float, float] = (0.4, 1.0)  # of the global views; ViT's long runs 0.25
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    global_size: float = Field(1.0, gt=0, le=1)  # of the stored pictures' side
    local_crops: int = Field(8, ge=0)
    local_crop: tuple[float, float] = (0.05, 0.4)
    local_size: float = Field(96 / 224, gt=0, le=1)  # of the stored pictures' side
    prototypes: int = Field(65536, ge=2)
    hidden: int = Field(2048, ge=1)
    bottleneck: int = Field(256, ge=1)
    student_temperature: float = Field(0.1, gt=0)
    teacher_temperature: float = Field(0.04, gt=0)  # long runs: 0.07
    warmup_temperature: float = Field(0.04, gt=0)
    temperature_epochs: int = Field(0, ge=0)  # of warm-up; long runs: 30
    targets: Literal["center", "sinkhorn"] = "center"
    center_momentum: float = Field(0.9, ge=0, lt=1)
    momentum: float = Field(0.996, ge=0, le=1)  # of the teacher, to 1 by a cosine
    freeze_epochs: int = Field(1, ge=0)  # in which the prototypes stay as they are
    lr: float = 5e-4  # per 256 pictures
    min_lr: float = 1e-6
    warmup_epochs: float = 10
    weight_decay: float = 0.04
    weight_decay_end: float = 0.4
    clip: float | None = Field(3.0, gt=0)  # of the norm of each parameter's gradient


class SelfDistillation(Method):
    """A student learns the assignments that its own moving average makes of other crops."""

    default_backbone = "vit_nano_patch8"

    def build(self) -> None:
        """A prototype head, and the teacher."""
        cfg = self.cfg
        crops = 2 * 2 + cfg.local_crops
        memory.require(
            memory.BYTES_PER_LOGIT * cfg.prototypes * (crops * cfg.batch_size + 5 * cfg.bottleneck),
            f"{cfg.prototypes:,} prototypes for {crops} crops of {cfg.batch_size} pictures",
            "set fewer prototypes or a smaller batch",
        )
        self.head = self.new_head()
        self.teacher = momentum_copy(self.backbone)
        self.teacher_head = momentum_copy(self.head)
        self.center = Center(cfg.prototypes, cfg.center_momentum)

    def new_head(self) -> PrototypeHead:
        """A prototype head as the settings have it."""
        cfg = self.cfg
        return PrototypeHead(self.backbone.dim, cfg.prototypes, cfg.hidden, cfg.bottleneck)

    def views(self) -> Sequence[View]:
        """Two global views, the second seldom blurred and at times solarised, and local ones.

        Without blur, as for small pictures, there is no solarisation either.
        """
        cfg, info = self.cfg, self.data
        one, two = ({"blur": 1.0}, {"blur": 0.1, "solarize": 0.2}) if cfg.blur else ({}, {})
        side = local_side(self.backbone, info.size, cfg.global_size)
        views = [
            View("global", cfg.ops(info, **one), side),
            View("solarized", cfg.ops(info, **two), side),
        ]
        if cfg.local_crops:
            ops = cfg.ops(info, crop=cfg.local_crop)
            side = local_side(self.backbone, info.size, cfg.local_size)
            views.append(View("local", ops, side, cfg.local_crops))
        return views

    def assign(self, logits: Tensor, step: Step, center: Center | None = None) -> Teacher:
        """The teacher's targets for `[..., K]` logits: centred or balanced, then sharpened.

        The centre moves towards these logits afterwards.

        Args:
            logits: `[..., K]` of the teacher.
            step: where training stands, for the temperature.
            center: another than the method's own.
        """
        temperature = self.temperature(step)
        if self.cfg.targets == "sinkhorn":
            balance = sinkhorn_center(logits.flatten(0, -2), temperature)
            return Teacher(logits.detach(), temperature, balance)
        return (center or self.center).teacher(logits, temperature)

    def temperature(self, step: Step) -> float:
        """The teacher's: in the epochs of warm-up it moves evenly, and the last has its end."""
        cfg = self.cfg
        if step.epoch >= cfg.temperature_epochs:
            return float(cfg.teacher_temperature)
        share = step.epoch / max(cfg.temperature_epochs - 1, 1)
        moved = share * (cfg.teacher_temperature - cfg.warmup_temperature)
        return float(cfg.warmup_temperature + moved)

    def after_backward(self, step: Step) -> None:
        """Gradients are clipped; all prototypes stay as they are in the first epochs."""
        if self.cfg.clip is not None:
            clip_each(self.parameters(), self.cfg.clip)
        if step.epoch < self.cfg.freeze_epochs:
            for module in self.modules():
                if isinstance(module, PrototypeHead):
                    cancel_gradients(module)

    def pairs(self) -> Sequence[tuple[nn.Module, nn.Module]]:
        """Each part of the teacher, and the student's part that it follows."""
        return ((self.teacher, self.backbone), (self.teacher_head, self.head))

    def after_step(self, step: Step) -> None:
        """The teacher follows, ever more slowly."""
        momentum = cosine(self.cfg.momentum, 1.0, step.progress)
        for target, source in self.pairs():
            follow(target, source, momentum)

    def optim(self, phase: str) -> OptimSpec:
        """AdamW; learning rate and weight decay move along cosines, the decay upwards."""
        cfg = self.cfg
        return OptimSpec(
            name="adamw",
            lr=cfg.lr,
            base_batch=256,
            weight_decay=cfg.weight_decay,
            weight_decay_end=cfg.weight_decay_end,
            decay_bias_and_norm=False,
            warmup_epochs=cfg.warmup_epochs,
            min_lr=cfg.min_lr,
        )

    def encoder(self) -> Encoder:
        """The teacher's backbone, as in the paper."""
        teacher: Backbone = self.teacher
        return teacher


@torch.no_grad()
def clip_each(parameters: Iterable[nn.Parameter], limit: float) -> None:
    """Scale each parameter's gradient down to the norm `limit`, one by one (main_dino.py)."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    scales = [limit / (norm + 1e-6) for norm in torch._foreach_norm(gradients)]
    torch._foreach_mul_(gradients, [scale.clamp(max=1.0) for scale in scales])
