"""Our own backbones at other widths than the paper's."""

from __future__ import annotations

from bench.errors import BenchError


def scaled(width: float, *channels: int) -> list[int]:
    """`channels` times `width`, rounded.

    Raises:
        BenchError: the width leaves a layer without channels.
    """
    result = [round(width * count) for count in channels]
    if min(result) < 1:
        raise BenchError(f"a width of {width:g} leaves layers without channels; use 0.5, 1 or 2")
    return result
