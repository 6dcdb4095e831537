"""A head on each layer's frozen maps, all trained in one pass; the best layer is chosen on val."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bench.api import Encoder, EvalData, EvalSplit, OptimSpec, Scores
from bench.eval.crop_flip import crop_and_flip
from bench.eval.predicting import BATCH, predict
from bench.eval.scoring import class_labels, classification_metrics, require_finite, top_k_accuracy
from bench.eval.training import Part, train
from bench.rng import generator

Shape = tuple[int, int, int]  # of a picture's maps in a layer: C, h, w
# The generator is for initial weights; the head takes maps [B, C, h, w] to logits [B, K].
MakeHead = Callable[[Shape, torch.Generator], nn.Module]


@dataclass(frozen=True)
class Schedule:
    """How heads are trained: `epochs` over the pictures, but at least `min_steps`."""

    optim: OptimSpec
    epochs: int
    min_steps: int
    batch_size: int
    augment: bool  # on random crops and flips, else on the pictures as in evaluation


def probe_layers(
    encoder: Encoder,
    data: EvalData,
    layers: Sequence[str],
    make_head: MakeHead,
    schedule: Schedule,
    seed: int,
) -> Scores:
    """Train heads on train, choose the layer on val, train again on train + val, read test.

    The encoder runs on each batch anew, in eval mode and without gradient: memory does not grow
    with the data. The heads share batches and nothing else, so each is what it would be alone.

    Args:
        encoder: a frozen encoder.
        data: labelled pictures.
        layers: names of `encoder.maps`; "output" is its output as `[B, dim, 1, 1]`.
        make_head: makes the head of a layer.
        schedule: how the heads are trained.
        seed: names initial weights, order and crops.

    Raises:
        BenchError: labels are missing, or features are not finite.
    """
    known = class_labels(data.train)
    class_labels(data.val, known)
    encoder.to(data.train.device).eval()
    _, example = next(data.train.batches([torch.arange(min(BATCH, len(data.train.split)))]))
    maps = require_finite(frozen_maps(encoder, layers, example))

    def fit(split: EvalSplit) -> nn.ModuleList:
        heads = nn.ModuleList()
        for layer in layers:
            _, channels, height, width = maps[layer].shape
            heads.append(make_head((channels, height, width), generator(seed, "head", layer)))
        heads.to(split.device).train()
        assert split.split.labels is not None
        labels = split.split.labels.to(split.device)

        def loss(x: Tensor, index: Tensor, rng: torch.Generator) -> Tensor:
            target, seen = labels[index], frozen_maps(encoder, layers, x).values()
            each = [cross_entropy(head(m), target) for head, m in zip(heads, seen, strict=True)]
            return torch.stack(each).sum()

        per_epoch = math.ceil(len(split.split) / schedule.batch_size)
        train(
            split,
            loss,
            [Part(heads.parameters(), schedule.optim)],
            steps=max(schedule.min_steps, schedule.epochs * per_epoch),
            batch_size=schedule.batch_size,
            seed=seed,
            view=crop_and_flip(split.info) if schedule.augment else None,
        )
        return heads.eval()

    def logits(split: EvalSplit, heads: nn.ModuleList) -> tuple[dict[str, Tensor], Tensor]:
        def all_heads(x: Tensor) -> Tensor:
            seen = frozen_maps(encoder, layers, x).values()
            return torch.stack([head(m) for head, m in zip(heads, seen, strict=True)], dim=1)

        out, labels = predict(split, all_heads)  # [N, L, K]
        return require_finite(dict(zip(layers, out.unbind(1), strict=True))), labels

    out, labels = logits(data.val, fit(data.train))
    val_top1 = {layer: top_k_accuracy(out[layer], labels, 1) for layer in layers}
    best = max(layers, key=lambda layer: val_top1[layer])

    heads = fit(data.full)
    test = data.read_test()
    class_labels(test, known)
    out, labels = logits(test, heads)
    metrics = {layer: classification_metrics(out[layer].softmax(1), labels) for layer in layers}
    return Scores(
        metrics=metrics[best],
        per_layer={n: {k: v for k, v in m.items() if k != "ece"} for n, m in metrics.items()},
        selected={
            "layer": best,
            "val_top1": val_top1[best],
            "selected_on": "val",
            "grid": {"layer": list(layers)},
            "per_layer": {layer: {"val_top1": value} for layer, value in val_top1.items()},
        },
        predictions=out[best].softmax(1).argmax(1),
        labels=labels,
    )


@torch.no_grad()
def frozen_maps(encoder: Encoder, layers: Sequence[str], x: Tensor) -> dict[str, Tensor]:
    """Maps `[B, C, h, w]` of `layers`, float32; "output" is the output as `[B, dim, 1, 1]`."""
    if "output" in layers:
        output, maps = encoder.tap(x)
        maps = {**maps, "output": output[:, :, None, None]}
    else:
        maps = encoder.maps(x)
    return {layer: maps[layer].float() for layer in layers}
