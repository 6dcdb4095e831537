"""Whether what a method is about to hold fits in memory: said in one line before training."""

from __future__ import annotations

import os

import torch

from bench.errors import BenchError

BYTES_PER_LOGIT = 16  # logits, log-probabilities and their gradients, float32
WATCHED = 2**22  # logits that diagnostics of a step may look at


def available() -> int:
    """Bytes: the GPU's memory where there is one, else this machine's, whoever uses it now."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[1])
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # not every system tells
        return 2**63


def watched(columns: int) -> int:
    """Of how many rows diagnostics may look at all `columns` logits.

    All of them, in all but large batches: what a step logs must not take the memory, or the time,
    that its loss does without.
    """
    return max(WATCHED // max(columns, 1), 2)


def require(needed: float, what: str, remedy: str) -> None:
    """Refuse what cannot fit.

    Args:
        needed: bytes.
        what: takes them, "65,536 prototypes", say.
        remedy: what to do instead.

    Raises:
        BenchError: more is needed than there is.
    """
    there = available()
    if needed > there:
        gib = 2**30
        raise BenchError(
            f"{what} take about {needed / gib:,.1f} GiB, and {there / gib:,.1f} GiB are there; "
            f"{remedy}"
        )
