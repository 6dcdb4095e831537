"""MPL: a teacher learns guesses that help its student on labels (Pham 2020, arXiv:2003.10580).

There are three phases. In every step "student" trains on the teacher's guesses, then "teacher" on
its own losses and on whether the student's loss on labelled pictures fell. In the end "finetune"
trains the student on the labels, which it had not seen.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Batch, Labels, OptimSpec, Step, View
from bench.nn.semi_supervised import (
    GENTLE,
    SMALL,
    TOY,
    SemiSupervised,
    StrongConfig,
    divergence,
    in_full,
    labeled_view,
    labels_of,
)
from bench.nn.still_statistics import still_statistics

# AdamW's rates; and a teacher of a thousand steps is not yet sure enough for UDA's full weight.
QUICK: dict[str, Any] = {
    "teacher_lr": 3e-3,
    "finetune_lr": 1e-3,
    "uda_weight": 1.0,
    "uda_ramp": 0.2,
}


class MPL(SemiSupervised):
    """Meta Pseudo Labels; the teacher's own losses are UDA's."""

    phases = ("student", "teacher", "finetune")
    deviations = (
        "guesses are drawn from the teacher's probabilities, as in the paper's derivation; the "
        "official code takes all of them softly, and then the feedback has no gradient",
        "feedback is positive where the student's loss fell, as in the paper; the code has it the "
        "other way round",
        "student and teacher start from the same weights, and the student does not wait",
        "no dropout before the classifiers",
        "guesses are drawn of a batch of strong views and scored in one with labelled and weak "
        "ones: batch norm gives them slightly other probabilities",
        "RandAugment at one magnitude and a hole of one size",
    )
    recipes = {
        "small": {**SMALL, **GENTLE, **QUICK, "finetune": 0.2},
        "toy": {**SMALL, **QUICK, **TOY, "finetune": 0.5, "uda_weight": 0.5},
    }

    class Config(StrongConfig):
        """CIFAR-10 with 4,000 labels: README and flags of the official code, WRN-28-2."""

        epochs: int = 5600  # 308,000 steps of 50,000 pictures
        batch_size: int = 896  # 7 times the labelled ones
        labels: Labels = 400
        labeled_batch_size: int = Field(128, gt=0)
        magnitude: int = Field(16, ge=0, le=30)
        lr: float = Field(0.1, ge=0)  # the student's
        teacher_lr: float = Field(0.1, ge=0)
        warmup_epochs: float = Field(90.0, ge=0)  # 5,000 steps
        average_momentum: float = Field(0.995, ge=0, lt=1)
        label_smoothing: float = Field(0.15, ge=0, lt=1)
        uda_weight: float = Field(8.0, ge=0)
        uda_ramp: float = Field(0.0167, ge=0, le=1)  # share of training: 5,000 steps
        temperature: float = Field(0.7, gt=0)  # of the teacher's prediction of the weak view
        threshold: float = Field(0.6, ge=0, lt=1)
        baseline_momentum: float = Field(0.99, ge=0, lt=1)  # of the mean feedback
        finetune: float = Field(0.026, gt=0, lt=1)  # share of training: 8,000 steps, from memory
        finetune_lr: float = Field(0.005, ge=0)  # from memory

        @model_validator(mode="after")
        def _every_phase_has_an_epoch(self) -> Self:
            if self.epochs and not 0 < round((1 - self.finetune) * self.epochs) < self.epochs:
                raise ValueError(
                    f"{self.finetune:g} of {self.epochs} epochs leaves a phase without any; "
                    "set more epochs, or finetune between"
                )
            return self

    guess: Tensor
    before: Tensor
    baseline: Tensor

    def build(self) -> None:
        """Also the teacher, and what passes between the phases of a step."""
        super().build()
        self.teacher = copy.deepcopy(self.student)
        self.register_buffer("guess", torch.zeros(self.cfg.batch_size, dtype=torch.int64))
        self.register_buffer("before", torch.zeros(()))
        self.register_buffer("baseline", torch.zeros(()))

    def views(self) -> Sequence[View]:
        """Also a strong view of unlabelled pictures."""
        return (*super().views(), View("strong", self.strong()))

    def span(self, phase: str) -> tuple[float, float]:
        """Student and teacher train together, then the student alone."""
        change = 1 - self.cfg.finetune
        return (change, 1.0) if phase == "finetune" else (0.0, change)

    def parameters_for(self, phase: str) -> Iterable[nn.Parameter]:
        """Those of the teacher or of the student."""
        return (self.teacher if phase == "teacher" else self.student).parameters()

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """That of the phase."""
        if step.phase == "finetune":
            (logits,) = self.logits(labeled_view(batch))
            return self.supervised(batch, logits, step)
        return self.learn(batch, step) if step.phase == "student" else self.teach(batch, step)

    def learn(self, batch: Batch, step: Step) -> Tensor:
        """The student's: cross-entropy to a guess of the teacher for each strong view."""
        x = batch.view("strong")
        with torch.no_grad(), still_statistics(self.teacher):
            told = in_full(self.teacher.classify(x)).softmax(1)
        self.guess.copy_(torch.multinomial(told, 1, generator=step.rng)[:, 0])
        self.before.copy_(self.loss_on_labels(batch))
        (logits,) = self.logits(x)
        self.watch(step, told, logits)
        return F.cross_entropy(logits, self.guess, label_smoothing=self.cfg.label_smoothing)

    def teach(self, batch: Batch, step: Step) -> Tensor:
        """The teacher's: labels, UDA's consistency, and its guesses by what came of them."""
        cfg = self.cfg
        feedback = self.feedback(batch)
        step.log("feedback", feedback)
        parts = (labeled_view(batch), batch.view("weak"), batch.view("strong"))
        out = in_full(self.teacher.classify(torch.cat(parts)))
        labeled, weak, strong = out.split([len(part) for part in parts])
        target = (weak.detach() / cfg.temperature).softmax(1)
        mask = (target.amax(1) >= cfg.threshold).to(out.dtype)
        step.log("mask", 100 * mask.mean())
        label = labels_of(batch)
        step.log("teacher_labeled_top1", 100 * (labeled.argmax(1) == label).float().mean())
        weight = cfg.uda_weight * min(1.0, step.progress / max(cfg.uda_ramp, 1e-9))
        loss: Tensor = (
            F.cross_entropy(labeled, label, label_smoothing=cfg.label_smoothing)
            + weight * (mask * divergence(target, strong)).mean()
            + feedback * F.cross_entropy(strong, self.guess)
        )
        return loss

    @torch.no_grad()
    def feedback(self, batch: Batch) -> Tensor:
        """By how much the student's step lowered its loss on the labels, less the usual.

        To first order it is the learning rate times the product of the student's gradients on
        guesses and on labels (the paper's Equation 12): the teacher's gradient is this number's
        times that of its guesses' likelihood.
        """
        fell = self.before - self.loss_on_labels(batch)
        self.baseline.lerp_(fell, 1 - self.cfg.baseline_momentum)
        return fell - self.baseline

    @torch.no_grad()
    def loss_on_labels(self, batch: Batch) -> Tensor:
        """The student's cross-entropy on the step's labelled pictures; nothing is remembered."""
        student = self.student
        with still_statistics(student):
            return F.cross_entropy(in_full(student.classify(labeled_view(batch))), labels_of(batch))

    def after_step(self, step: Step) -> None:
        """The average follows the student, once a step."""
        if step.phase != "teacher":
            super().after_step(step)

    def optim(self, phase: str) -> OptimSpec:
        """One rate for each phase."""
        rates = {"teacher": self.cfg.teacher_lr, "finetune": self.cfg.finetune_lr}
        change = {"lr": rates[phase]} if phase in rates else {}
        if phase == "finetune":
            change["warmup_epochs"] = 0.0
        return super().optim(phase).model_copy(update=change)
