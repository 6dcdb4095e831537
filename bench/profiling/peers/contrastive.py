"""Peers of NT-Xent, InfoNCE, SigLIP and MoCo's queue; temperatures are those of our cases."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.profiling.case import Call, Inputs, Peer, Size

TEMPERATURE, SCALE, BIAS = 0.1, 1 / 0.07, -10.0  # of the cases, too
NO_LSE = "flex_attention gives no log-sum-exp on a CPU (torch.compile: not supported)"
AUTOGRAD = "in the inputs' precision: half-precision logits are kept in half precision"
OUTSIDE = "embeddings normalised by us before it: it wants unit vectors"


def _lightly_ntxent(size: Size, inputs: Inputs) -> Call:
    from lightly.loss import NTXentLoss

    loss = NTXentLoss(TEMPERATURE)
    return lambda x: loss(x["one"], x["two"])


def _metric_learning(size: Size, inputs: Inputs) -> Call:
    losses = import_module("pytorch_metric_learning.losses")
    loss = losses.SelfSupervisedLoss(losses.NTXentLoss(temperature=TEMPERATURE))
    return lambda x: loss(x["one"], x["two"])


def _lightly_queue(size: Size, inputs: Inputs) -> Call:
    from lightly.loss import NTXentLoss

    assert size.keys is not None and size.dim is not None
    loss = NTXentLoss(TEMPERATURE, memory_bank_size=(size.keys, size.dim))
    loss = loss.to(inputs["queue"].device, size.dtype)
    loss.memory_bank.bank = inputs["queue"].clone()
    return lambda x: loss(x["query"], x["key"])


def _open_clip(size: Size, inputs: Inputs) -> Call:
    from open_clip.loss import ClipLoss

    loss = ClipLoss(cache_labels=True)
    scale = inputs["one"].new_tensor(SCALE)
    return lambda x: loss(*_unit(x), scale)


def _open_clip_siglip(size: Size, inputs: Inputs) -> Call:
    from open_clip.loss import SigLipLoss

    loss = SigLipLoss()
    scale, bias = inputs["one"].new_tensor(SCALE), inputs["one"].new_tensor(BIAS)
    return lambda x: loss(*_unit(x), scale, bias)


def _inf_cl(size: Size, inputs: Inputs) -> Call:
    cal_flash_loss = import_module("inf_cl").cal_flash_loss

    def both_ways(x: Inputs) -> Tensor:
        one, two = _unit(x)
        sides = ((one, two), (two, one))
        losses = [cal_flash_loss(a, b, scale=SCALE, head_dim=size.dim).mean() for a, b in sides]
        return torch.stack(losses).mean()

    return both_ways


def _by_linear_cross_entropy(loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Call:
    """InfoNCE as a classifier whose weights are the other side, `loss(rows, weights, target)`."""

    def both_ways(x: Inputs) -> Tensor:
        one, two = _unit(x)
        target = torch.arange(len(one), device=one.device)
        return (loss(one * SCALE, two, target) + loss(two * SCALE, one, target)) / 2

    return both_ways


def _liger(size: Size, inputs: Inputs) -> Call:
    loss = import_module("liger_kernel.transformers").LigerFusedLinearCrossEntropyLoss()
    return _by_linear_cross_entropy(lambda rows, weights, target: loss(weights, rows, target))


def _linear_cross_entropy(size: Size, inputs: Inputs) -> Call:
    loss: Any = getattr(F, "linear_cross_entropy", None)
    if loss is None:
        raise ImportError("this torch has no linear_cross_entropy (2.14 has)")
    return _by_linear_cross_entropy(loss)


def _flex_ntxent(size: Size, inputs: Inputs) -> Call:
    lse = _flex()

    def loss(x: Inputs) -> Tensor:
        rows = F.normalize(torch.cat([x["one"], x["two"]]), dim=1)
        pair = rows.roll(len(x["one"]), 0)
        own = (rows * pair).sum(1, dtype=torch.float32)
        return (lse(rows, rows, 1 / TEMPERATURE, _not_itself) - own / TEMPERATURE).mean()

    return loss


def _flex_infonce(size: Size, inputs: Inputs) -> Call:
    lse = _flex()

    def loss(x: Inputs) -> Tensor:
        one, two = _unit(x)
        own = (one * two).sum(1, dtype=torch.float32) * SCALE
        return ((lse(one, two, SCALE) + lse(two, one, SCALE)) / 2 - own).mean()

    return loss


def _flex_queue(size: Size, inputs: Inputs) -> Call:
    lse = _flex()

    def loss(x: Inputs) -> Tensor:
        query, key = F.normalize(x["query"], dim=1), F.normalize(x["key"], dim=1)
        own = (query * key).sum(1, dtype=torch.float32) / TEMPERATURE
        every = torch.logaddexp(own, lse(query, x["queue"], 1 / TEMPERATURE))
        return (every - own).mean()

    return loss


def _flex() -> Callable[..., Tensor]:
    """Log-sum-exps `[N]` of scaled products of rows `[N, D]` with keys `[K, D]`."""
    from torch.nn.attention.flex_attention import AuxRequest, flex_attention

    attention: Any = torch.compile(flex_attention, dynamic=False)

    def lse(rows: Tensor, keys: Tensor, scale: float, score_mod: Any = None) -> Tensor:
        q, k = rows[None, None], keys[None, None]
        wanted = AuxRequest(lse=True)
        _, aux = attention(q, k, k, score_mod=score_mod, scale=scale, return_aux=wanted)
        found: Tensor = aux.lse
        return found[0, 0]

    return lse


def _not_itself(score: Tensor, b: Tensor, h: Tensor, row: Tensor, key: Tensor) -> Tensor:
    return torch.where(row == key, float("-inf"), score)


def _unit(x: Inputs) -> tuple[Tensor, Tensor]:
    return F.normalize(x["one"], dim=1), F.normalize(x["two"], dim=1)


FLEX = (
    "also computes the attention's output, which is not needed",
    "products in the inputs' precision, float32 as the compiler chooses (tf32 where allowed)",
)

NTXENT = (
    Peer("lightly", "lightly", _lightly_ntxent, (AUTOGRAD,)),
    Peer(
        "pytorch-metric-learning",
        "pytorch_metric_learning",
        _metric_learning,
        (AUTOGRAD, "negatives of each pair apart: (2N)^3 numbers"),
    ),
    Peer("flex_attention", "torch", _flex_ntxent, FLEX, NO_LSE),
)
INFONCE = (
    Peer("open_clip", "open_clip", _open_clip, (AUTOGRAD, OUTSIDE)),
    Peer(
        "Inf-CL",
        "inf_cl",
        _inf_cl,
        (OUTSIDE, "tf32 products whatever the inputs", "needs N in whole blocks of 64"),
        "its kernels run on a GPU only",
    ),
    Peer(
        "Liger",
        "liger_kernel",
        _liger,
        (OUTSIDE, "its fused linear cross-entropy, once for each side, in chunks of rows"),
        "its kernels run on a GPU only",
    ),
    Peer(
        "linear_cross_entropy",
        "torch",
        _linear_cross_entropy,
        (AUTOGRAD, OUTSIDE, "torch's chunked loss of a linear layer, once for each side"),
    ),
    Peer("flex_attention", "torch", _flex_infonce, FLEX, NO_LSE),
)
SIGLIP = (Peer("open_clip", "open_clip", _open_clip_siglip, (AUTOGRAD, OUTSIDE)),)
QUEUE = (
    Peer(
        "lightly",
        "lightly",
        _lightly_queue,
        (AUTOGRAD, "puts the keys into the queue as well, and copies it before"),
    ),
    Peer("flex_attention", "torch", _flex_queue, FLEX, NO_LSE),
)
