"""Label fraction: the network fine-tuned, or a linear head trained, on few of the labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, Self

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor
from torch.nn.functional import cross_entropy

from bench.api import (
    Classifier,
    Encoder,
    EvalData,
    EvalSplit,
    Labels,
    Metric,
    Protocol,
    Scores,
)
from bench.data.few_labels import few_labels
from bench.eval.crop_flip import crop_and_flip
from bench.eval.few_label_recipes import FEW, RECIPES, Tuning
from bench.eval.linear_heads import Standardizer, fit_heads
from bench.eval.new_head import with_new_head
from bench.eval.predicting import predict
from bench.eval.sampling import kept
from bench.eval.scoring import class_labels, classification_metrics, require_finite
from bench.eval.training import Part, train

# Logits `[N, C]` and labels `[N]` of a split, by each prefix of a metric's name; and how it was
# trained.
Fitted = tuple[Mapping[str, Callable[[EvalSplit], tuple[Tensor, Tensor]]], dict[str, Any]]
Lesson = Callable[[Tensor, Tensor, Tensor], Tensor]  # logits, their pictures, positions -> loss

LINEAR_BATCH = 256  # as in linear@1
SMALL = 64  # px: the side up to which pictures take the "small" recipe


class LabelFraction(Protocol):
    """Top-1 accuracy of a copy of the encoder, trained on with few labels, as SimCLR reports it.

    The labels are 1 % or 10 % of train's with each class in its share, k of each class, or those
    that a file lists, drawn by the seed: every method sees the same. A linear layer from zero and
    the whole network are trained on crops and flips of these pictures, by the constants of SimCLR
    (arXiv:2002.05709), SwAV (arXiv:2006.09882) or VICReg (arXiv:2105.04906) for 1 % (below 3 %) or
    10 %, in batches no larger than the pictures are many, for at least `min_steps` steps as the
    papers' epochs are of more pictures. Batch norm is in train mode. `mode=linear` trains the layer
    alone, on standardised cached features.

    Nothing is chosen, and val is not looked at: its many labels would defeat the few. The papers'
    own numbers are of the best epoch on test (SwAV, VICReg); here it is the last.

    With `distil`, the network then teaches another copy of the encoder, by its softened predictions
    for all pictures of train without their labels (SimCLRv2, arXiv:2006.10029): the number is the
    student's, beside `teacher_top1`.
    """

    metric = Metric("top1")
    toy = {"labels": 4, "min_steps": 60, "augment": False}

    class Config(Protocol.Config):
        """The constants; those of fine-tuning are the recipe's."""

        labels: Labels = 0.1  # a share, so many of each class, or the path of a list
        mode: Literal["finetune", "linear"] = "finetune"
        recipe: Literal["auto", "simclr", "swav", "vicreg", "small"] = "auto"  # small, else simclr
        min_steps: PositiveInt = 300  # of the network; 90 labels gain nothing by 600 (measured)
        augment: bool = True  # fine-tune on random crops and flips
        distil: bool = False
        # SimCLRv2 has 0.1 for a student of the teacher's kind, and 400 epochs of LARS. After 400
        # steps here 0.1 comes to 43 % and 1 to 59 %, the teacher to 61 % (measured, after rotnet).
        temperature: PositiveFloat = 1.0
        distil_epochs: PositiveInt = 5  # over train, by the settings for 10 %
        # Of the head on cached features. Measured on val of `scenes` after four methods, with 48,
        # 90 and 900 labels: rates of 0.003 to 0.3 and decays of 0.001 to 0.1 differ by 2 points.
        linear_lr: PositiveFloat = 0.03
        linear_decay: NonNegativeFloat = 0.01
        linear_epochs: PositiveInt = 20  # and the steps: linear@1's
        linear_min_steps: PositiveInt = 500

        @model_validator(mode="after")
        def _a_network_to_distil(self) -> Self:
            if self.distil and self.mode == "linear":
                raise ValueError("distil needs mode=finetune")
            return self

    def run(self, encoder: Encoder, data: EvalData, cfg: Any, seed: int) -> Scores:
        """Measure `encoder` on `data`.

        Raises:
            BenchError: labels are missing or do not reach every class, or training diverges.
        """
        class_labels(data.train)
        few = few_labels(data.train.split, cfg.labels, seed)
        measure = linear if cfg.mode == "linear" else finetune
        predictors, selected = measure(encoder, data.train, few, cfg, seed)

        test = data.read_test()
        assert data.train.split.labels is not None
        class_labels(test, known=data.train.split.labels[few].to(test.device))
        metrics: dict[str, float] = {}
        for prefix, predictor in predictors.items():
            logits, labels = predictor(test)
            probabilities = require_finite({"logits": logits})["logits"].softmax(1)
            found = classification_metrics(probabilities, labels)
            metrics |= {f"{prefix}{name}": value for name, value in found.items()}
            if not prefix:
                predictions, truth = probabilities.argmax(1), labels
        return Scores(
            metrics=metrics,
            selected={"labeled": len(few), **selected},
            predictions=predictions,
            labels=truth,
        )


