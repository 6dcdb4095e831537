"""Few-shot episodes: 5 new classes, told apart by the mean features of 1, 5 or 20 pictures each."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn.functional import pad

from bench.api import Encoder, EvalData, Metric, Protocol, Scores
from bench.errors import BenchError
from bench.eval.scoring import class_labels, require_finite
from bench.rng import generator

SHOTS, PRIMARY = (1, 5, 20), 5  # 1: Prototypical Networks'; 20: ssl-transfer's
CHUNK = 2**25  # features held at once: 128 MiB


class FewShot(Protocol):
    """Accuracy of nearest prototypes on 5-way episodes drawn from the test pictures.

    An episode draws 5 classes, and of each 1, 5 or 20 pictures and 15 other ones, without repeats.
    A class's prototype is the mean of its few features, and each of the other pictures is given the
    class whose prototype is nearest in squared Euclidean distance. The mean over 600 episodes
    stands beside its 95 % interval, 1.96 standard errors. Nothing is trained or chosen, so train
    and val are not looked at; the seed draws the episodes, which are the same for every encoder.
    Snell et al., arXiv:1703.05175; settings of Ericsson et al., arXiv:2011.13377.
    """

    metric = Metric(f"top1_{PRIMARY}shot")
    toy = {"ways": 4, "episodes": 50}

    class Config(Protocol.Config):
        """The constants (ssl-transfer's few_shot.py, arXiv:2011.13377)."""

        ways: PositiveInt = 5
        queries: PositiveInt = 15  # of each class
        episodes: int = Field(600, ge=2)

    def run(self, encoder: Encoder, data: EvalData, cfg: Any, seed: int) -> Scores:
        """Measure `encoder` on `data`.

        Raises:
            BenchError: labels are missing, features are not finite, or too few classes have
                pictures enough for an episode of 5 shots.
        """
        split = data.read_test()
        features = require_finite(split.features(encoder))["output"]
        labels = class_labels(split)
        metrics: dict[str, float] = {}
        left_out: list[int] = []
        for shots in (PRIMARY, *(shots for shots in SHOTS if shots != PRIMARY)):
            size = shots + cfg.queries
            fit = int((labels.bincount() >= size).sum())
            if fit >= cfg.ways:
                rng = generator(seed, "episodes", shots)
                pictures = draw_episodes(labels.cpu(), cfg.ways, size, cfg.episodes, rng)
                parts = pictures.split(max(1, CHUNK // (cfg.ways * size * features.shape[1])))
                found = [accuracies(features[part.to(features.device)], shots) for part in parts]
                accuracy = torch.cat(found)
                interval = 1.96 * accuracy.std() / cfg.episodes**0.5
                metrics[f"top1_{shots}shot"] = 100 * accuracy.mean().item()
                metrics[f"top1_{shots}shot_ci"] = 100 * interval.item()
            elif shots == PRIMARY:
                raise BenchError(
                    f"{fit} classes of {data.info.name} have {size} test pictures, and an episode "
                    f"needs {cfg.ways}; set protocol.ways or protocol.queries lower"
                )
            else:
                left_out.append(shots)
        return Scores(metrics=metrics, selected={"ways": cfg.ways, "left_out_shots": left_out})


def draw_episodes(
    labels: Tensor, ways: int, size: int, episodes: int, rng: torch.Generator
) -> Tensor:
    """Positions `[episodes, ways, size]` of `size` pictures of each of `ways` classes, no repeats.

    Classes with fewer pictures are never drawn, all others equally often, whatever their size.

    Args:
        labels: `[N]` class of each picture, on the CPU.
        ways: Classes in an episode; so many must have `size` pictures.
        size: Pictures of each class.
        episodes: How many to draw.
        rng: on the CPU, so that the draw is the same on every device.
    """
    members = [(labels == c).nonzero()[:, 0] for c in labels.unique()]
    members = [found for found in members if len(found) >= size]
    widest = max(len(found) for found in members)
    table = torch.stack([pad(found, (0, widest - len(found)), value=-1) for found in members])
    classes = torch.rand(episodes, len(members), generator=rng).argsort(1)[:, :ways]
    rows = table[classes]  # [episodes, ways, widest]
    keys = torch.rand(rows.shape, generator=rng).masked_fill(rows < 0, 2.0)
    return rows.gather(2, keys.argsort(2)[..., :size])


def accuracies(features: Tensor, shots: int) -> Tensor:
    """The share of queries that are nearest to their own class's prototype, `[E]` float64.

    Of equal distances the earlier class is taken.

    Args:
        features: `[E, W, shots + queries, D]` of each episode's classes.
        shots: The pictures of each class that come first make its prototype.
    """
    # Squared distances are differences of products, so features near zero keep their digits.
    features = features - features[:, :, :shots].mean((1, 2), keepdim=True)
    prototypes = features[:, :, :shots].mean(2)  # [E, W, D]
    queries = features[:, :, shots:].flatten(1, 2)
    # |q - p|^2 less |q|^2, which all prototypes have in common.
    distance = prototypes.square().sum(2)[:, None] - 2 * queries @ prototypes.mT
    truth = torch.arange(prototypes.shape[1], device=features.device)
    truth = truth.repeat_interleave(features.shape[2] - shots)
    return (distance.argmin(2) == truth).double().mean(1)
