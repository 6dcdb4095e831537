"""The whole contract: what a method is, what a protocol is, and what passes between them.

Data flows one way: pictures -> views -> loss -> encoder -> features -> protocol -> record.
A method holds only its idea; a protocol holds only its measurement; everything else is the harness.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from bench import spread
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.data.dataset import Split


class Config(BaseModel):
    """A frozen, validated settings object; a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# ------------------------------------------------------------------------------- views and batches
class Op(Config, ABC):
    """One step of a view: draws its parameters for a whole batch, then applies them to it.

    Parameters are drawn per picture. Subclasses live in `bench.data.ops`.
    """

    @abstractmethod
    def sample(
        self, n: int, rng: torch.Generator, size: tuple[int, int], aspect: Tensor | None
    ) -> dict[str, Tensor]:
        """Draw parameters for `n` pictures of `size` (height, width), on the generator's device.

        `aspect` `[n]` is each picture's true width/height where it was stored squashed to `size`.
        """

    @abstractmethod
    def apply(self, x: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        """Apply drawn parameters to `x` `[n, 3, h, w]`, float in [0, 1] until `Normalize`.

        `x` may be overwritten.
        """


@dataclass(frozen=True)
class View:
    """A declared view of each picture, rendered batched on the device as `batch.views[name]`.

    `size` is the side in pixels (None: as stored); `count` independent renderings are made;
    `source` picks the picture itself or its second frame. A view of the `labeled` pictures is
    rendered of those of the step, as `batch.labeled.views[name]`.
    """

    name: str
    ops: tuple[Op, ...]
    size: int | None = None
    count: int = 1
    source: Literal["image", "frame"] = "image"
    labeled: bool = False


@dataclass
class Batch:
    """What `Method.loss` sees of B pictures. Fields that the method does not declare are None."""

    views: dict[str, list[Tensor]]  # name -> `count` tensors [B, 3, s, s]
    index: Tensor  # [B] position in the training set
    label: Tensor | None = None  # [B] needs "labels"
    text: Tensor | None = None  # [B, L] int64 tokens (bench.data.text), needs "text"
    motion: Tensor | None = None  # [B, k] camera motion to the second frame, needs "motion"
    labeled: Batch | None = None  # the step's pictures with a label, needs "labeled"

    def __len__(self) -> int:
        return len(self.index)

    def view(self, name: str) -> Tensor:
        """The only rendering of view `name`, `[B, 3, s, s]`."""
        (rendered,) = self.views[name]
        return rendered


@dataclass
class Step:
    """Where training stands. `rng` is this step's own generator, on the training device."""

    phase: str
    epoch: int
    epochs: int
    index: int  # optimiser steps done so far, over all epochs
    total: int  # optimiser steps of the whole run
    rng: torch.Generator
    logged: dict[str, Tensor] = field(default_factory=dict)

    @property
    def progress(self) -> float:
        """The share of training that is done, in [0, 1)."""
        return self.index / max(self.total, 1)

    def log(self, name: str, value: Tensor) -> None:
        """Log a scalar; it stays on the device and is averaged over the epoch."""
        self.logged[name] = value.detach()

    @torch.no_grad()
    def watch(self, embeddings: Tensor) -> None:
        """Log `embedding_std` of embeddings `[N, D]`: 1 is spread evenly, 0 one point for all.

        It is the standard deviation of a dimension of the L2-normalised rows, times sqrt(D)
        (SimSiam, arXiv:2011.10566, Figure 2). A run that ends near 0 is recorded as collapsed.
        """
        if len(embeddings) > 1:  # one row has no spread
            scale = embeddings.shape[1] ** 0.5
            self.log("embedding_std", spread.unit_std(embeddings.float()) * scale)

    @torch.no_grad()
    def watch_targets(self, teacher: Tensor, student: Tensor) -> None:
        """Log what tells the two collapses of a teacher's soft assignments (DINO, Figure 7) apart.

        `teacher_entropy`: mean entropy of a row, nats; log K is uniform, 0 one-hot. `teacher_kl`:
        mean KL divergence from student to teacher, nats. `target_information`: what an assignment
        tells of the picture, (H(mean row) - mean H(row)) / log min(N, K): it is 0 both where all
        rows are uniform and where all choose the same. A run that ends there is recorded as
        collapsed.

        Args:
            teacher: `[N, K]` probabilities.
            student: `[N, K]` log-probabilities of the student for the same pictures.
        """
        if len(teacher) > 1:
            for name, value in spread.of_assignments(teacher.float(), student.float()).items():
                self.log(name, value)


@lru_cache(maxsize=64)  # a new one in every step would wait for the GPU
def _channels(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)[:, None, None]


@dataclass(frozen=True)
class DataInfo:
    """What a method may know of its data before training."""

    name: str
    digest: str
    size: int  # side of the stored pictures, pixels
    classes: tuple[str, ...]
    n_train: int  # pictures that pretraining sees
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    # "color" "labels" "multilabel" "boxes" "masks" "text" "frames" "motion"
    has: frozenset[str] = frozenset()

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    def rgb(self, x: Tensor) -> Tensor:
        """Normalised pictures `[..., 3, h, w]` back as RGB in [0, 1]; nothing is clipped."""
        return x * _channels(self.std, x.device, x.dtype) + _channels(self.mean, x.device, x.dtype)

    def normalize(self, rgb: Tensor) -> Tensor:
        """RGB `[..., 3, h, w]` in [0, 1] as networks see it; the inverse of `rgb`."""
        mean, std = (_channels(value, rgb.device, rgb.dtype) for value in (self.mean, self.std))
        return (rgb - mean) / std


class TrainSet(ABC):
    """The training pictures, for what a method computes between epochs."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def features(self, module: nn.Module, first: int | None = None) -> Tensor:
        """`module`'s output on every training picture, `[N, D]`, in data order, without gradient.

        With `first`, on the first so many only. Pictures are un-augmented and normalised; the
        module runs in eval mode.
        """

    @abstractmethod
    def sample(self, count: int) -> Tensor:
        """`count` training pictures (at most all), un-augmented and normalised, `[n, 3, s, s]`.

        Which ones is drawn from torch's global generator, so it is the same in every repeat.
        """


# ------------------------------------------------------------------------------------------ models
class Encoder(nn.Module, ABC):
    """A frozen network as protocols see it: normalised RGB `[B, 3, H, W]` -> `[B, dim]`."""

    # What such an encoder comes from, for a user whose method has none.
    origin: ClassVar[str] = "any method"

    dim: int
    layers: tuple[str, ...] = ()  # names of `maps`, first to last; empty where there are none

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The representation, `[B, dim]`."""

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """Feature maps by layer, `[B, C, h, w]` each, after the non-linearity."""
        return {}

    def tap(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The representation and the maps; overridden where one pass gives both."""
        return self(x), self.maps(x)


class Backbone(Encoder):
    """A trainable network behind one face; built by `bench.backbones.build`.

    `notes` says, a line each, where the network is not quite what its name promises.
    """

    notes: tuple[str, ...] = ()

    def tokens(
        self,
        x: Tensor,
        keep: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        mask_token: Tensor | None = None,
    ) -> Tensor:
        """Tokens `[B, T, D]`: the class token first (`prefix` of them), then patches.

        Args:
            x: normalised pictures `[B, 3, H, W]`.
            keep: `[B, K]` the patches to encode, the others are dropped (MAE).
            mask: `[B, P]` bool, the patches that `mask_token` stands for (BEiT, iBOT).
            mask_token: `[D]`, takes the place of a masked patch's embedding, before positions.

        Raises:
            NotImplementedError: the backbone is not a vision transformer.
        """
        raise NotImplementedError(f"{type(self).__name__} has no tokens; use a vision transformer")

    def half(self) -> Backbone:
        """A new network of this kind, each layer with half the channels (split-brain).

        Weights are drawn from torch's global generator.

        Raises:
            BenchError: this kind has none.
        """
        raise BenchError(
            f"there is no {type(self).__name__} of half the width; "
            "use small, nin3, nin4, nin5, alexnet, vgg16 or vgg16_bn"
        )


class ImageTextEncoder(Encoder):
    """An encoder with a text side; cosines of its embeddings say how well pictures fit texts.

    `forward` and `maps` are of pictures alone, as any encoder's: what probes see is unchanged.
    """

    origin = "a method that learns from text such as clip"

    @property
    @abstractmethod
    def scale(self) -> float:
        """What the cosines were multiplied by in training: the inverse temperature."""

    @abstractmethod
    def embed_image(self, x: Tensor) -> Tensor:
        """Embeddings `[B, D]` of normalised pictures `[B, 3, H, W]`; any length."""

    @abstractmethod
    def embed_text(self, tokens: Tensor) -> Tensor:
        """Embeddings `[T, D]` of tokens `[T, L]` as `bench.data.text.tokenize` makes them."""


class Classifier(Encoder):
    """An encoder with the classifier that its method trained on labels of the same data."""

    origin = "a method that trains a classifier, such as supervised"

    @abstractmethod
    def classify(self, x: Tensor) -> Tensor:
        """Logits `[B, C]` of normalised pictures `[B, 3, H, W]`."""


class OptimSpec(Config):
    """One phase's optimiser and schedule.

    With `base_batch` set, `lr` is scaled by batch / base_batch (linear) or its root (sqrt).
    `milestones` are shares of training in [0, 1); at each one lr is multiplied by its `gammas`.
    """

    name: Literal["sgd", "adam", "adamw", "lars"] = "sgd"
    lr: float = Field(ge=0)
    base_batch: int | None = None
    scaling: Literal["linear", "sqrt"] = "linear"
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    trust: float = 0.001  # LARS trust coefficient
    weight_decay: float = Field(0.0, ge=0)
    weight_decay_end: float | None = None  # cosine from weight_decay to this (DINO)
    decay_bias_and_norm: bool = True  # False: no decay (nor LARS adaptation) for 1-d parameters
    schedule: Literal["constant", "cosine", "step"] = "cosine"
    warmup_epochs: float = 0.0
    min_lr: float = 0.0
    milestones: tuple[float, ...] = ()
    gammas: tuple[float, ...] = ()
    clip_grad_norm: float | None = None


# --------------------------------------------------------------------------------------- a method
@dataclass(frozen=True)
class Panel:
    """A titled row of tiles in the picture that a method gives of itself (`bench show --picture`).

    `tiles` `[n, 3, h, w]` is RGB in [0, 1] (values outside are clipped). Panels with as many tiles
    stand one below the other, column by column. `captions` go below the tiles; `good` colours them.
    """

    title: str
    tiles: Tensor
    captions: tuple[str, ...] = ()
    good: tuple[bool, ...] = ()


class MethodConfig(Config):
    """Settings every method has. Defaults of subclasses are the paper's, the source beside each."""

    epochs: int
    batch_size: int

    @model_validator(mode="after")
    def _budget(self) -> Self:
        if self.epochs < 0 or self.batch_size < 1:
            raise ValueError("epochs are at least 0, and batch_size at least 1")
        return self


# How many labels may be used: so many per class, a share of all, or those that a file lists.
Labels = Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)] | str


