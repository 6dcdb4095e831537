"""CPU threads that each take one part of a batch through all its operations.

Torch's own threading splits every single operation and waits for all cores after it. With other
processes on the machine (such as decoding workers) that waiting makes short operations many times
slower, and a part of a batch leaves the core's cache between two operations.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache

import torch

Job = Callable[[], None]


@contextmanager
def job_threads() -> Iterator[Callable[[Iterable[Job]], None]]:
    """Give a function that does jobs, as many at a time as torch has threads, and waits for them.

    Within the context each of torch's operations uses one thread.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for this thread, and for threads that start from now on
    try:
        yield lambda jobs: _do(jobs, threads)
    finally:
        torch.set_num_threads(threads)


def _do(jobs: Iterable[Job], threads: int) -> None:
    done = _pool(threads).map(lambda job: job(), jobs) if threads > 1 else (job() for job in jobs)
    for _ in done:
        pass


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "views", torch.set_num_threads, (1,))


# Threads do not survive a fork: a forked process that renders starts its own.
os.register_at_fork(after_in_child=_pool.cache_clear)
