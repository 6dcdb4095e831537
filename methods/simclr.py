"""SimCLR: two views of a picture attract, all others repel (Chen 2020, arXiv:2002.05709).

`match_top1` is the share of views, in %, whose nearest other view in the batch is their pair;
chance is 100 / (2 * batch - 1).
"""

from __future__ import annotations

from torch import Tensor

from bench.api import Batch, Step
from bench.data.augment import SMALL_PICTURES
from bench.kernels import ntxent
from bench.nn.view_pairs import SMALL, ViewPairs, ViewPairsConfig


class SimCLR(ViewPairs):
    """NT-Xent between the projections of two views; the projector is thrown away afterwards."""

    recipes = {
        "small": SMALL,
        # github.com/dkobak/simclr-cifar10 at 100 epochs, with --backbone resnet18: there batch
        # norms see one view at a time, pictures are not normalised, the cosine moves once an epoch.
        "cifar10": {
            **SMALL_PICTURES,
            "gray": 0.1,
            "epochs": 100,
            "batch_size": 512,
            "temperature": 0.5,
            "hidden": 1024,
            "projector_norm": False,
            "optimizer": "sgd",
            "lr": 0.06,
            "weight_decay": 5e-4,
            "warmup_epochs": 0,
        },
    }

    class Config(ViewPairsConfig):
        """SimCLR's own, as the base has them."""

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """NT-Xent, the paper's mean over the 2B views; the official code's is twice that."""
        one, two = self.embeddings(batch, step)
        return ntxent(one, two, self.cfg.temperature)
