"""Peers of DINO, iBOT and Sinkhorn."""

from __future__ import annotations

import torch

from bench.profiling.case import Call, Inputs, Peer, Size

SHARP, SOFT, EPSILON = (
    0.04,
    0.1,
    0.05,
)  # temperatures of teacher, student and Sinkhorn; of the cases
CENTER = "also moves the centre, for which it reads the teacher once more"
NARROW = "in the inputs' precision: half-precision probabilities stay in half precision"


def _lightly_dino(size: Size, inputs: Inputs) -> Call:
    from lightly.loss import DINOLoss

    assert size.keys is not None
    loss = DINOLoss(size.keys, teacher_temp=SHARP, student_temp=SOFT)
    loss = loss.to(inputs["student"].device, size.dtype)
    loss.center.copy_(inputs["center"])
    return lambda x: loss(list(x["teacher"]), list(x["student"]), teacher_temp=SHARP)


def _lightly_ibot(size: Size, inputs: Inputs) -> Call:
    from lightly.loss import IBOTPatchLoss

    assert size.keys is not None
    loss = IBOTPatchLoss(size.keys, teacher_temp=SHARP, student_temp=SOFT)
    loss = loss.to(inputs["student"].device, size.dtype)
    loss.center.value.copy_(inputs["center"])
    mask = torch.ones(size.batch, 1, 1, dtype=torch.bool, device=inputs["student"].device)
    return lambda x: loss(x["teacher"], x["student"], mask)


def _lightly_sinkhorn(size: Size, inputs: Inputs) -> Call:
    from lightly.loss.swav_loss import sinkhorn

    return lambda x: sinkhorn(x["scores"], iterations=3, epsilon=EPSILON)


DINO = (Peer("lightly", "lightly", _lightly_dino, (NARROW, CENTER)),)
IBOT = (Peer("lightly", "lightly", _lightly_ibot, (NARROW, CENTER)),)
SINKHORN = (
    Peer(
        "lightly",
        "lightly",
        _lightly_sinkhorn,
        ("writes the plan [N, K]; ours gives the centre [K] of which a loss makes it", NARROW),
    ),
)
