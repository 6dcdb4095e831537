"""Adversarial autoencoder: a judge makes codes Gaussian (Makhzani 2015, arXiv:1511.05644)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Batch, Method, MethodConfig, OptimSpec, Panel, Step, View
from bench.data.ops import Normalize
from bench.nn.bottleneck import Bottleneck, between, last_map
from bench.nn.decoder import Decoder
from bench.nn.discriminator import discriminator_loss, discriminator_top1, frozen, generator_loss


class AdversarialAutoencoder(Method):
    """Three phases a batch: reconstruct; tell codes from samples of the prior; deceive the judge.

    The posterior is deterministic. `discriminator_top1` is how often the judge is right, in percent
    (chance: 50); `code_std` should come to `prior_std`. `mse` is in units of the pixels' variance:
    always drawing the mean colour gives 1.
    """

    phases = ("reconstruction", "discriminator", "generator")
    deviations = (
        "convolutional encoder and decoder with batch norm; the paper's are fully connected",
        "Adam with a cosine; the paper: SGD with momentum and drops at epochs 50 and 1,000",
    )
    recipes = {
        "small": {"epochs": 10, "batch_size": 64, "code_dim": 128, "hidden": 256, "prior_std": 1.0}
    }

    class Config(MethodConfig):
        """The likelihood experiment on MNIST, appendix A.1, from memory."""

        epochs: int = 1000  # the last drop of the paper's rate; the end is not stated
        batch_size: int = 100
        code_dim: int = Field(8, ge=1)
        prior_std: float = Field(5.0, gt=0)
        hidden: int = Field(1000, ge=1)  # units in each of the discriminator's two layers
        width: int = Field(32, ge=1)  # channels of the decoder's last map; ours
        lr: float = 1e-3  # Adam's, of reconstruction
        lr_adversarial: float = 2e-4  # Adam's with beta_1 0.5, of both players (arXiv:1511.06434)

    def build(self) -> None:
        """The bottleneck, a decoder from its code, and the discriminator of codes."""
        dim, hidden = self.cfg.code_dim, self.cfg.hidden
        self.bottleneck = Bottleneck(self.backbone, self.data.size, dim)
        self.decoder = Decoder(dim, self.data.size, width=self.cfg.width)
        layers = nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        self.discriminator = nn.Sequential(*layers, nn.Linear(hidden, 1))

    def parameters_for(self, phase: str) -> Iterable[nn.Parameter]:
        """The encoder in two phases of its own optimisers, with the decoder in the first."""
        if phase == "discriminator":
            return self.discriminator.parameters()
        encoder = chain(self.backbone.parameters(), self.bottleneck.parameters())
        return encoder if phase == "generator" else chain(encoder, self.decoder.parameters())

    def views(self) -> Sequence[View]:
        """The picture as it is."""
        return (View("picture", (Normalize(mean=self.data.mean, std=self.data.std),)),)

    def encode(self, x: Tensor) -> Tensor:
        """Codes `[B, code_dim]`."""
        code: Tensor = self.bottleneck(last_map(self.backbone, x))
        return code

    def prior(self, like: Tensor, rng: torch.Generator) -> Tensor:
        """As many samples of N(0, prior_std^2 I) as there are codes in `like`."""
        shape, dtype = like.shape, torch.promote_types(like.dtype, torch.float32)
        std: float = self.cfg.prior_std
        return std * torch.randn(shape, generator=rng, device=like.device, dtype=dtype)

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """The squared error; then -log D(z) - log(1 - D(code)); then -log D(code)."""
        x = batch.view("picture")
        if step.phase == "reconstruction":
            code = self.encode(x)
            mse = F.mse_loss(self.decoder(code).to(x.dtype), x)
            step.log("mse", mse)
            step.log("code_std", code.float().std(0).mean())
            return mse
        if step.phase == "discriminator":
            with torch.no_grad():
                code = self.encode(x)
            real, fake = self.judge(self.prior(code, step.rng)), self.judge(code)
            step.log("discriminator_top1", discriminator_top1(real, fake))
            return discriminator_loss(real, fake)
        with frozen(self.discriminator):
            return generator_loss(self.judge(self.encode(x)))

    def judge(self, code: Tensor) -> Tensor:
        """Logits `[B]`, float32 at least: above zero means drawn from the prior."""
        out: Tensor = self.discriminator(code).squeeze(1)
        return out.to(torch.promote_types(out.dtype, torch.float32))

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """Pictures, the drawings of their codes, of codes between two, and of the prior's."""
        x = batch.view("picture")[:8]
        code = self.encode(x).float()
        codes = {
            "reconstruction": code,
            "from the first to the last": between(code[0], code[-1], len(x)),
            "samples from the prior": self.prior(code, step.rng),
        }
        drawn = [Panel(title, self.data.rgb(self.decoder(z).float())) for title, z in codes.items()]
        return [Panel("input", self.data.rgb(x)), *drawn]

    def optim(self, phase: str) -> OptimSpec:
        """Adam, its rate falling to 0 by a cosine."""
        if phase == "reconstruction":
            return OptimSpec(name="adam", lr=self.cfg.lr)
        return OptimSpec(name="adam", lr=self.cfg.lr_adversarial, betas=(0.5, 0.999))
