"""Projectors and predictors: linear layers with batch norm and ReLU between them."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import nn


def mlp(
    *dims: int,
    norm: bool = True,
    last: Literal["plain", "norm", "norm-free"] = "plain",
    bias: bool = True,
) -> nn.Sequential:
    """Linear layers `dims[0]` -> ... -> `dims[-1]`; batch norm and ReLU after all but the last.

    Args:
        *dims: the widths, input and output included.
        norm: whether hidden layers have batch norm; their linear layers then have no bias.
        last: what follows the last layer: nothing, batch norm, or batch norm without affine.
        bias: whether the last layer has a bias, where no batch norm follows it.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(dims[:-1]):
        layers.append(nn.Linear(inputs, outputs, bias=not norm))
        layers += [nn.BatchNorm1d(outputs)] if norm else []
        layers.append(nn.ReLU(inplace=True))
    layers.append(nn.Linear(dims[-2], dims[-1], bias=bias and last == "plain"))
    if last != "plain":
        layers.append(nn.BatchNorm1d(dims[-1], affine=last == "norm"))
    return nn.Sequential(*layers)
