"""Networks without batch norm, so that what one input gives does not depend on the others."""

from __future__ import annotations

import torch
from torch import nn

from bench.errors import BenchError


def without_batch_norm(network: nn.Module) -> None:
    """Put a layer norm in place of every batch norm of `network`; all weights stay as they are.

    Statistics are then those of one input's channels and places (`GroupNorm` with one group), in
    training as in evaluation. CPC v2 (arXiv:1905.09272) needs it: batch statistics tell a patch of
    the others, so that the task can be solved without looking.

    Raises:
        BenchError: a kind of batch norm that does more than normalise.
    """
    for name, module in list(network.named_modules()):
        if not isinstance(module, nn.modules.batchnorm._BatchNorm):
            continue
        if type(module) not in (nn.BatchNorm1d, nn.BatchNorm2d):
            raise BenchError(
                f"{name} is a {type(module).__name__}, for which there is no layer norm to put in "
                "its place; use a backbone with plain BatchNorm2d, such as small or resnet18"
            )
        norm = nn.GroupNorm(1, module.num_features, module.eps, module.affine)
        if module.affine:
            with torch.no_grad():
                norm.weight.copy_(module.weight)
                norm.bias.copy_(module.bias)
        parent, _, attribute = name.rpartition(".")
        setattr(network.get_submodule(parent), attribute, norm)