class LabeledConfig(MethodConfig):
    """Settings of a method that `needs` "labeled": which labels it may use, and how many a step.

    Which pictures they are is drawn by the run's seed (`bench.data.few_labels`).
    """

    labels: Labels
    labeled_batch_size: int = Field(gt=0)


class Method(nn.Module, ABC):
    """A self-supervised algorithm: what it sees, what it minimises, what it leaves behind.

    All training state is parameters and persistent buffers, so that a resumed run is exact.
    """

    version: ClassVar[int] = 1  # bump when its numbers change
    # "color" "labels" "labeled" "text" "frames" "motion" "pretrained"
    needs: ClassVar[frozenset[str]] = frozenset()
    default_backbone: ClassVar[str] = "small"  # where the user names none
    phases: tuple[str, ...] = ("main",)  # one optimiser each, stepped in this order
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # named overrides, e.g. "small"
    deviations: ClassVar[tuple[str, ...]] = ()  # from the paper, beyond changed settings

    class Config(MethodConfig):
        """The method's settings."""

    def __init__(self, cfg: MethodConfig, backbone: Backbone, data: DataInfo) -> None:
        super().__init__()
        self.cfg: Any = cfg
        self.backbone = backbone
        self.data = data
        self.build()

    @classmethod
    def needs_of(cls, cfg: Any) -> frozenset[str]:
        """What a method with these settings needs; overridden where a setting adds a need."""
        return cls.needs

    @property
    def uses_labels(self) -> bool:
        """Whether labels enter, be it of other data through weights from elsewhere."""
        return bool(self.needs_of(self.cfg) & {"labels", "labeled"})

    def build(self) -> None:
        """Make the heads. `self.cfg`, `self.backbone` and `self.data` are there."""

    @abstractmethod
    def views(self) -> Sequence[View]:
        """The views that each step renders."""

    @abstractmethod
    def loss(self, batch: Batch, step: Step) -> Tensor:
        """The scalar that `step.phase` minimises."""

    @abstractmethod
    def optim(self, phase: str) -> OptimSpec:
        """The optimiser of a phase."""

    def span(self, phase: str) -> tuple[float, float]:
        """The share of training, [start, end), in which a phase takes part; by default all of it.

        It is rounded to whole epochs, and the phase's schedule runs within it (SimCLRv2 pretrains,
        then fine-tunes, then distils).
        """
        return 0.0, 1.0

    def parameters_for(self, phase: str) -> Iterable[nn.Parameter]:
        """The parameters that a phase trains; by default all that require a gradient."""
        return (p for p in self.parameters() if p.requires_grad)

    def sample_weights(self) -> Tensor | None:
        """Relative sampling weights `[N]` for an epoch's order, from buffers; None: each once."""
        return None

    def initialize(self, train: TrainSet) -> None:
        """Initialise from data, once, before the first step; without epochs it is all there is."""

    def before_epoch(self, epoch: int, train: TrainSet) -> None:
        """Relabel, say; a resumed epoch does not repeat it."""

    def after_backward(self, step: Step) -> None:
        """Edit gradients before the optimiser's step."""

    def after_step(self, step: Step) -> None:
        """Update what has no gradient: EMA, queue, memory bank."""

    def encoder(self) -> Encoder:
        """The network to evaluate; wrap it where the method saw other channels than RGB."""
        return self.backbone

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """What the method makes of a few training pictures; by default what it sees of them.

        Runs in eval mode without gradient; `step` is that of the last epoch.
        """
        return [
            Panel(name if len(views) == 1 else f"{name} {number}", self.data.rgb(view))
            for name, views in batch.views.items()
            for number, view in enumerate(views, 1)
        ]


