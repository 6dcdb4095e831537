"""MoCo v3: momentum contrast within the batch, also for ViTs (Chen 2021, arXiv:2104.02057).

`match_top1` is how often, in %, a query or key of the batch is nearest to that of its other view;
chance is 100 / (2 * batch - 1).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.api import Batch, OptimSpec, Step
from bench.kernels import infonce
from bench.nn.joint_embedding import SMALL, JointEmbedding, JointEmbeddingConfig
from bench.nn.mlp import mlp
from bench.nn.momentum import cosine, follow, momentum_copy
from bench.nn.positions import fix_positions


class MoCoV3(JointEmbedding):
    """Each view's prediction must find the momentum encoder's key of the other view."""

    deviations = (
        "a transformer's weights start as timm has them; the official code draws them otherwise",
    )
    recipes = {
        "small": {**SMALL, "temperature": 0.1, "teacher_momentum": 0.95},
        # CONFIG.md's ViT-S/16 and ViT-B/16, for a --backbone that is a vision transformer.
        "vit": {
            "crop": (0.08, 1.0),
            "projector_layers": 3,
            "predictor_norm": True,
            "temperature": 0.2,
            "optimizer": "adamw",
            "lr": 1.5e-4,
            "weight_decay": 0.1,
            "warmup_epochs": 40,
        },
    }

    class Config(JointEmbeddingConfig):
        """ResNet-50, 300 epochs: facebookresearch/moco-v3, CONFIG.md and moco/builder.py."""

        epochs: int = 300
        batch_size: int = Field(4096, ge=2)
        crop: tuple[float, float] = (0.2, 1.0)
        hidden: int = Field(4096, ge=1)
        projection: int = Field(256, ge=1)
        projector_layers: int = Field(2, ge=2)
        predictor_norm: bool = False  # batch norm after the predictor's last layer
        temperature: float = Field(1.0, gt=0)
        teacher_momentum: float = Field(0.99, ge=0, le=1)  # of the keys' encoder, to 1 by a cosine
        freeze_patches: bool = True  # a transformer's patch embedding stays as it was drawn
        lr: float = Field(0.3, ge=0)  # per 256 pictures

    def build(self) -> None:
        """Projector, predictor and the momentum encoder; positions are fixed, as are patches."""
        cfg = self.cfg
        model: Any = getattr(self.backbone, "model", None)
        if cfg.freeze_patches and hasattr(model, "patch_embed"):
            model.patch_embed.requires_grad_(False)
        fix_positions(self.backbone)
        super().build()
        last: Literal["norm-free", "plain"] = "norm-free" if cfg.predictor_norm else "plain"
        self.predictor = mlp(cfg.projection, cfg.hidden, cfg.projection, last=last, bias=False)
        self.key_encoder = momentum_copy(nn.Sequential(self.backbone, self.projector))

    def new_projector(self) -> nn.Sequential:
        """Linear layers without bias; after the last one batch norm without affine."""
        cfg = self.cfg
        hidden = [cfg.hidden] * (cfg.projector_layers - 1)
        return mlp(self.backbone.dim, *hidden, cfg.projection, last="norm-free")

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """2 t times InfoNCE, from either view's queries to the other's keys."""
        views, temperature = (batch.view("one"), batch.view("two")), self.cfg.temperature
        one, two = (self.predictor(self.embed(view)) for view in views)
        with torch.no_grad():
            key_one, key_two = (self.key_encoder(view) for view in views)
        self.watch(step, one, key_two)
        forth = infonce(one, key_two, 1 / temperature, symmetric=False)
        back = infonce(two, key_one, 1 / temperature, symmetric=False)
        loss: Tensor = 2 * temperature * (forth + back)
        return loss

    def after_step(self, step: Step) -> None:
        """The momentum encoder follows, ever more slowly."""
        momentum = cosine(self.cfg.teacher_momentum, 1.0, step.progress)
        follow(self.key_encoder, nn.Sequential(self.backbone, self.projector), momentum)

    def optim(self, phase: str) -> OptimSpec:
        """LARS without biases and batch norms, or AdamW on everything that is trained."""
        everything = {"decay_bias_and_norm": self.cfg.optimizer == "adamw"}
        return super().optim(phase).model_copy(update=everything)
