"""MAE: see a quarter of the patches, reconstruct the others (He 2022, arXiv:2111.06377).

`mse`, in units of a patch's variance, has to be below `mse_mean`, that of each patch's own mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from bench.api import Batch, Method, MethodConfig, OptimSpec, Panel, Step, View
from bench.data.ops import HorizontalFlip, Normalize, RandomResizedCrop
from bench.errors import BenchError
from bench.nn.patch_decoder import PatchDecoder, patchify, unpatchify
from bench.nn.positions import fix_positions

EPS = 1e-6  # added to a patch's variance, as in the official code


class MAE(Method):
    """The encoder works on visible patches alone; a small decoder fills in the rest.

    Protocols see the whole picture; its representation is the backbone's own, the class token for
    most of timm's vision transformers, as in the paper's linear probe.
    """

    default_backbone = "vit_nano_patch8"
    deviations = (
        "the encoder's weights start as timm has them, not from Xavier's distribution",
        "crops are resampled bilinearly, not bicubically; the mask token does not decay",
    )
    recipes = {
        # 10,000 pictures and the nano transformer: about a minute on one CPU core.
        "small": {
            "epochs": 10,
            "batch_size": 64,
            "decoder_width": 64,
            "decoder_depth": 2,
            "decoder_heads": 4,
            "lr": 8e-3,
            "warmup_epochs": 1,
        },
    }

    class Config(MethodConfig):
        """ViT-L/16 on ImageNet, 800 epochs: facebookresearch/mae, PRETRAIN.md; paper, table 8."""

        epochs: int = 800  # the paper's best: 1600
        batch_size: int = Field(4096, ge=2)  # in one picture there is no collapse to tell
        mask_ratio: float = Field(0.75, gt=0, lt=1)
        norm_pix: bool = True  # patches are normalised, each by itself, before they are compared
        decoder_width: int = Field(512, ge=4)
        decoder_depth: int = Field(8, ge=1)
        decoder_heads: int = Field(16, ge=1)
        crop: tuple[float, float] = (0.2, 1.0)  # share of the picture's area
        lr: float = Field(1.5e-4, ge=0)  # per 256 pictures
        betas: tuple[float, float] = (0.9, 0.95)
        weight_decay: float = Field(0.05, ge=0)
        warmup_epochs: float = Field(40, ge=0)

    def build(self) -> None:
        """The decoder; the encoder's positions are fixed."""
        cfg = self.cfg
        grid: tuple[int, int] | None = getattr(self.backbone, "grid", None)
        if grid is None:
            raise BenchError(
                "mae hides patches of a vision transformer: use --backbone vit_nano_patch8, say"
            )
        self.count = grid[0] * grid[1]
        self.visible = round(self.count * (1 - cfg.mask_ratio))
        if not 0 < self.visible < self.count:
            raise BenchError(
                f"mask_ratio {cfg.mask_ratio:g} leaves {self.visible} of {self.count} patches to "
                "see; set another, that leaves some to see and some to reconstruct"
            )
        self.patch = self.data.size // grid[0]
        fix_positions(self.backbone)
        prefix: int = getattr(self.backbone, "prefix", 0)
        self.decoder = PatchDecoder(
            self.backbone.dim,
            prefix,
            grid,
            3 * self.patch**2,
            width=cfg.decoder_width,
            depth=cfg.decoder_depth,
            heads=cfg.decoder_heads,
        )

    def views(self) -> Sequence[View]:
        """Crop and flip; masking is augmentation enough."""
        crop = RandomResizedCrop(scale=self.cfg.crop)
        normalize = Normalize(mean=self.data.mean, std=self.data.std)
        return (View("crop", (crop, HorizontalFlip(p=0.5), normalize)),)

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """The mean squared error of the hidden patches' pixels."""
        x = batch.view("crop")
        order = self.shuffle(len(x), step.rng)
        predicted, latent = self.reconstruct(x, order)
        step.watch(latent.mean(1))
        patches = patchify(x, self.patch)
        hidden = order[:, self.visible :, None].expand(-1, -1, patches.shape[-1])
        target = self.normalized(patches).gather(1, hidden)
        mse = (predicted.gather(1, hidden) - target).square().mean()
        step.log("mse", mse)
        step.log("mse_mean", (target - target.mean(-1, keepdim=True)).square().mean())
        return mse

    def shuffle(self, batch: int, rng: torch.Generator) -> Tensor:
        """The patches of each picture in random order, `[B, P]`; the first `visible` are seen."""
        return torch.rand(batch, self.count, generator=rng, device=rng.device).argsort(1)

    def reconstruct(self, x: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        """The decoder's patches `[B, P, 3 p p]`, and the encoder's of those seen `[B, visible, D]`.

        Args:
            x: normalised pictures `[B, 3, s, s]`.
            order: `[B, P]` from `shuffle`.
        """
        tokens = self.backbone.tokens(x, order[:, : self.visible])
        # Squared errors are not for autocast's half precision.
        return self.decoder(tokens, order).to(x.dtype), tokens[:, -self.visible :]

    def normalized(self, patches: Tensor) -> Tensor:
        """What the decoder has to predict of `patches` `[B, P, 3 p p]`."""
        if not self.cfg.norm_pix:
            return patches
        mean, deviation = moments(patches)
        return (patches - mean) / deviation

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """Pictures, what the encoder saw of them, and the hidden patches filled in."""
        x = batch.view("crop")[:8]
        order = self.shuffle(len(x), step.rng)
        patches, (predicted, _) = patchify(x, self.patch), self.reconstruct(x, order)
        title = "hidden patches filled in"
        if self.cfg.norm_pix:
            mean, deviation = moments(patches)
            predicted = predicted * deviation + mean
            title += ", with their true mean and contrast"
        seen = (order.argsort(1) < self.visible)[:, :, None]
        panels = {
            "picture": patches,
            f"seen, {self.visible} of {self.count} patches": patches * seen,
            title: torch.where(seen, patches, predicted),
        }
        return [
            Panel(title, self.data.rgb(unpatchify(tiles, self.patch, self.data.size)))
            for title, tiles in panels.items()
        ]

    def optim(self, phase: str) -> OptimSpec:
        """AdamW; biases and norms do not decay."""
        cfg = self.cfg
        return OptimSpec(
            name="adamw",
            lr=cfg.lr,
            base_batch=256,
            betas=cfg.betas,
            weight_decay=cfg.weight_decay,
            decay_bias_and_norm=False,
            warmup_epochs=cfg.warmup_epochs,
        )


def moments(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each of `patches` `[B, P, N]`, `[B, P, 1]`."""
    variance, mean = torch.var_mean(patches, -1, keepdim=True)
    return mean, (variance + EPS).sqrt()
