"""What `bench profile losses` shall measure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from bench.errors import BenchError, unknown
from bench.profiling import cases
from bench.record.schema import Json

DTYPES = ("float32", "bfloat16", "float16")
UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True)
class Asked:
    """What to measure; where there are no batches, dims or keys, each op's own are taken.

    Raises:
        BenchError: an unknown op or type, a size that is too small, or one that no op has.
    """

    ops: tuple[str, ...]
    batches: tuple[int, ...]
    dims: tuple[int, ...]
    keys: tuple[int, ...]
    dtypes: tuple[str, ...]
    seconds: float  # of timing, for all providers of an op at one size together
    memory: int  # bytes that an op may take, its inputs included
    peers: bool
    fit: bool  # whether to look for the largest batch

    def __post_init__(self) -> None:
        chosen = cases.named(self.ops)
        for dtype in self.dtypes:
            if dtype not in DTYPES:
                raise unknown("type of numbers", dtype, DTYPES)
        sizes = {"--batch": self.batches, "--dim": self.dims, "--keys": self.keys}
        for option, values in sizes.items():
            if any(value < 1 for value in values):
                raise BenchError(f"{option} {min(values)}: a size is at least 1")
        if self.dims and all(case.cpu.dims == (None,) for case in chosen):
            raise BenchError(f"--dim: {', '.join(self.ops)} has no such size; leave it out")
        with_keys = [case for case in chosen if case.cpu.keys != (None,)]
        if self.keys and not with_keys:
            raise BenchError(f"--keys: {', '.join(self.ops)} has no such size; leave it out")
        for case in with_keys:
            if self.keys and min(self.keys) < case.least_keys:
                raise BenchError(f"--keys {min(self.keys)}: {case.op} needs {case.least_keys}")

    def settings(self) -> Json:
        """All of it, for a record."""
        return asdict(self)


def asked(
    *,
    ops: Sequence[str],
    batches: Sequence[int],
    dims: Sequence[int],
    keys: Sequence[int],
    dtypes: Sequence[str],
    seconds: float,
    memory: str,
    peers: bool,
    fit: bool,
    cuda: bool,
) -> Asked:
    """What a user asks for; without types, float32, and on a GPU bfloat16 as well."""
    return Asked(
        ops=tuple(dict.fromkeys(ops)),
        batches=tuple(sorted(set(batches))),
        dims=tuple(dict.fromkeys(dims)),
        keys=tuple(dict.fromkeys(keys)),
        dtypes=tuple(dict.fromkeys(dtypes)) or (("bfloat16", "float32") if cuda else ("float32",)),
        seconds=seconds,
        memory=bytes_of(memory),
        peers=peers,
        fit=fit,
    )


def bytes_of(text: str) -> int:
    """The bytes of an amount such as "8GiB" or "500 MB".

    Raises:
        BenchError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]i?B)?", text.strip())
    if found is None or not float(found[1]):
        raise BenchError(f"--memory {text}: give an amount such as 8GiB or 500MiB")
    return int(float(found[1]) * UNITS[found[2] or ""])
