"""VAE: a code distribution near N(0, I) that redraws the picture (Kingma 2014, arXiv:1312.6114)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from bench.api import Batch, Method, MethodConfig, OptimSpec, Panel, Step, View
from bench.data.ops import Normalize
from bench.nn.bottleneck import Bottleneck, between, last_map
from bench.nn.decoder import Decoder

ACTIVE = 0.01  # variance of a unit's mean over pictures from which it counts (arXiv:1509.00519)


class VAE(Method):
    """Minimises the negative evidence lower bound, in nats a picture, with one sample of the code.

    Protocols see the backbone, which is deterministic: it leads to the mean, never to a sample.
    Posterior collapse shows in the log as `kl` near 0 and few `active_units` (of `code_dim`).
    `mse` is in units of the pixels' variance: always drawing the mean colour gives 1.
    """

    deviations = (
        "convolutional, with batch norm; the paper has one fully connected hidden layer",
        "a Gaussian of one variance for all pixels; the paper's Frey Face decoder gives each its "
        "own, its MNIST decoder is Bernoulli",
        "Adam without a prior on the weights; the paper uses Adagrad and a N(0, I) prior",
    )
    recipes = {"small": {"epochs": 10, "batch_size": 64, "code_dim": 128}}

    class Config(MethodConfig):
        """MNIST's in the paper."""

        epochs: int = 2000  # 10^8 samples of 50,000 pictures, the end of figure 2
        batch_size: int = 100
        code_dim: int = Field(20, ge=1)  # of {3, 5, 10, 20, 200}
        beta: float = Field(1.0, ge=0)  # weight of the KL; others are beta-VAE's (Higgins 2017)
        free_bits: float = Field(0.0, ge=0)  # nats of each unit without cost (arXiv:1606.04934)
        # Deviation of the decoder's Gaussian, in that of the pixels; None: the most likely one of
        # the batch, the root of its mean squared error (arXiv:2006.13202).
        decoder_std: float | None = Field(None, gt=0)
        width: int = Field(32, ge=1)  # channels of the decoder's last map; ours
        lr: float = 1e-3  # Adam's

    def build(self) -> None:
        """A bottleneck to mean and log variance, and a decoder."""
        self.bottleneck = Bottleneck(self.backbone, self.data.size, 2 * self.cfg.code_dim)
        self.decoder = Decoder(self.cfg.code_dim, self.data.size, width=self.cfg.width)

    def views(self) -> Sequence[View]:
        """The picture as it is."""
        return (View("picture", (Normalize(mean=self.data.mean, std=self.data.std),)),)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of each code, `[B, code_dim]` each, in float32 at least."""
        out = self.bottleneck(last_map(self.backbone, x))
        mean, log_var = out.to(torch.promote_types(out.dtype, torch.float32)).chunk(2, dim=1)
        return mean, log_var

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """-log p(x|z) + beta * KL(q(z|x) || N(0, I))."""
        x = batch.view("picture")
        mean, log_var = self.posterior(x)
        noise = torch.randn(mean.shape, generator=step.rng, device=x.device, dtype=mean.dtype)
        drawn: Tensor = self.decoder(mean + (log_var / 2).exp() * noise)
        mse = (drawn.to(x.dtype) - x).square().mean()
        std = self.cfg.decoder_std
        var = mse if std is None else torch.full_like(mse, std**2)
        negative_log_likelihood = x[0].numel() / 2 * (torch.log(2 * math.pi * var) + mse / var)
        kl = gaussian_kl(mean, log_var).mean(0)  # [code_dim]
        step.log("mse", mse)
        step.log("kl", kl.sum())
        step.log("active_units", (mean.var(0) > ACTIVE).sum())
        priced = kl.clamp(min=self.cfg.free_bits).sum()
        loss: Tensor = negative_log_likelihood + self.cfg.beta * priced
        return loss

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """Pictures, the drawings of their mean codes, of codes between two, and of random ones."""
        x = batch.view("picture")[:8]
        mean, _ = self.posterior(x)
        prior = torch.randn(mean.shape, generator=step.rng, device=x.device)
        codes = {
            "reconstruction": mean,
            "from the first to the last": between(mean[0], mean[-1], len(x)),
            "samples from the prior": prior,
        }
        drawn = [Panel(title, self.data.rgb(self.decoder(z).float())) for title, z in codes.items()]
        return [Panel("input", self.data.rgb(x)), *drawn]

    def optim(self, phase: str) -> OptimSpec:
        """Adam, its rate falling to 0 by a cosine."""
        return OptimSpec(name="adam", lr=self.cfg.lr)


def gaussian_kl(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)) || N(0, 1)) of each unit in nats, appendix B; shape as given."""
    return (mean.square() + log_var.exp() - 1 - log_var) / 2
