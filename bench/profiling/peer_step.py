"""lightly's training steps of methods that we have too, built as its examples build them.

Each is a method that the engine steps like ours: views, backbone, optimiser, schedule, precision
and batch are the same; projectors, losses and momentum networks are lightly's own.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor

from bench.api import Batch, Method, OptimSpec, Step, View
from bench.errors import BenchError, unknown
from bench.nn.momentum import cosine

PEERS = ("lightly",)
ALL = "the peer logs neither the spread of embeddings nor how many pairs match"
BIAS = "the last layer of the projector has a bias"
HALF = "its loss runs in bfloat16 autocast; our reference of a loss computes in float32"
EACH = "one pass of the network for each view; ours passes all at once"


def check(peer: str, method: str | None) -> None:
    """Tell whether `peer` has a step of `method`; None: whether there is such a peer at all.

    Raises:
        BenchError: there is no such peer, it is not installed, or it has no such method.
    """
    if peer not in PEERS:
        raise unknown("peer", peer, PEERS)
    if find_spec(peer) is None:
        raise BenchError(f"{peer} is not installed; try: pip install {peer}")
    if method is not None and method not in STEPS:
        raise BenchError(
            f"no step of {peer} is built for {method}; there are {', '.join(sorted(STEPS))}"
        )


def offers(peer: str, method: str) -> bool:
    """Whether there is a step of `method` by `peer`, installed or not."""
    return peer in PEERS and method in STEPS


def notes(provider: str, method: str, precision: str) -> tuple[str, ...]:
    """How a provider's step differs from ours in this `precision` of the engine, a line each."""
    if provider not in PEERS:
        return ()
    return (*STEPS[method].differs, *([HALF] if precision == "bf16" else []))


def build(peer: str, method: str, ours: Method) -> Method:
    """The peer's step of `ours`, with a copy of its backbone, so of its initial weights."""
    check(peer, method)
    return STEPS[method](ours)


class LightlyStep(Method):
    """What the steps below share: all but networks and loss is as the method of ours has it."""

    differs: tuple[str, ...] = (ALL,)

    def __init__(self, ours: Method) -> None:
        self._views, self._optim = tuple(ours.views()), ours.optim("main")
        super().__init__(ours.cfg, copy.deepcopy(ours.backbone), ours.data)

    def views(self) -> Sequence[View]:
        """Those of our method, rendered by us."""
        return self._views

    def optim(self, phase: str) -> OptimSpec:
        """That of our method."""
        return self._optim

    def pair(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The two views."""
        one, two = (view for views in batch.views.values() for view in views)
        return one, two

    def embed(self, x: Tensor) -> Tensor:
        """Embeddings `[B, projection]` of a view."""
        embedding: Tensor = self.projector(self.backbone(x))  # type: ignore[operator]
        return embedding


class LightlyPair(LightlyStep):
    """A projector, and a loss of the two embeddings that is symmetric."""

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """The criterion of both embeddings."""
        one, two = map(self.embed, self.pair(batch))
        loss: Tensor = self.criterion(one, two)  # type: ignore[operator]
        return loss


class LightlySimCLR(LightlyPair):
    """SimCLRProjectionHead and NTXentLoss."""

    differs = (EACH, ALL)

    def build(self) -> None:
        """The projector, and the loss; as a function, so that its time is not the networks'."""
        from lightly.loss import NTXentLoss
        from lightly.models.modules import SimCLRProjectionHead

        cfg, dim = self.cfg, self.backbone.dim
        self.projector = SimCLRProjectionHead(
            dim, cfg.hidden or dim, cfg.projection, cfg.projector_layers, cfg.projector_norm
        )
        self.criterion = partial(NTXentLoss(cfg.temperature))


class LightlyBarlowTwins(LightlyPair):
    """BarlowTwinsProjectionHead and BarlowTwinsLoss."""

    differs = (BIAS, "biases and batch norms have the learning rate of the weights", ALL)

    def build(self) -> None:
        """Projector and loss."""
        from lightly.loss import BarlowTwinsLoss
        from lightly.models.modules import BarlowTwinsProjectionHead

        cfg = self.cfg
        self.projector = BarlowTwinsProjectionHead(self.backbone.dim, cfg.hidden, cfg.projection)
        self.criterion = partial(BarlowTwinsLoss(cfg.off_diagonal))


class LightlyVICReg(LightlyPair):
    """VICRegProjectionHead and VICRegLoss."""

    differs = (BIAS, ALL)

    def build(self) -> None:
        """Projector and loss."""
        from lightly.loss import VICRegLoss
        from lightly.models.modules.heads import VICRegProjectionHead

        cfg = self.cfg
        self.projector = VICRegProjectionHead(self.backbone.dim, cfg.hidden, cfg.projection)
        self.criterion = partial(VICRegLoss(cfg.invariance, cfg.variance, cfg.covariance))


class LightlySimSiam(LightlyStep):
    """SimSiamProjectionHead, SimSiamPredictionHead and NegativeCosineSimilarity."""

    differs = ("the predictor's learning rate has the schedule of the others", ALL)

    def build(self) -> None:
        """Projector, predictor and loss."""
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules import SimSiamPredictionHead, SimSiamProjectionHead

        cfg = self.cfg
        self.projector = SimSiamProjectionHead(self.backbone.dim, cfg.hidden, cfg.projection)
        self.predictor = SimSiamPredictionHead(cfg.projection, cfg.bottleneck, cfg.projection)
        self.criterion = partial(NegativeCosineSimilarity())

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """Each view predicts the other."""
        one, two = map(self.embed, self.pair(batch))
        forth = self.criterion(self.predictor(one), two.detach())
        back = self.criterion(self.predictor(two), one.detach())
        loss: Tensor = (forth + back) / 2
        return loss


class LightlyBYOL(LightlyStep):
    """BYOLProjectionHead, BYOLPredictionHead, NegativeCosineSimilarity and update_momentum."""

    differs = (BIAS, "so has that of the predictor", ALL)

    def build(self) -> None:
        """Projector, predictor, their slow copies, and the loss."""
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
        from lightly.models.utils import deactivate_requires_grad

        cfg = self.cfg
        self.projector = BYOLProjectionHead(self.backbone.dim, cfg.hidden, cfg.projection)
        self.predictor = BYOLPredictionHead(cfg.projection, cfg.hidden, cfg.projection)
        self.slow_backbone = copy.deepcopy(self.backbone)
        self.slow_projector = copy.deepcopy(self.projector)
        deactivate_requires_grad(self.slow_backbone)
        deactivate_requires_grad(self.slow_projector)
        self.criterion = partial(NegativeCosineSimilarity())

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """Each view predicts what the slow network makes of the other."""
        views = self.pair(batch)
        one, two = (self.predictor(self.embed(view)) for view in views)
        with torch.no_grad():
            slow_one, slow_two = (self.slow_projector(self.slow_backbone(view)) for view in views)
        loss: Tensor = (self.criterion(one, slow_two) + self.criterion(two, slow_one)) / 2
        return loss

    def after_step(self, step: Step) -> None:
        """The slow networks follow."""
        from lightly.models.utils import update_momentum

        momentum = cosine(self.cfg.teacher_momentum, 1.0, step.progress)
        update_momentum(self.backbone, self.slow_backbone, momentum)
        update_momentum(self.projector, self.slow_projector, momentum)


STEPS: dict[str, type[LightlyStep]] = {
    "simclr": LightlySimCLR,
    "byol": LightlyBYOL,
    "simsiam": LightlySimSiam,
    "barlow_twins": LightlyBarlowTwins,
    "vicreg": LightlyVICReg,
}
