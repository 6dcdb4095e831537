"""Linear probe: logistic regression on frozen features of every layer, chosen on validation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from bench.api import Encoder, EvalData, EvalSplit, Metric, Protocol, Scores, View
from bench.eval.crop_flip import crop_and_flip
from bench.eval.linear_heads import LinearHeads, Standardizer, fit_probe
from bench.eval.scoring import class_labels, classification_metrics, edges, require_finite

Features = dict[str, Tensor]  # by layer
Fit = tuple[Standardizer, LinearHeads]


class Linear(Protocol):
    """Top-1 accuracy of a linear classifier on the layer that is best on held-out train pictures.

    For each layer, heads for every learning rate, weight decay and head seed train together on
    train; the pair that classifies most of val, over all head seeds, is fitted again on
    train + val. Then test is read once. Every number is a mean over head seeds; the predictions
    are the first one's. After Zhang et al., arXiv:1603.08511.
    """

    metric = Metric("top1")

    class Config(Protocol.Config):
        """The constants; "measured" is on 10,000 JPEG pictures of CIFAR-10, untrained layers."""

        epochs: PositiveInt = 20  # 40 gain under a point on every layer (measured)
        min_steps: PositiveInt = 500  # small sets: 1,000 digits lose 0.8 points at 100 (measured)
        batch_size: PositiveInt = 256  # Zhang's and MoCo's (arXiv:1911.05722)
        # Half-decades. Layers of 256 to 512 numbers choose 0.01 to 0.3 (measured); there is room at
        # both ends, as the best rate falls with the layer's width.
        lrs: tuple[PositiveFloat, ...] = Field((0.003, 0.01, 0.03, 0.1, 0.3, 1.0), min_length=1)
        # 1 / (decay N) is C of scikit-learn's LogisticRegression; 0.1 always lost (measured). The
        # first of equals is chosen, so the strongest comes first.
        weight_decays: tuple[NonNegativeFloat, ...] = Field((1e-2, 1e-3, 1e-4), min_length=1)
        head_seeds: PositiveInt = 3  # orders of the pictures
        max_dim: PositiveInt = 512  # numbers per layer after pooling; time is linear in it
        augment: bool = False  # train on random crops and flips of the pictures
        copies: PositiveInt = 5  # renderings of each picture with `augment`

    def run(self, encoder: Encoder, data: EvalData, cfg: Any, seed: int) -> Scores:
        """Measure `encoder` on `data`.

        Raises:
            BenchError: labels are missing, or features are not finite.
        """
        layers = (*encoder.layers, "output")
        view = crop_and_flip(data.info) if cfg.augment else None
        copies = cfg.copies if cfg.augment else 1
        grid = list(product(cfg.lrs, cfg.weight_decays))

        def features(split: EvalSplit, view: View | None = None, copies: int = 1) -> Features:
            return require_finite(
                split.features(encoder, layers, max_dim=cfg.max_dim, view=view, copies=copies)
            )

        def fit(x: Tensor, labels: Tensor, pairs: Sequence[tuple[float, float]]) -> Fit:
            classes = data.info.num_classes
            return fit_probe(x, labels, pairs, classes=classes, cfg=cfg, seed=seed, copies=copies)

        train, val = features(data.train, view, copies), features(data.val)
        train_labels = class_labels(data.train)
        val_labels = class_labels(data.val, known=train_labels)
        chosen: dict[str, dict[str, float]] = {}
        for layer in layers:
            scale, heads = fit(train[layer], train_labels.repeat(copies), grid)
            hits = heads.hits(scale(val[layer]), val_labels).sum(0)  # [H], over head seeds
            lr, decay = grid[int(hits.argmax())]
            top1 = 100 * hits.max().item() / (len(val_labels) * cfg.head_seeds)
            chosen[layer] = {"lr": lr, "weight_decay": decay, "val_top1": top1}
        best = max(layers, key=lambda layer: chosen[layer]["val_top1"])

        more = features(data.val, view, copies) if view else val
        labels = torch.cat([train_labels.repeat(copies), val_labels.repeat(copies)])
        fits: dict[str, Fit] = {}
        for layer in layers:
            pick = (chosen[layer]["lr"], chosen[layer]["weight_decay"])
            fits[layer] = fit(torch.cat([train[layer], more[layer]]), labels, [pick])

        test_split = data.read_test()
        test = features(test_split)
        test_labels = class_labels(test_split, known=train_labels)
        metrics: dict[str, dict[str, float]] = {}
        for layer, (scale, heads) in fits.items():
            probabilities = heads.logits(scale(test[layer]))[..., 0].softmax(2)  # [S, N, C]
            metrics[layer] = _mean([classification_metrics(p, test_labels) for p in probabilities])
            if layer == best:
                predictions = probabilities[0].argmax(1)
        return Scores(
            metrics=metrics[best],
            per_layer={n: {k: v for k, v in m.items() if k != "ece"} for n, m in metrics.items()},
            selected={
                "layer": best,
                **chosen[best],
                "selected_on": "val",
                "edge": edges(chosen[best], lr=cfg.lrs, weight_decay=cfg.weight_decays),
                "grid": {"lr": list(cfg.lrs), "weight_decay": list(cfg.weight_decays)},
                "per_layer": chosen,
            },
            predictions=predictions,
            labels=test_labels,
        )


def _mean(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: sum(run[name] for run in runs) / len(runs) for name in runs[0]}
