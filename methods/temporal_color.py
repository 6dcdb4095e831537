"""Temporal colour: copy colours from one frame to the next (Vondrick 2018, arXiv:1806.09594).

Both frames are grey to the network; where it finds a place again, it may copy that place's colour.
`pretext_top1` is how often, in %, the likeliest copied colour is the true one; `same_place_top1`
how often it would be if the camera had stood still, `majority_top1` if all were of one colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Batch, Encoder, Method, MethodConfig, OptimSpec, Panel, Step, TrainSet, View
from bench.data.color import rgb_to_lab
from bench.errors import BenchError
from bench.nn import channels
from bench.nn.dense_head import DenseHead
from bench.nn.kmeans import kmeans, nearest
from bench.nn.wrap import Rewired

PICTURES, ROUNDS = 1000, 50  # from which colours are clustered, and rounds of k-means at most
FLOOR = 1e-4  # of a probability: what the reference does not show cannot be copied


class TemporalColor(Method):
    """A reference frame and a target; an embedding of every place points from one to the other.

    The embedding is made from all maps of the backbone, so that every stage is trained, also those
    that are coarser than the grid. The network sees lightness alone, and so do the probes.
    """

    needs = frozenset({"frames", "color"})
    deviations = (
        "one reference frame, not three, of which a 3D network makes the embeddings together",
        "embeddings are a sum of projections of all maps: the paper's ResNet-18 keeps its stride",
        "colours are clustered over 1,000 pictures of the training set",
        "a probability counts as at least 1e-4: what the reference does not show is not to be had",
    )
    recipes = {
        "small": {
            "epochs": 10,
            "batch_size": 32,
            "lr": 2e-3,
            "schedule": "cosine",
            "stride": 4,
        }
    }

    class Config(MethodConfig):
        """The paper's settings; how it was optimised, from memory."""

        epochs: int = 43  # 400,000 iterations of 32 clips of 300,000
        batch_size: int = 32
        lr: float = 1e-3  # Adam; a tenth from iteration 60,000 of 400,000 on
        schedule: Literal["step", "cosine"] = "step"
        stride: int = Field(8, ge=1)  # pixels to a place: 32 x 32 places of 256 px
        embedding: int = Field(64, ge=1)
        colors: int = Field(16, ge=2)  # clusters of Lab's a and b

    def build(self) -> None:
        """The embedding, and the colours."""
        self.side = self.data.size // self.cfg.stride
        if self.side < 2:
            raise BenchError(
                f"pictures of {self.data.size} px have no 2 x 2 places of {self.cfg.stride} px; "
                "use larger pictures or a smaller --set method.stride"
            )
        self.embed = DenseHead(self.backbone, self.data.size, self.side, self.cfg.embedding)
        self.centers = nn.Buffer(torch.zeros(self.cfg.colors, 2))

    def initialize(self, train: TrainSet) -> None:
        """Cluster the colours."""
        pictures = self.data.rgb(train.sample(PICTURES))
        ab = channels.on_grid(rgb_to_lab(pictures)[:, 1:], self.side)
        self.centers.copy_(kmeans(ab.movedim(1, -1).flatten(0, 2), self.cfg.colors, ROUNDS)[0])

    def views(self) -> Sequence[View]:
        """Both frames as they are, RGB."""
        return (View("reference", ()), View("target", (), source="frame"))

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """Cross-entropy of the copied colours, averaged over places."""
        reference, target = (rgb_to_lab(batch.view(name)) for name in ("reference", "target"))
        source, truth = self.color_of(reference), self.color_of(target)
        copied = self.copy_colors(reference, target, F.one_hot(source, self.cfg.colors).float())
        step.log("pretext_top1", 100 * (copied.argmax(2) == truth).float().mean())
        step.log("same_place_top1", 100 * (source == truth).float().mean())
        majority = F.one_hot(truth, self.cfg.colors).float().mean((0, 1)).max()
        step.log("majority_top1", 100 * majority)
        true = copied.gather(2, truth[:, :, None])
        loss: Tensor = -(true + FLOOR).log().mean()
        return loss

    def color_of(self, lab: Tensor) -> Tensor:
        """The nearest colour of every place of `lab` `[B, 3, H, W]`: `[B, places]` int64."""
        ab = channels.on_grid(lab[:, 1:], self.side).flatten(2).mT
        colors, _ = nearest(ab.flatten(0, 1), self.centers)
        places: Tensor = colors.unflatten(0, ab.shape[:2])
        return places

    def copy_colors(self, reference: Tensor, target: Tensor, colors: Tensor) -> Tensor:
        """What each place of the target copies of the reference's `colors` `[B, places, C]`.

        The weights are a softmax over all places of the reference, of inner products.

        Args:
            reference: CIE Lab `[B, 3, H, W]`, of which the lightness is seen.
            target: as the reference.
            colors: what is there to copy.
        """
        gray = torch.cat([channels.lightness_input(lab) for lab in (reference, target)])
        z = self.embed(self.backbone.maps(gray)).float().flatten(2)
        source, query = z.chunk(2)
        with torch.autocast(z.device.type, enabled=False):
            out: Tensor = (query.mT @ source).softmax(2) @ colors
            return out

    def optim(self, phase: str) -> OptimSpec:
        """Adam, one drop by ten."""
        return OptimSpec(
            name="adam",
            lr=self.cfg.lr,
            schedule=self.cfg.schedule,
            milestones=(60 / 400,),
            gammas=(0.1,),
        )

    def encoder(self) -> Encoder:
        """Normalised RGB to CIE lightness in all three channels, as in training."""
        return Rewired(channels.Lightness(self.data), self.backbone)

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """The reference's colours, the grey target, the colours copied to it and the true ones."""
        frames = [batch.view(name)[:8] for name in ("reference", "target")]
        reference, target = (rgb_to_lab(frame) for frame in frames)
        colors, truth = self.centers[self.color_of(reference)], self.color_of(target)
        copied = self.copy_colors(reference, target, colors)
        return [
            Panel("reference", frames[0]),
            Panel(f"its colours ({self.cfg.colors} in all)", self._painted(reference, colors)),
            Panel(
                "target, as the network sees it", self._painted(target, torch.zeros_like(colors))
            ),
            Panel("colours copied", self._painted(target, copied)),
            Panel("true colours, quantised", self._painted(target, self.centers[truth])),
            Panel("target", frames[1]),
        ]

    def _painted(self, lab: Tensor, ab: Tensor) -> Tensor:
        """The lightness of `lab` in the colours `ab` `[B, places, 2]`, as RGB."""
        return channels.colorized(lab[:, :1], ab.mT.unflatten(2, (self.side, self.side)))
