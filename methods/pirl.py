"""PIRL: a picture and its patches, shuffled, must agree (Misra 2019, arXiv:1912.01991)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Batch, Method, OptimSpec, Panel, Step, TrainSet, View
from bench.data.augment import Augmented
from bench.nn.memory_bank import Contrast, MemoryBank, match_top1
from bench.nn.patch_cutter import GRID, PatchCutter
from bench.nn.patch_encoder import tiled

PATCHES = GRID**2
TILES = 8  # of the picture


class PIRL(Method):
    """The bank keeps what the picture's own branch says; both branches must find it there.

    `match_top1` is how often no other candidate is nearer to the shuffled patches than the own row,
    `image_match_top1` the same of the picture, %; chance is 100 / (1 + negatives). Negatives are
    drawn from the whole bank, the own row included, as in VISSL.
    """

    deviations = (
        "pictures are jittered and mirrored whole before they are cut: VISSL does it by patch",
        "no random photometric changes beyond jitter and gray: VISSL adds its own",
    )
    recipes = {
        "small": {
            "epochs": 10,
            "batch_size": 128,
            "lr": 0.1,
            "base_batch": 128,
            "loss": "softmax",
            "negatives": 4096,
            "temperature": 0.1,
            "refresh": True,
            "crop": (0.2, 1.0),
            "jitter": (0.4, 0.4, 0.4, 0.1),
            "jitter_p": 0.8,
            # Patches of 9 px: of 8, the last map would come from one pixel, for which torch's CPU
            # gives no finite bfloat16 gradient.
            "size": 32,
            "gap": 0.15,
            "patch_jitter": 0.15,
        },
    }

    class Config(Augmented):
        """VISSL's pirl_jigsaw_4node_resnet50.yaml, whose values are the paper's."""

        epochs: int = 800
        batch_size: int = 1024  # 32 on each of 32 GPUs
        lr: float = 0.03  # per `base_batch`
        base_batch: int = Field(256, ge=1)
        final_lr: float = Field(0.004, ge=0, le=1)  # at the cosine's end, share of lr: 0.00012
        momentum: float = 0.9  # of SGD
        weight_decay: float = 1e-4
        loss: Contrast = "nce"  # VISSL also has the cross-entropy
        negatives: int = Field(32000, ge=1)
        temperature: float = Field(0.07, gt=0)
        bank_momentum: float = Field(0.5, ge=0, lt=1)
        refresh: bool = False  # make the bank anew before every epoch, and only then
        patches_weight: float = Field(0.5, ge=0, le=1)  # lambda; 1 - lambda is the picture's
        projection: int = Field(128, ge=1)
        jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.2)
        jitter_p: float = Field(1.0, ge=0, le=1)
        blur: float = Field(0.0, ge=0, le=1)
        puzzle_crop: tuple[float, float] = (0.6, 1.0)  # share of the area that is cut in patches
        size: int = Field(255, ge=1)  # px, of the crop that is cut: patches of 64
        gap: float = Field(21 / 64, ge=0)  # between patches, in sides of a patch
        patch_jitter: float = Field(21 / 64, ge=0)  # range of its place: 64 px in a cell of 85

    def build(self) -> None:
        """The picture's projection, the patches' two, and the bank."""
        cfg, dim = self.cfg, self.cfg.projection
        self.cutter = PatchCutter(
            self.data,
            cfg.size,
            gap=cfg.gap,
            jitter=cfg.patch_jitter,
            normalize=False,
            color_drop="none",
        )
        self.projector = nn.Linear(self.backbone.dim, dim)
        self.patch_projector = nn.Linear(self.backbone.dim, dim)
        self.puzzle_projector = nn.Linear(PATCHES * dim, dim)
        self.bank = MemoryBank(self.data.n_train, dim, cfg.bank_momentum, cfg.temperature)

    def before_epoch(self, epoch: int, train: TrainSet) -> None:
        """Few epochs move a network too far for rows of the last one: make all of them anew."""
        if self.cfg.refresh:
            self.bank.fill(train.features(nn.Sequential(self.backbone, self.projector)))

    def views(self) -> Sequence[View]:
        """A crop as a whole, and another one to be cut; patches are normalised as they are cut."""
        cfg, info = self.cfg, self.data
        puzzle = cfg.ops(info, crop=cfg.puzzle_crop)[:-1]
        return (View("picture", cfg.ops(info)), View("puzzle", puzzle, cfg.size))

    def patches(self, batch: Batch, step: Step) -> Tensor:
        """Nine patches of each puzzle in random order, `[B, 9, 3, s, s]`."""
        patches = self.cutter(batch.view("puzzle"), step.rng)
        draw = torch.rand(len(patches), PATCHES, generator=step.rng, device=patches.device)
        row = torch.arange(len(patches), device=patches.device)[:, None]
        shuffled: Tensor = patches[row, draw.argsort(1)]
        return shuffled

    def embed_patches(self, patches: Tensor) -> Tensor:
        """One embedding `[B, projection]` of the nine patches' features in the order given."""
        features = self.patch_projector(self.backbone(patches.flatten(0, 1)))
        out: Tensor = self.puzzle_projector(features.unflatten(0, (-1, PATCHES)).flatten(1))
        return out

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """The weighted sum of both branches' contrasts with the bank."""
        cfg, bank = self.cfg, self.bank
        puzzle = self.embed_patches(self.patches(batch, step))
        picture = self.projector(self.backbone(batch.view("picture")))
        step.watch(picture)
        self.seen = picture.detach(), batch.index
        total: Tensor = picture.new_zeros(())
        for name, embeddings, weight in (
            ("match_top1", puzzle, cfg.patches_weight),
            ("image_match_top1", picture, 1 - cfg.patches_weight),
        ):
            at = bank.candidates(batch.index, cfg.negatives, step.rng)
            logits = bank.logits(embeddings, at)
            step.log(name, match_top1(logits))
            total = total + weight * bank.contrast(logits, cfg.loss)
        return total

    def after_step(self, step: Step) -> None:
        """The bank takes in the pictures; patches never enter it."""
        # Among rows of one age, a newer one would be known as no picture's own by its age alone.
        if not self.cfg.refresh:
            self.bank.update(*self.seen)

    def optim(self, phase: str) -> OptimSpec:
        """SGD with momentum by a cosine."""
        cfg = self.cfg
        return OptimSpec(
            lr=cfg.lr,
            base_batch=cfg.base_batch,
            momentum=cfg.momentum,
            weight_decay=cfg.weight_decay,
            min_lr=cfg.final_lr * cfg.lr * cfg.batch_size / cfg.base_batch,
        )

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """Pictures, shuffled patches, and whose whole in the batch is nearest to the patches."""
        view, patches = batch.view("picture"), self.patches(batch, step)[:TILES]
        whole = F.normalize(self.projector(self.backbone(view)), dim=1)
        cosine, nearest = (F.normalize(self.embed_patches(patches), dim=1) @ whole.T).max(1)
        rgb = self.data.rgb(view)
        good = tuple(found == place for place, found in enumerate(nearest.tolist()))
        captions = tuple(f"{value:.2f}" for value in cosine.tolist())
        return [
            Panel("picture", rgb[:TILES]),
            Panel("shuffled", tiled(self.cutter.shown(patches))),
            Panel(f"nearest of {len(rgb)}", rgb[nearest], captions, good),
        ]