class Untrained(Method):
    """A baseline with nothing to train: floors, ceilings, and weights from elsewhere."""

    class Config(MethodConfig):
        """No training."""

        epochs: Literal[0] = 0
        batch_size: int = 256

    def views(self) -> Sequence[View]:
        """No views: nothing is trained."""
        return ()

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """Never called.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(f"{type(self).__name__} is not trained")

    def optim(self, phase: str) -> OptimSpec:
        """Unused."""
        return OptimSpec(lr=0.0)


# -------------------------------------------------------------------------------------- a protocol
@dataclass(frozen=True)
class Metric:
    """The primary number of a protocol."""

    name: str
    unit: str = "%"
    higher_is_better: bool = True


class EvalSplit(ABC):
    """One split as a protocol sees it: labels, and features that are extracted once and cached.

    Ask for features first: labels are then those of the pictures that could be decoded.
    """

    split: Split  # pictures and every kind of label
    info: DataInfo
    device: torch.device  # where features, labels and batches are

    @property
    @abstractmethod
    def labels(self) -> Tensor:
        """`[N]` int64 class of each picture that `features` returns a row for."""

    @abstractmethod
    def features(
        self,
        encoder: Encoder,
        layers: Sequence[str] = ("output",),
        *,
        max_dim: int = 2048,
        view: View | None = None,
        copies: int = 1,
    ) -> dict[str, Tensor]:
        """Float32 features by layer, `[copies * N, D]`, copy after copy.

        "output" is the encoder's own `[B, dim]`; every other name is a layer of `encoder.maps`,
        average-pooled to the largest k x k grid with C * k * k <= max_dim (k >= 1), flattened.
        `view` replaces the plain evaluation transform; each copy renders it with other draws.
        """

    @abstractmethod
    def batches(
        self, order: Iterable[Tensor], view: View | None = None, *name: str | int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Pictures themselves, for what is trained end to end.

        Yields (positions `[b]` in `split`, pictures `[b, 3, s, s]` as `view` renders them) for
        each tensor of positions in `order`, on the device; undecodable pictures are left out.
        `view` is by default the plain evaluation transform; `name` names its draws.
        """


