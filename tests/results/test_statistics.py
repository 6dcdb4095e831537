"""Intervals, paired bootstrap and ranks, against scipy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bench.leaderboard.statistics import bootstrap_interval, half_width, ranks, separated

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("n", [2, 3, 10])
def test_interval_agrees_with_scipy(n):
    values = np.random.default_rng(n).normal(60, 2, n)
    low, high = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert half_width(pd.Series(values)) == pytest.approx((high - low) / 2, rel=1e-12)


def test_one_seed_has_no_interval():
    assert half_width(pd.Series([60.0])) is None


def test_bootstrap_agrees_with_scipy():
    rng = np.random.default_rng(0)
    difference = rng.choice([-1, -1 / 3, 0, 1 / 3, 1], size=2_000, p=[0.1, 0.1, 0.5, 0.2, 0.1])
    theirs = stats.bootstrap(
        (difference,), np.mean, n_resamples=9_999, method="percentile", rng=rng, batch=500
    ).confidence_interval
    # Both are Monte Carlo: a quantile of 2,000 draws is good to about 0.06 standard errors.
    tolerance = 0.2 * difference.std() / np.sqrt(len(difference))
    assert bootstrap_interval(difference) == pytest.approx(tuple(theirs), abs=tolerance)


def test_bootstrap_covers_the_truth_about_95_times_in_a_hundred():
    rng = np.random.default_rng(1)
    bounds = [bootstrap_interval(rng.normal(0.3, 1, 400).round(1)) for _ in range(300)]
    covered = np.mean([low <= 0.3 <= high for low, high in bounds])
    assert 0.91 <= covered <= 0.985  # three standard errors of 300 trials


def test_separated_is_about_the_difference_not_the_scores():
    worse = np.zeros(1_000)
    worse[:12] = 1  # better on 12 pictures, worse on none: a paired test sees it
    assert separated(worse) and separated(-worse)
    swapped = np.zeros(1_000)
    swapped[:100], swapped[100:200] = 1, -1
    assert not separated(swapped)
    assert not separated(np.zeros(10))


def test_ranks_tie_with_the_first_of_a_rank_not_along_a_chain():
    scores = [60.0, 59.5, 59.0, 50.0, 49.9]
    assert ranks(5, lambda a, b: scores[a] - scores[b] < 0.8) == [1, 1, 3, 4, 4]
    assert ranks(0, lambda a, b: True) == []
