"""Peers of Barlow Twins and of VICReg's covariances."""

from __future__ import annotations

from bench.profiling.case import Call, Inputs, Peer, Size

OFF_DIAGONAL = 5e-3  # of the cases, too
NARROW = "D x D products in the inputs' precision, whatever N is"


def _lightly_barlow(size: Size, inputs: Inputs) -> Call:
    from lightly.loss import BarlowTwinsLoss

    loss = BarlowTwinsLoss(OFF_DIAGONAL)
    return lambda x: loss(x["one"], x["two"])


def _lightly_covariance(size: Size, inputs: Inputs) -> Call:
    from lightly.loss.vicreg_loss import covariance_loss

    return lambda x: covariance_loss(x["one"])


BARLOW = (Peer("lightly", "lightly", _lightly_barlow, (NARROW,)),)
COVARIANCE = (Peer("lightly", "lightly", _lightly_covariance, (NARROW,)),)