def linear(encoder: Encoder, split: EvalSplit, few: Tensor, cfg: Any, seed: int) -> Fitted:
    """A linear classifier on frozen features of the pictures at `few`."""
    features = require_finite(split.features(encoder))["output"]
    scale = Standardizer(features)  # by all pictures: that needs no labels
    rows = torch.isin(kept(split, len(features)), few).to(features.device)
    steps = max(cfg.linear_min_steps, cfg.linear_epochs * math.ceil(len(few) / LINEAR_BATCH))
    head = fit_heads(
        scale(features[rows]),
        split.labels[rows],
        [(cfg.linear_lr, cfg.linear_decay)],
        classes=split.info.num_classes,
        seeds=1,
        steps=steps,
        batch_size=LINEAR_BATCH,
        seed=seed,
    )

    def classify(test: EvalSplit) -> tuple[Tensor, Tensor]:
        x = require_finite(test.features(encoder))["output"]
        return head.logits(scale(x))[0, :, :, 0], test.labels

    return {"": classify}, {"steps": steps}


def finetune(encoder: Encoder, split: EvalSplit, few: Tensor, cfg: Any, seed: int) -> Fitted:
    """The network trained on the pictures at `few`; with `distil`, its student before it."""
    assert split.split.labels is not None
    labels, temperature = split.split.labels.to(split.device), cfg.temperature
    name = cfg.recipe
    if name == "auto":
        name = "small" if split.info.size <= SMALL else "simclr"
    recipe, one = RECIPES[name], len(few) < FEW * len(labels)

    def trained(lesson: Lesson, tuning: Tuning, positions: Tensor) -> tuple[Classifier, int]:
        network = with_new_head(encoder, split.info.num_classes, recipe.standardize)
        network.to(split.device)
        parts = [Part(network.head.parameters(), tuning.head)]
        if list(network.network.parameters()):  # `pixels` and `pca` have none
            parts.append(Part(network.network.parameters(), tuning.trunk))
        batch_size = min(tuning.batch_size, len(positions))
        steps = max(cfg.min_steps, tuning.epochs * math.ceil(len(positions) / batch_size))
        train(
            split,
            lambda x, index, rng: lesson(network.classify(x), x, index),
            parts,
            steps=steps,
            batch_size=batch_size,
            seed=seed,
            view=crop_and_flip(split.info) if cfg.augment else None,
            positions=positions,
        )
        return network.eval(), steps

    def truth(logits: Tensor, x: Tensor, index: Tensor) -> Tensor:
        loss: Tensor = cross_entropy(logits, labels[index])
        return loss

    teacher, steps = trained(truth, recipe.one if one else recipe.ten, few)
    networks = {"": teacher}
    selected = {"recipe": name, "settings": "1 %" if one else "10 %", "steps": steps}
    if cfg.distil:

        def taught(logits: Tensor, x: Tensor, index: Tensor) -> Tensor:
            with torch.no_grad():
                target = (teacher.classify(x) / temperature).softmax(1)
            # Times T^2, or gradients would grow as T falls (Hinton, arXiv:1503.02531).
            loss: Tensor = temperature**2 * cross_entropy(logits / temperature, target)
            return loss

        tuning = recipe.ten._replace(epochs=cfg.distil_epochs)
        student, steps = trained(taught, tuning, torch.arange(len(labels)))
        networks = {"": student, "teacher_": teacher}
        selected["distil_steps"] = steps
    return {k: partial(predict, network=net.classify) for k, net in networks.items()}, selected
