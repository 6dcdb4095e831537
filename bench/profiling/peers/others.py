"""Peers of the colour loss, the moving average and the nearest neighbours."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.kernels.color_ce.reference import has_color, soft_labels
from bench.nn.color_bins import ColorBins
from bench.profiling.case import Call, Inputs, Peer, Size

MOMENTUM, NEAREST = 0.99, 20  # of the cases, too


def _dense_targets(size: Size, inputs: Inputs) -> Call:
    bins = ColorBins().to(inputs["ab"].device)

    def loss(x: Inputs) -> Tensor:
        index, share = soft_labels(x["ab"], bins)
        target = torch.zeros_like(x["logits"], dtype=share.dtype).scatter_(1, index, share)
        entropy = F.cross_entropy(x["logits"].to(share.dtype), target, reduction="none")
        return (entropy * has_color(x["ab"])[:, None, None]).mean()

    return loss


def _lightly_momentum(size: Size, inputs: Inputs) -> Call:
    from lightly.models.utils import update_momentum

    source, target = (nn.ParameterList(inputs[key].unbind(0)) for key in ("source", "target"))

    def update(x: Inputs) -> Tensor:
        update_momentum(source, target, MOMENTUM)
        return x["target"]

    return update


def _all_at_once(size: Size, inputs: Inputs) -> Call:
    return lambda x: (x["query"] @ x["bank"].T).topk(NEAREST).values


COLOR = (
    Peer(
        "dense targets", "torch", _dense_targets, ("plain torch: a target for each bin of a pixel",)
    ),
)
MOVING = (Peer("lightly", "lightly", _lightly_momentum, ("_foreach_mul_ and _foreach_add_",)),)
NEIGHBORS = (
    Peer(
        "torch",
        "torch",
        _all_at_once,
        ("all N x K similarities at once and top-k: which of equals it gives is not determined",),
    ),
)
