"""Cases of the losses that compare embeddings: NT-Xent, InfoNCE, SigLIP, MoCo's queue, NCE."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from bench.kernels import (
    bank_logits,
    infonce,
    log_partition,
    nce_bank,
    ntxent,
    queue_infonce,
    siglip,
)
from bench.profiling.case import Case, Draw, Grid, Inputs, Size, Work
from bench.profiling.cases import eager
from bench.profiling.peers import contrastive as peers
from bench.profiling.peers.contrastive import BIAS, SCALE, TEMPERATURE

NOISE = 4096  # rows of the bank for each query of NCE (InstDisc, arXiv:1805.01978)

SMALL = Grid((256, 512, 1024, 2048), (128,))
LARGE = Grid((1024, 2048, 4096, 8192, 16384, 32768, 65536), (128, 256))
SMALL_KEYS = Grid((64, 128, 256, 512), (128,), (4096,))
LARGE_KEYS = Grid((256, 1024, 4096, 16384), (128, 256), (65536,))


def _pair(size: Size, draw: Draw) -> Inputs:
    assert size.dim is not None
    return {side: draw(size.batch, size.dim, grad=True) for side in ("one", "two")}


def _queue(size: Size, draw: Draw) -> Inputs:
    assert size.dim is not None and size.keys is not None
    return {
        "query": draw(size.batch, size.dim, grad=True),
        "key": draw(size.batch, size.dim),
        "queue": F.normalize(draw(size.keys, size.dim), dim=1),
    }


def _bank(size: Size, draw: Draw) -> Inputs:
    assert size.dim is not None and size.keys is not None
    return {
        "query": draw(size.batch, size.dim, grad=True),
        "bank": F.normalize(draw(size.keys, size.dim), dim=1),
        "at": draw.index(size.keys, size.batch, 1 + NOISE),
    }


def _nce(x: Inputs) -> torch.Tensor:
    logits = bank_logits(x["query"], x["bank"], TEMPERATURE, x["at"])
    return nce_bank(logits, log_partition(logits, len(x["bank"])), len(x["bank"]))


def _two_sides(size: Size, products: int) -> Work:
    """Products of N x N x D, and two embeddings read and two gradients written."""
    assert size.dim is not None
    each = size.batch * size.dim
    return Work(2 * products * size.batch * each, 4 * each * size.bytes)


def _over_keys(size: Size) -> Work:
    assert size.dim is not None and size.keys is not None
    own = 3 * size.batch * size.dim
    return Work(4 * size.batch * size.keys * size.dim, (size.keys * size.dim + own) * size.bytes)


def _gathered(size: Size) -> Work:
    assert size.dim is not None
    rows = size.batch * (1 + NOISE)
    return Work(4 * rows * size.dim, (rows + 2 * size.batch) * size.dim * size.bytes + 8 * rows)


CASES = (
    Case(
        op="ntxent",
        inputs=_pair,
        call=lambda x: ntxent(x["one"], x["two"], TEMPERATURE),
        eager=eager.ntxent,
        # M = 2N rows: logits forward and again backward, and the gradient: 6 M^2 D.
        work=lambda size: _two_sides(size, 12),
        floor="24 N^2 D FLOP (2N rows: logits, logits again, gradient); 4 N D e bytes",
        cpu=SMALL,
        cuda=LARGE,
        peers=peers.NTXENT,
        products=True,
    ),
    Case(
        op="infonce",
        inputs=_pair,
        call=lambda x: infonce(x["one"], x["two"], SCALE),
        eager=eager.infonce,
        work=lambda size: _two_sides(size, 4),
        floor="8 N^2 D FLOP (logits, logits again, two gradients); 4 N D e bytes",
        cpu=SMALL,
        cuda=LARGE,
        peers=peers.INFONCE,
        products=True,
    ),
    Case(
        op="siglip",
        inputs=_pair,
        call=lambda x: siglip(x["one"], x["two"], SCALE, BIAS),
        eager=eager.siglip,
        work=lambda size: _two_sides(size, 3),
        floor="6 N^2 D FLOP (logits, two gradients made in the forward); 4 N D e bytes",
        cpu=SMALL,
        cuda=LARGE,
        peers=peers.SIGLIP,
        products=True,
    ),
    Case(
        op="queue_infonce",
        inputs=_queue,
        call=lambda x: queue_infonce(x["query"], x["key"], x["queue"], TEMPERATURE),
        eager=eager.queue_infonce,
        work=_over_keys,
        floor="4 N K D FLOP (logits, gradient of the query in the same pass); (K + 3 N) D e bytes",
        cpu=SMALL_KEYS,
        cuda=LARGE_KEYS,
        peers=peers.QUEUE,
        products=True,
    ),
    Case(
        op="nce_bank",
        inputs=_bank,
        call=_nce,
        work=_gathered,
        floor=f"4 N M D FLOP, M = {NOISE + 1} rows a query; (M + 2) N D e + 8 N M bytes (a gather)",
        cpu=Grid((16, 32, 64, 128), (128,), (16384,)),
        cuda=Grid((64, 128, 256, 512), (128,), (1_281_167,)),
        notes=("bank_logits, log_partition and nce_bank in a row, Z estimated in every step",),
    ),
)
