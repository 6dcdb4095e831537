"""Cases of the losses on D x D correlations: Barlow Twins, VICReg's covariances."""

from __future__ import annotations

from bench.kernels import barlow_twins, covariance_penalty
from bench.profiling.case import Case, Draw, Grid, Inputs, Size, Work
from bench.profiling.peers import redundancy as peers
from bench.profiling.peers.redundancy import OFF_DIAGONAL

SMALL = Grid((128, 256, 512, 1024), (1024,))
LARGE = Grid((512, 1024, 2048, 4096, 8192), (2048, 8192))


def _pair(size: Size, draw: Draw) -> Inputs:
    assert size.dim is not None
    return {side: draw(size.batch, size.dim, grad=True) for side in ("one", "two")}


def _one(size: Size, draw: Draw) -> Inputs:
    assert size.dim is not None
    return {"one": draw(size.batch, size.dim, grad=True)}


def _work(size: Size, by_rows: int, by_dims: int, embeddings: int) -> Work:
    """The cheaper of N x N and D x D products; embeddings read and their gradients written."""
    assert size.dim is not None
    each = size.batch * size.dim
    flops = min(by_rows * size.batch, by_dims * size.dim) * each
    return Work(flops, 2 * embeddings * each * size.bytes)


CASES = (
    Case(
        op="barlow_twins",
        inputs=_pair,
        call=lambda x: barlow_twins(x["one"], x["two"], OFF_DIAGONAL),
        work=lambda size: _work(size, 8, 6, 2),
        floor="min(8 N^2 D, 6 N D^2) FLOP; 4 N D e bytes",
        cpu=SMALL,
        cuda=LARGE,
        peers=peers.BARLOW,
        products=True,
    ),
    Case(
        op="covariance_penalty",
        inputs=_one,
        call=lambda x: covariance_penalty(x["one"]),
        work=lambda size: _work(size, 4, 4, 1),
        floor="min(4 N^2 D, 4 N D^2) FLOP; 2 N D e bytes",
        cpu=SMALL,
        cuda=LARGE,
        peers=peers.COVARIANCE,
        products=True,
    ),
)
