"""A copy of an encoder with a new classifier on top, to train on pictures."""

from __future__ import annotations

from torch import nn

from bench.api import Encoder
from bench.eval.training import trainable
from bench.nn.classifier import WithHead


def with_new_head(encoder: Encoder, classes: int, standardize: bool) -> WithHead:
    """A copy of `encoder`, in train mode, with a linear layer of zeros on its representation.

    From zero, all classes are equally likely at first (SimCLR's `zero_init_logits_layer`).

    Args:
        encoder: a frozen encoder, which stays what it is.
        classes: how many logits the head gives.
        standardize: a batch norm without affine comes before the linear layer (MAE,
            arXiv:2111.06377), so that one learning rate fits any scale of features.
    """
    trunk = trainable(encoder)
    linear = nn.Linear(trunk.dim, classes)
    for parameter in linear.parameters():
        nn.init.zeros_(parameter)
    norm = [nn.BatchNorm1d(trunk.dim, affine=False)] if standardize else []
    return WithHead(trunk, nn.Sequential(*norm, linear)).train()
