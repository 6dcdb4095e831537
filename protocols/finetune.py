"""Fine-tuning: the whole network trained on all labels, at a low learning rate chosen on val."""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bench.api import Encoder, EvalData, EvalSplit, Metric, OptimSpec, Protocol, Scores
from bench.eval.crop_flip import crop_and_flip
from bench.eval.new_head import with_new_head
from bench.eval.predicting import predict
from bench.eval.scoring import class_labels, classification_metrics, edges, top_k_accuracy
from bench.eval.training import DivergedError, Part, train
from bench.nn.classifier import WithHead


class Finetune(Protocol):
    """Top-1 accuracy of a copy of the encoder, trained on with a linear layer on its output.

    Kornblith et al. (arXiv:1805.08974) and SimCLR (arXiv:2002.05709, B.8): SGD with Nesterov
    momentum and a cosine schedule on random crops and flips; batch norm is in train mode. The head
    starts at zero behind a batch norm without affine and has a learning rate of its own (SwAV,
    arXiv:2006.09882). The encoder's is chosen on val; then a fresh copy is trained on train + val.
    Of an encoder without parameters (`pixels`, `pca`) the head alone is trained.

    `random_init` is supervised training from scratch at this budget, the number to beat.
    """

    metric = Metric("top1")
    toy = {"lrs": (0.1,), "epochs": 1, "min_steps": 40, "batch_size": 32, "augment": False}

    class Config(Protocol.Config):
        """The constants; "measured" is on val of 10,000 `scenes`, with RotNet's encoder."""

        # Of the encoder; the top of SimCLR's seven (1e-4 to 1e-1, from memory). Within so few steps
        # the highest did best: 70.3, 78.6 and 80.9 % (measured).
        lrs: tuple[PositiveFloat, ...] = Field((0.01, 0.03, 0.1), min_length=1)
        head_lr: PositiveFloat = 0.1  # the most that the encoder may have
        epochs: PositiveInt = 5  # a minute on a CPU core for 10,000 pictures of 32 px
        min_steps: PositiveInt = 300  # small sets
        batch_size: int = Field(128, ge=2)  # batch norm needs two
        weight_decay: NonNegativeFloat = 5e-4  # RotNet's (arXiv:1803.07728)
        augment: bool = True  # crop and mirror

    def run(self, encoder: Encoder, data: EvalData, cfg: Any, seed: int) -> Scores:
        """Measure `encoder` on `data`.

        Raises:
            BenchError: labels are missing, or training diverges.
        """
        known = class_labels(data.train)
        class_labels(data.val, known)
        # With nothing but a head to train, the encoder's rate is no choice.
        lrs = cfg.lrs if _learns(encoder) else cfg.lrs[:1]
        val_top1 = {}
        for lr in lrs:
            try:
                model = finetuned(encoder, data.train, lr, cfg, seed)
                val_top1[lr] = top_k_accuracy(*predict(data.val, model.classify), 1)
            except DivergedError:
                if lr == min(lrs):  # what is too much may be so for this encoder alone
                    raise
                val_top1[lr] = 0.0
        best = max(lrs, key=lambda lr: val_top1[lr])
        model = finetuned(encoder, data.full, best, cfg, seed)

        test = data.read_test()
        class_labels(test, known)
        logits, labels = predict(test, model.classify)
        probabilities = logits.softmax(1)
        return Scores(
            metrics=classification_metrics(probabilities, labels),
            selected={
                "lr": best,
                "val_top1": val_top1[best],
                "selected_on": "val",
                "edge": edges({"lr": best}, lr=lrs) if len(lrs) > 1 else [],
                "grid": {"lr": list(lrs)},
                "val_top1_by_lr": [val_top1[lr] for lr in lrs],
            },
            predictions=probabilities.argmax(1),
            labels=labels,
        )


def finetuned(encoder: Encoder, split: EvalSplit, lr: float, cfg: Any, seed: int) -> WithHead:
    """A copy of `encoder` with a new head, both trained on `split`; in eval mode."""
    assert split.split.labels is not None
    labels = split.split.labels.to(split.device)
    model = with_new_head(encoder, split.info.num_classes, standardize=True).to(split.device)

    def part(module: nn.Module, lr: float) -> Part:
        spec = OptimSpec(lr=lr, nesterov=True, weight_decay=cfg.weight_decay)
        return Part(module.parameters(), spec)

    def loss(x: Tensor, index: Tensor, rng: torch.Generator) -> Tensor:
        return cross_entropy(model.classify(x), labels[index])

    train(
        split,
        loss,
        [part(model.head, cfg.head_lr), *([part(model.network, lr)] if _learns(encoder) else [])],
        steps=max(cfg.min_steps, cfg.epochs * math.ceil(len(split.split) / cfg.batch_size)),
        batch_size=cfg.batch_size,
        seed=seed,
        view=crop_and_flip(split.info) if cfg.augment else None,
    )
    return model.eval()


def _learns(encoder: Encoder) -> bool:
    return next(encoder.parameters(), None) is not None
