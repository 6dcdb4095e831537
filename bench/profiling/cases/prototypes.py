"""Cases of the losses over prototypes: DINO, iBOT, Sinkhorn; K is the number of prototypes."""

from __future__ import annotations

from bench.kernels import Teacher, dino, ibot, sinkhorn_center
from bench.profiling.case import Case, Draw, Grid, Inputs, Size, Work
from bench.profiling.peers import prototypes as peers
from bench.profiling.peers.prototypes import EPSILON, SHARP, SOFT

VIEWS, GLOBAL = 10, 2  # two large crops, which the teacher sees too, and eight small ones


def _views(size: Size, draw: Draw) -> Inputs:
    assert size.keys is not None
    return {
        "student": draw(VIEWS, size.batch, size.keys, grad=True),
        "teacher": draw(GLOBAL, size.batch, size.keys),
        "center": draw(size.keys),
    }


def _patches(size: Size, draw: Draw) -> Inputs:
    assert size.keys is not None
    return {
        "student": draw(size.batch, size.keys, grad=True),
        "teacher": draw(size.batch, size.keys),
        "center": draw(size.keys),
        "weight": draw(size.batch).fill_(1 / size.batch),
    }


def _scores(size: Size, draw: Draw) -> Inputs:
    assert size.keys is not None
    return {"scores": draw(size.batch, size.keys).div_(8)}  # about as wide as cosines are


def _read(size: Size, times: int) -> Work:
    """So many passes over N x K numbers."""
    assert size.keys is not None
    return Work(0, times * size.batch * size.keys * size.bytes)


CASES = (
    Case(
        op="dino",
        inputs=_views,
        call=lambda x: dino(x["student"], Teacher(x["teacher"], SHARP, x["center"]), SOFT),
        # Forward: V + G read. Backward: V + G read, V written.
        work=lambda size: _read(size, 3 * VIEWS + 2 * GLOBAL),
        floor=f"(3 V + 2 G) N K e bytes, V = {VIEWS} views, G = {GLOBAL} of the teacher",
        cpu=Grid((4, 8, 16, 32), keys=(4096,)),
        cuda=Grid((16, 32, 64, 128), keys=(65536,)),
        peers=peers.DINO,
        notes=(f"{GLOBAL} + {VIEWS - GLOBAL} crops, teacher centred",),
    ),
    Case(
        op="ibot",
        inputs=_patches,
        call=lambda x: ibot(
            x["student"], Teacher(x["teacher"], SHARP, x["center"]), x["weight"], SOFT
        ),
        # Forward: both read. Backward: both read, the gradient written.
        work=lambda size: _read(size, 5),
        floor="5 N K e bytes, N patches",
        cpu=Grid((64, 128, 256, 512), keys=(4096,)),
        cuda=Grid((1024, 2048, 5000, 10000), keys=(65536,)),
        peers=peers.IBOT,
        notes=("N patches, teacher centred",),
    ),
    Case(
        op="sinkhorn",
        inputs=_scores,
        call=lambda x: sinkhorn_center(x["scores"], EPSILON),
        # Columns, rows, columns, rows, columns; the last rows are the softmax of the loss.
        work=lambda size: _read(size, 5),
        floor="5 N K e bytes: three iterations, the last scaling of rows left to the loss",
        cpu=Grid((64, 128, 256, 512), keys=(4096,)),
        cuda=Grid((1024, 2048, 5000, 10000), keys=(65536,)),
        peers=peers.SINKHORN,
        backward=False,
        notes=("the centre alone, three iterations",),
    ),
)
