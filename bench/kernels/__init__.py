"""The losses whose speed and memory matter, one op a folder; methods take them from here.

Each is there in plain torch, in float32 at least whatever the autocast around it, and, where it can
be the faster, as Triton kernels, which multiply embeddings in the type that they come in: see
`bench.kernels.dispatch`. Embeddings come as a projector gives them and are L2-normalised here.
"""

from bench.kernels.color_ce import color_ce
from bench.kernels.cross_correlation import barlow_twins, covariance_penalty
from bench.kernels.dino import dino
from bench.kernels.ema_update import ema_update
from bench.kernels.ibot import ibot
from bench.kernels.infonce import infonce
from bench.kernels.knn_topk import knn_topk
from bench.kernels.nce_bank import bank_logits, log_partition, nce_bank
from bench.kernels.ntxent import ntxent
from bench.kernels.queue_infonce import queue_infonce
from bench.kernels.siglip import siglip
from bench.kernels.sinkhorn import sinkhorn, sinkhorn_center
from bench.kernels.teacher import Teacher

__all__ = [
    "Teacher",
    "bank_logits",
    "barlow_twins",
    "color_ce",
    "covariance_penalty",
    "dino",
    "ema_update",
    "ibot",
    "infonce",
    "knn_topk",
    "log_partition",
    "nce_bank",
    "ntxent",
    "queue_infonce",
    "siglip",
    "sinkhorn",
    "sinkhorn_center",
]
