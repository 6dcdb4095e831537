"""SimCLRv2: deeper projector, few-label fine-tuning, distillation (Chen 2020, arXiv:2006.10029).

Without `labels` it is pretraining alone. With them there are three phases, one after another:
"main" pretrains, "finetune" trains a classifier on the labelled share, from the projector's first
layer on, and "distill" trains a fresh student to predict on all pictures what that teacher does.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Self

import torch
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Backbone, Batch, Encoder, OptimSpec, Panel, Step, TrainSet, View
from bench.data.ops import HorizontalFlip, Normalize, RandomResizedCrop
from bench.kernels import ntxent
from bench.nn.deepened import Deepened
from bench.nn.labelled import IGNORED, LabelledShare
from bench.nn.view_pairs import SMALL, ViewPairs, ViewPairsConfig

PHASES = ("main", "finetune", "distill")


class SimCLRv2(ViewPairs):
    """NT-Xent; then, with labels, cross-entropy; then the teacher's softened predictions."""

    deviations = (
        "no memory of earlier embeddings (optional in the paper) and no selective kernels",
        "labelled pictures are drawn evenly; the paper's lists are balanced over the classes",
        "the student starts from the teacher's initial weights, not from another draw",
        "one batch size and one warm-up for all phases; the paper fine-tunes with batches of 1,024",
    )
    recipes = {
        "small": SMALL,
        "small_labels": {**SMALL, "labels": 0.1, "phase_epochs": (5, 1, 4), "finetune_lr": 1e-3},
    }

    class Config(ViewPairsConfig):
        """The paper's settings, from memory but for [c]: google-research/simclr."""

        epochs: int = 800  # of pretraining alone; 1203 with the other two phases
        projector_layers: int = Field(3, ge=2)
        lr: float = 1.6  # 0.1 * sqrt(batch)
        scaling: Literal["linear", "sqrt"] = "sqrt"
        weight_decay: float = 1e-4
        warmup_epochs: float = 40
        labels: float = Field(0.0, ge=0, le=1)  # share of the pictures; the paper's 0.01 and 0.1
        # How epochs are divided where there are labels. One of fine-tuning draws as many labelled
        # pictures as there are pictures in all: 3 are the paper's 30 passes over a tenth.
        phase_epochs: tuple[NonNegativeInt, PositiveInt, PositiveInt] = (800, 3, 400)
        finetune_lr: float = 0.08  # 0.005 * sqrt(batch), without weight decay and warm-up [c]
        distill_temperature: float = Field(0.1, gt=0)  # for a student of the teacher's kind

        def span(self, phase: str) -> tuple[float, float]:
            """The share of training, [start, end), that a phase has where there are labels."""
            at, total = PHASES.index(phase), sum(self.phase_epochs)
            return sum(self.phase_epochs[:at]) / total, sum(self.phase_epochs[: at + 1]) / total

        def epochs_of(self, phase: str) -> range:
            """The epochs of a phase, rounded as the engine does."""
            start, end = self.span(phase)
            return range(round(start * self.epochs), round(end * self.epochs))

        @model_validator(mode="after")
        def _every_phase_has_an_epoch(self) -> Self:
            planned = zip(PHASES, self.phase_epochs, strict=True)
            none = [phase for phase, share in planned if share and not self.epochs_of(phase)]
            if self.labels and self.epochs and none:
                raise ValueError(
                    f"{self.epochs} epochs divided as {self.phase_epochs} leave none to phase "
                    f"{none[0]}; set more epochs, or phase_epochs such as [5,1,4]"
                )
            return self

    @classmethod
    def needs_of(cls, cfg: Any) -> frozenset[str]:
        """Labels, where a share of them is used."""
        return cls.needs | {"labels"} if cfg.labels else cls.needs

    student: Backbone
    finetuning: Tensor
    labelled: LabelledShare

    def build(self) -> None:
        """The projector; with labels also two classifiers, the student, and who is labelled."""
        super().build()
        if self.cfg.labels:
            self.phases = PHASES
            self.task_head = nn.Linear(self.hidden, self.data.num_classes)
            self.student = copy.deepcopy(self.backbone)
            self.student_head = nn.Linear(self.backbone.dim, self.data.num_classes)
            self.labelled = LabelledShare(self.data.n_train, self.cfg.labels)
            self.register_buffer("finetuning", torch.zeros((), dtype=torch.bool))

    def views(self) -> Sequence[View]:
        """A pair of views; with labels also a crop and flip, for the later phases."""
        crop = RandomResizedCrop(scale=self.cfg.crop)
        normalize = Normalize(mean=self.data.mean, std=self.data.std)
        plain = View("plain", (crop, HorizontalFlip(p=self.cfg.flip), normalize))
        return (*super().views(), plain) if self.cfg.labels else super().views()

    def span(self, phase: str) -> tuple[float, float]:
        """One phase after the other."""
        span: tuple[float, float] = self.cfg.span(phase) if self.cfg.labels else (0.0, 1.0)
        return span

    @property
    def first_layer(self) -> nn.Sequential:
        """The projector's, with batch norm and ReLU: it stays a part of the network."""
        return nn.Sequential(*list(self.projector)[: 3 if self.cfg.projector_norm else 2])

    def network(self, phase: str) -> nn.Sequential:
        """What a phase trains; that of fine-tuning is the teacher of distillation."""
        if phase == "main":
            return nn.Sequential(self.backbone, self.projector)
        if phase == "finetune":
            return nn.Sequential(self.backbone, self.first_layer, self.task_head)
        return nn.Sequential(self.student, self.student_head)

    def parameters_for(self, phase: str) -> Iterable[nn.Parameter]:
        """Those of the phase's network."""
        return (p for p in self.network(phase).parameters() if p.requires_grad)

    def before_epoch(self, epoch: int, train: TrainSet) -> None:
        """Note whether this epoch fine-tunes."""
        if self.cfg.labels:
            self.finetuning.fill_(epoch in self.cfg.epochs_of("finetune"))

    def sample_weights(self) -> Tensor | None:
        """Fine-tuning draws labelled pictures only."""
        return self.labelled.chosen if self.cfg.labels and self.finetuning else None

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """That of the phase."""
        if step.phase == "main":
            return ntxent(*self.embeddings(batch, step), self.cfg.temperature)
        return self.finetune(batch, step) if step.phase == "finetune" else self.distill(batch, step)

    def finetune(self, batch: Batch, step: Step) -> Tensor:
        """Cross-entropy on labelled pictures; the label of any other has no effect."""
        logits = self.network("finetune")(batch.view("plain"))
        label = self.labelled(batch.label, batch.index)
        hits = (logits.argmax(1) == label).sum() / (label != IGNORED).sum()
        step.log("finetune_top1", 100 * hits)
        loss: Tensor = F.cross_entropy(logits, label)
        return loss

    def distill(self, batch: Batch, step: Step) -> Tensor:
        """Cross-entropy of softened predictions, times T^2 as in [c], on every picture."""
        x, temperature = batch.view("plain"), self.cfg.distill_temperature
        teacher = self.network("finetune").eval()  # its batch norms stay as they are
        with torch.no_grad():
            taught = (teacher(x).float() / temperature).softmax(1)
        teacher.train(self.training)
        student = (self.network("distill")(x).float() / temperature).log_softmax(1)
        step.watch_targets(taught, student)
        agree = student.argmax(1) == taught.argmax(1)
        step.log("distill_agreement", 100 * agree.float().mean())
        loss: Tensor = -(temperature**2) * (taught * student).sum(1).mean()
        return loss

    def optim(self, phase: str) -> OptimSpec:
        """Distillation is trained like pretraining, fine-tuning with small steps."""
        small = {"lr": self.cfg.finetune_lr, "weight_decay": 0.0, "warmup_epochs": 0.0}
        return super().optim(phase).model_copy(update=small if phase == "finetune" else {})

    def encoder(self) -> Encoder:
        """The student; without labels the backbone and the projector's first layer."""
        if self.cfg.labels:
            return self.student
        return Deepened(self.backbone, self.first_layer, self.hidden)

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """Without labels the nearest views; with them what the student takes pictures for."""
        if batch.label is None:
            return super().picture(batch, step)
        x, names = batch.view("plain")[:8], self.data.classes
        predicted = self.network("distill")(x).argmax(1)
        captions = tuple(names[number] for number in predicted.tolist())
        good = tuple((predicted == batch.label[:8]).tolist())
        return [Panel("the student's class", self.data.rgb(x), captions, good)]
