"""How sure a number is: intervals over seeds, paired tests over pictures, ranks that may tie."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from bench.record import number

LEVEL = 0.95
RESAMPLES = 2_000


def half_width(values: pd.Series[float]) -> float | None:
    """Half the width of Student's t interval for the mean of `values`; None for fewer than two."""
    n = len(values)
    if n < 2:
        return None
    return float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * values.std() / math.sqrt(n)


def interval(values: pd.Series[float]) -> str:
    """The mean of `values` with half its interval, as "64.34 ± 5.79"; "" where there are none."""
    if values.empty:
        return ""
    mean, half = float(values.mean()), half_width(values)
    return number(mean) + (f" ± {number(half, mean)}" if half is not None else "")


def bootstrap_interval(difference: NDArray[np.float64]) -> tuple[float, float]:
    """The bootstrap percentile interval of the mean of `difference`.

    Args:
        difference: `[N]` score of one row minus that of another on each test picture.
    """
    values, counts = np.unique(difference, return_counts=True)
    n = len(difference)
    # Drawing N pictures with replacement draws multinomial counts of the few distinct values.
    # RandomState, because its stream never changes with numpy's version: nor may the page.
    drawn = np.random.RandomState(0).multinomial(n, counts / n, size=RESAMPLES)
    low, high = np.quantile(drawn @ values / n, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def separated(difference: NDArray[np.float64]) -> bool:
    """Whether the paired bootstrap of `difference` `[N]` excludes no difference at all."""
    low, high = bootstrap_interval(difference)
    return low > 0 or high < 0


def ranks(count: int, tied: Callable[[int, int], bool]) -> list[int]:
    """Competition ranks (1, 1, 3) of `count` rows, best first.

    A row shares the rank of the rows above it while it is `tied` with the first of them; to
    compare with the nearest alone would let a chain of small steps tie the best with the worst.

    Args:
        count: how many rows there are.
        tied: whether the rows at two positions cannot be told apart.
    """
    found: list[int] = []
    first = 0
    for position in range(count):
        if position and not tied(first, position):
            first = position
        found.append(first + 1)
    return found