class EvalData(ABC):
    """What a protocol measures on. Choices are made on `train` and `val`; test is read once."""

    info: DataInfo
    train: EvalSplit
    val: EvalSplit
    full: EvalSplit  # train and val together, in an order of its own, to fit again on

    @abstractmethod
    def read_test(self) -> EvalSplit:
        """The test split.

        Raises:
            RuntimeError: it was read before.
        """


@dataclass
class Scores:
    """What a protocol found on test. Percentages where the metric's unit is %."""

    metrics: dict[str, float]  # the primary metric, then secondary ones such as "top5" or "ece"
    per_layer: dict[str, dict[str, float]] = field(default_factory=dict)
    selected: dict[str, Any] = field(default_factory=dict)  # what was chosen on validation, of what
    predictions: Tensor | None = None  # [N_test] predicted class, for paired tests
    labels: Tensor | None = None  # [N_test] the truth beside it
    arrays: dict[str, Tensor] = field(default_factory=dict)  # kept for comparing encoders
    figure: bytes | None = None  # a PNG to look at


class Protocol(ABC):
    """An evaluation of a frozen encoder. Any change of a constant is a new version."""

    version: ClassVar[int] = 1
    metric: ClassVar[Metric] = Metric("top1")
    requires: ClassVar[frozenset[str]] = frozenset({"labels"})  # kinds of label in DataInfo.has
    takes: ClassVar[type[Encoder]] = Encoder  # type: ignore[type-abstract]  # what it measures

    toy: ClassVar[Mapping[str, Any]] = {}  # settings for tests: the same measurement in a second

    class Config(Config):
        """The protocol's constants."""

    @abstractmethod
    def run(self, encoder: Encoder, data: EvalData, cfg: Any, seed: int) -> Scores:
        """Measure `encoder` (frozen, in eval mode) on `data`."""


Batches = Iterator[tuple[Tensor, Tensor]]  # ([B] index, [B, 3, H, W] uint8)
