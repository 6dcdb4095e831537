"""The nearest rows in Triton: similarities never leave the multiprocessor.

A program streams its part of the bank past some queries. A similarity above the query's floor, the
least of the k best so far, is appended to the query's list in memory as a sort key; when a list is
nearly full, its k greatest keys are kept and the floor rises. So few similarities are ever written,
and looking for the k-th is rare. Parts of the bank are merged by their keys, which are unique:
there is one answer, however the work is split.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from bench.kernels.contrast import split

QUERIES = 2**14  # at once: with their lists, up to 128 MiB
LISTED = 1024  # keys in registers at once
LEAST = tl.constexpr(-(2**63))  # below the key of any number, and its upper half
LEAST_BITS = tl.constexpr(-(2**31))
LOWER = tl.constexpr(2**32 - 1)
SIGNLESS = tl.constexpr(2**31 - 1)


class _Tiles(NamedTuple):
    queries: int
    bank: int
    depth: int
    warps: int
    stages: int


def nearest_keys(queries: Tensor, bank: Tensor, k: int, dot: str) -> Tensor:
    """The greatest `sort_keys` of the similarities of queries and a bank, `[N, k]`, in order."""
    if bank.dtype != queries.dtype or bank.dtype == torch.float64:
        queries, bank = queries.float(), bank.float()
    return torch.cat([listed_keys(some, bank, k, dot) for some in queries.split(QUERIES)])


@triton.jit
def _keys(s, col):
    """The sort keys of similarities [BQ, BM] with rows [BM] of the bank."""
    bits = s.to(tl.int32, bitcast=True)
    bits ^= (bits >> 31) & SIGNLESS
    earlier = col.to(tl.int64) ^ LOWER
    return (bits.to(tl.int64) << 32) | earlier[None, :]


@triton.jit
def _number(bits):
    """The float32 of the upper half of a sort key."""
    return (bits ^ ((bits >> 31) & SIGNLESS)).to(tl.float32, bitcast=True)


@triton.jit
def _keep_best(
    lists, counts, floors, filled, rows, K: tl.constexpr, BQ: tl.constexpr, LONG: tl.constexpr,
    GROUP: tl.constexpr,
):  # fmt: skip
    """Cuts lists down to their K greatest keys, in the bank's order; their new lengths and floors.

    The K-th greatest number is found bit by bit: the greatest that K are not below.
    """
    query = tl.arange(0, BQ)
    tl.store(counts + query, filled)
    tl.debug_barrier()  # lists and lengths were written by other threads
    for start in range(0, rows, GROUP):  # beyond, lists are empty and floors never looked at
        some = start + tl.arange(0, GROUP)
        place = tl.arange(0, LONG)[None, :]
        length = tl.load(counts + some)
        there = place < length[:, None]
        mine = lists + some[:, None] * LONG
        keys = tl.load(mine + place, there, other=LEAST)
        bits = (keys >> 32).to(tl.int32)
        last = tl.where(tl.sum((bits >= 0).to(tl.int32), 1) >= K, 0, LEAST_BITS)
        for step in range(31):
            higher = last | (1 << (30 - step))
            last = tl.where(tl.sum((bits >= higher[:, None]).to(tl.int32), 1) >= K, higher, last)
        # Of equals the first in the bank are kept, as many as there is room for.
        above = (bits > last[:, None]) & there
        equal = (bits == last[:, None]) & there
        room = K - tl.sum(above.to(tl.int32), 1)
        kept = above | (equal & (tl.cumsum(equal.to(tl.int32), 1) <= room[:, None]))
        slot = tl.cumsum(kept.to(tl.int32), 1) - 1
        tl.debug_barrier()  # all have read before any writes
        tl.store(mine + slot, keys, kept)
        tl.store(mine + place, LEAST, (place >= length[:, None]) & (place < K))
        floor = _number(last)
        tl.store(floors + some, tl.where(length >= K, floor, -float("inf")))
    tl.debug_barrier()
    return tl.minimum(filled, K), tl.load(floors + query)


@triton.jit
def _nearest(
    queries, bank, lists, counts, floors, n, m, per_split, query_n, query_d, bank_m, bank_d,
    K: tl.constexpr, D: tl.constexpr, DOT: tl.constexpr,
    BQ: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr, LONG: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    row = block * BQ + tl.arange(0, BQ)
    rows = tl.minimum(n - block * BQ, BQ)
    mine = (tl.program_id(1).to(tl.int64) * tl.num_programs(0) + block) * BQ
    lists += mine * LONG
    counts += mine
    floors += mine
    begin = tl.program_id(1) * per_split
    end = tl.minimum(begin + per_split, m)
    filled = tl.zeros([BQ], tl.int32)
    floor = tl.full([BQ], -float("inf"), tl.float32)
    for start in range(begin, end, BM):
        col = start + tl.arange(0, BM)
        s = tl.zeros([BQ, BM], tl.float32)
        for first in range(0, D, BD):
            dim = first + tl.arange(0, BD)
            left = queries + row.to(tl.int64)[:, None] * query_n + dim[None, :] * query_d
            right = bank + col.to(tl.int64)[None, :] * bank_m + dim[:, None] * bank_d
            s = tl.dot(
                tl.load(left, (row < n)[:, None] & (dim < D)[None, :], other=0.0),
                tl.load(right, (col < end)[None, :] & (dim < D)[:, None], other=0.0),
                s,
                input_precision=DOT,
            )
        s += 0.0  # -0 and 0 are the same
        # An equal one comes later in the bank than those that are listed: it is no better.
        better = (s > floor[:, None]) & (row < n)[:, None] & (col < end)[None, :]
        more = tl.sum(better.to(tl.int32), 1)
        if tl.max(more, 0) > 0:
            slot = filled[:, None] + tl.cumsum(better.to(tl.int32), 1) - 1
            at = lists + tl.arange(0, BQ)[:, None] * LONG + slot
            tl.store(at, _keys(s, col), better)
            filled += more
            if tl.max(filled, 0) > LONG - BM:
                filled, floor = _keep_best(lists, counts, floors, filled, rows, K, BQ, LONG, GROUP)
    _keep_best(lists, counts, floors, filled, rows, K, BQ, LONG, GROUP)


@torch.library.custom_op("bench::listed_keys", mutates_args=())
def listed_keys(queries: Tensor, bank: Tensor, k: int, dot: str) -> Tensor:
    """The greatest `sort_keys`, `[N, k]` int64, of rows of one floating type of 32 bits at most."""
    (n, dim), m = queries.shape, len(bank)
    tiles = _tiles(queries.dtype, dim, dot)
    blocks = triton.cdiv(n, tiles.queries)
    parts, each = split(blocks, m, tiles.bank, queries.device)
    long = list_length(k, tiles)
    programs = parts * blocks * tiles.queries
    lists = queries.new_empty((programs, long), dtype=torch.int64)
    counts = queries.new_empty(programs, dtype=torch.int32)
    floors = queries.new_empty(programs, dtype=torch.float32)
    if n:
        with torch.cuda.device_of(queries):
            _nearest[blocks, parts](
                queries, bank, lists, counts, floors, n, m, each, *queries.stride(), *bank.stride(),
                K=k, D=dim, DOT=dot, BQ=tiles.queries, BM=tiles.bank, BD=tiles.depth,
                LONG=long, GROUP=max(LISTED // long, 1),
                num_warps=tiles.warps, num_stages=tiles.stages,
            )  # fmt: skip
    found = lists.view(parts, -1, long)[:, :n, :k]
    return found.transpose(0, 1).reshape(n, parts * k).topk(k).values


@listed_keys.register_fake
def _(queries: Tensor, bank: Tensor, k: int, dot: str) -> Tensor:
    return queries.new_empty((queries.shape[0], k), dtype=torch.int64)


@register_flop_formula(torch.ops.bench.listed_keys)
def _(queries: Sequence[int], bank: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * queries[0] * bank[0] * bank[1]


def list_length(k: int, tiles: _Tiles) -> int:
    """Keys that a query's list has room for: the best, and what two tiles may add."""
    length: int = triton.next_power_of_2(k + 2 * tiles.bank)
    return length


def _tiles(dtype: torch.dtype, dim: int, dot: str) -> _Tiles:
    """The largest tiles whose sums and lists stay in registers."""
    depth = max(16, triton.next_power_of_2(dim))
    if dtype == torch.float32:
        return _Tiles(32 if dot == "ieee" else 64, 64, min(depth, 32), 8, 3)
    return _Tiles(64, 128, min(depth, 64), 8, 3)
