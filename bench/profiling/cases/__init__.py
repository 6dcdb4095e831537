"""Every op of `bench.kernels` with what is needed to measure it."""

from __future__ import annotations

from collections.abc import Sequence

from bench.errors import unknown
from bench.profiling.case import Case
from bench.profiling.cases import contrastive, others, prototypes, redundancy

ALL = {
    case.op: case
    for module in (contrastive, prototypes, redundancy, others)
    for case in module.CASES
}


def named(ops: Sequence[str]) -> list[Case]:
    """The cases of `ops`, all of them where none are named.

    Raises:
        BenchError: there is no such op.
    """
    for op in ops:
        if op not in ALL:
            raise unknown("op", op, ALL)
    return [ALL[op] for op in ops or ALL]
