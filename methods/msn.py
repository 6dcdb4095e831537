"""MSN: views that lack patches match the prototypes of whole ones (Assran 2022, arXiv:2204.07141).

Mean entropy maximisation keeps all prototypes in use: `mean_entropy`, of the mean assignment, stays
near log(prototypes) nats. `target_information` above 0 says that targets tell pictures apart, and
`match_top1` how often, in %, a masked view's target is the nearest of the batch's; by chance
100 / batch_size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Batch, Encoder, Method, OptimSpec, Panel, Step, View
from bench.data.augment import Augmented
from bench.nn import memory
from bench.nn.momentum import follow, momentum_copy
from bench.nn.multicrop import local_side
from bench.nn.patch_masks import as_pixels, kept_patches
from bench.nn.regions import require_class_token
from bench.nn.soft_assignments import log_assignments, msn, sharpened

STRETCH = 1.25  # the official momentum's schedule ends after so many times the training


class MSN(Method):
    """A student sees some patches of a view; its teacher, a moving average, all of another."""

    default_backbone = "vit_nano_patch8"
    deviations = (
        "each picture drops patches of its own; officially all of a batch drop the same",
        "schedules end with training (officially 1.25 times as long), and the warm-up starts at 0",
        "prototypes decay and are clipped with all weights; only their directions count",
    )
    recipes = {
        "small": {
            "epochs": 10,
            "batch_size": 64,
            "local_crops": 1,
            "local_crop": (0.2, 0.6),
            "local_size": 0.5,
            "prototypes": 256,
            "hidden": 256,
            "projection": 64,
            "jitter": (0.4, 0.4, 0.4, 0.2),
            "blur": 0.0,
            "momentum": 0.99,
            "warmup_epochs": 1,
        },
        "toy": {"local_crops": 1, "prototypes": 64, "hidden": 32, "projection": 16},
    }

    class Config(Augmented):
        """Settings of the official configs/pretrain/msn_vits16.yaml."""

        epochs: int = 800
        batch_size: int = 1024  # from memory: 16 GPUs of 64
        crop: tuple[float, float] = (0.3, 1.0)
        jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
        local_crops: int = Field(10, ge=0)
        local_crop: tuple[float, float] = (0.05, 0.3)
        local_size: float = Field(96 / 224, gt=0, le=1)  # of the other views' side
        patch_drop: float = Field(0.15, ge=0, lt=1)  # of the random view's patches
        prototypes: int = Field(1024, ge=2)
        hidden: int = Field(2048, ge=1)
        projection: int = Field(256, ge=1)
        temperature: float = Field(0.1, gt=0)
        sharpen: float = Field(0.25, gt=0)  # temperature that sharpens the targets
        balance: bool = True  # targets by Sinkhorn
        memax: float = Field(1.0, ge=0)  # weight of the mean entropy
        momentum: float = Field(0.996, ge=0, le=1)  # of the teacher, evenly towards 1
        lr: float = 1e-3
        min_lr: float = 1e-6
        warmup_epochs: float = 15
        weight_decay: float = 0.04
        weight_decay_end: float = 0.4
        clip: float | None = Field(3.0, gt=0)  # of the gradient's norm

    def build(self) -> None:
        """Make projector, prototypes and teacher.

        Raises:
            BenchError: the backbone has no patches or no class token.
        """
        cfg = self.cfg
        require_class_token(self.backbone, "MSN")
        memory.require(
            memory.BYTES_PER_LOGIT * cfg.prototypes * (2 + cfg.local_crops) * cfg.batch_size,
            f"{cfg.prototypes:,} prototypes for {2 + cfg.local_crops} views of {cfg.batch_size}",
            "set fewer prototypes or a smaller batch",
        )
        self.grid: tuple[int, int] = getattr(self.backbone, "grid")  # noqa: B009
        layers: list[nn.Module] = []
        for inputs in (self.backbone.dim, cfg.hidden):
            layers += [nn.Linear(inputs, cfg.hidden), nn.BatchNorm1d(cfg.hidden), nn.GELU()]
        self.projector = nn.Sequential(*layers, nn.Linear(cfg.hidden, cfg.projection))
        bound = cfg.projection**-0.5
        draw = torch.empty(cfg.prototypes, cfg.projection).uniform_(-bound, bound)
        self.prototypes = nn.Parameter(draw)
        self.teacher = momentum_copy(self.backbone)
        self.teacher_projector = momentum_copy(self.projector)

    def views(self) -> Sequence[View]:
        """The teacher's view and the random one, of one kind; and small focal ones."""
        cfg, info = self.cfg, self.data
        views = [View("target", cfg.ops(info)), View("random", cfg.ops(info))]
        if cfg.local_crops:
            side = local_side(self.backbone, info.size, cfg.local_size)
            ops = cfg.ops(info, crop=cfg.local_crop)
            views.append(View("local", ops, side, cfg.local_crops))
        return views

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """Cross-entropy of each view's assignment to the target, less the mean's entropy."""
        cfg = self.cfg
        keep = self.keep(len(batch), step.rng)
        anchors = [self.projector(self.backbone.tokens(batch.view("random"), keep)[:, 0])]
        if local := batch.views.get("local"):
            anchors.append(self.projector(self.backbone.tokens(torch.cat(local))[:, 0]))
        with torch.no_grad():
            seen = self.teacher_projector(self.teacher.tokens(batch.view("target"))[:, 0])
        targets = sharpened(self.assign(seen), cfg.sharpen, cfg.balance)
        logs = self.assign(torch.cat(anchors))
        step.watch_targets(targets, logs[: len(batch)].detach())
        near = F.normalize(anchors[0].detach().float()) @ F.normalize(seen.float()).T
        own = torch.arange(len(batch), device=near.device)
        step.log("match_top1", 100 * (near.argmax(1) == own).float().mean())
        step.log("mean_entropy", torch.special.entr(logs.detach().exp().mean(0)).sum())
        return msn(logs, targets, cfg.memax)

    def assign(self, embeddings: Tensor) -> Tensor:
        """Log-probabilities `[N, K]` of the prototypes for embeddings `[N, projection]`."""
        return log_assignments(embeddings, self.prototypes, self.cfg.temperature)

    def keep(self, n: int, rng: torch.Generator) -> Tensor:
        """The patches that the student sees of `n` random views, `[n, K]`."""
        return kept_patches(n, self.grid[0] * self.grid[1], self.cfg.patch_drop, rng)

    def after_step(self, step: Step) -> None:
        """The teacher follows, ever more slowly."""
        momentum = self.cfg.momentum + (1 - self.cfg.momentum) * step.progress / STRETCH
        follow(self.teacher, self.backbone, momentum)
        follow(self.teacher_projector, self.projector, momentum)

    def optim(self, phase: str) -> OptimSpec:
        """AdamW; learning rate and weight decay move along cosines, the decay upwards."""
        cfg = self.cfg
        return OptimSpec(
            name="adamw",
            lr=cfg.lr,
            weight_decay=cfg.weight_decay,
            weight_decay_end=cfg.weight_decay_end,
            decay_bias_and_norm=False,
            warmup_epochs=cfg.warmup_epochs,
            min_lr=cfg.min_lr,
            clip_grad_norm=cfg.clip,
        )

    def encoder(self) -> Encoder:
        """The teacher's backbone, as in the paper."""
        teacher: Encoder = self.teacher
        return teacher

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """Whole views of the teacher, the student's with holes, and its most likely prototypes."""
        target, random = batch.view("target")[:8], batch.view("random")[:8]
        keep = self.keep(len(random), step.rng)
        seen = torch.zeros(len(random), self.grid[0] * self.grid[1], device=random.device)
        seen = as_pixels(seen.scatter(1, keep, 1.0), self.grid, self.data.size)[:, None]
        whole = self.teacher_projector(self.teacher.tokens(target)[:, 0])
        part = self.projector(self.backbone.tokens(random, keep)[:, 0])
        one, two = (self.assign(x).argmax(1).tolist() for x in (whole, part))
        captions = [tuple(f"prototype {k}" for k in chosen) for chosen in (one, two)]
        right = tuple(a == b for a, b in zip(one, two, strict=True))
        return [
            Panel("the teacher's view", self.data.rgb(target), captions[0]),
            Panel("the student's", self.data.rgb(random * seen), captions[1], right),
        ]
