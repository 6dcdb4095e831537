"""How alike methods are, from the arrays beside their records."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.stats import spearmanr

from bench.leaderboard import build
from bench.record import Beside
from bench.record import write as store

POSITIONS = np.array([3, 1, 2], dtype=np.int32)
DISTANCES = {
    "rotnet": np.array([0.5, 0.1, 0.9, 0.3]),
    "simclr": np.array([0.4, 0.2, 0.1, 0.8]),
    "vae": np.array([1.0, 2.0, 3.0, 4.0]),
}


def keep(results, sample, method: str, protocol: str, **arrays: np.ndarray) -> None:
    record = sample(
        method,
        protocol={"name": protocol, "config": {}, "selection": {}},
        metric={"name": "rho", "unit": "", "higher_is_better": True},
        metrics={"rho": 0.5},
    )
    store(results, record, Beside(arrays=arrays))


def cell(text: str, row: str, column: str) -> float:
    """A cell of the table of likeness."""
    lines = text[text.index("of every two methods") :].splitlines()
    table = [[c.strip() for c in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    (found,) = (line for line in table[2:] if line[0] == f"`{row}`")
    return float(found[table[0].index(f"`{column}`")])


def test_dissimilarities_are_compared_by_rank(results, sample) -> None:
    for method, values in DISTANCES.items():
        keep(results, sample, method, "rdm", rdm=values.astype(np.float16), positions=POSITIONS)
    text = build(results)
    found = {}
    for one in DISTANCES:
        for other in DISTANCES:
            try:
                found[one, other] = cell(text, one, other)
            except (ValueError, IndexError):
                continue
    assert len(found) == 3  # every two once
    for (one, other), value in found.items():
        expected = spearmanr(DISTANCES[one], DISTANCES[other]).statistic
        assert value == pytest.approx(expected, abs=0.006)


def test_cka_is_the_cosine_of_what_is_kept(results, sample) -> None:
    for method, values in DISTANCES.items():
        keep(results, sample, method, "cka", gram=values.astype(np.float16), positions=POSITIONS)
    text = build(results)
    one, other = DISTANCES["rotnet"], DISTANCES["simclr"]
    expected = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    pairs = [("rotnet", "simclr"), ("simclr", "rotnet")]
    shown = [pair for pair in pairs if re.search(rf"\| `{pair[0]}` .*\d\.\d\d", text)]
    values = []
    for pair in shown:
        try:
            values.append(cell(text, *pair))
        except (ValueError, IndexError):
            continue
    assert values == [pytest.approx(expected, abs=0.006)]


def test_nothing_is_compared_over_different_pictures(results, sample) -> None:
    values = DISTANCES["rotnet"]
    keep(results, sample, "rotnet", "rdm", rdm=values, positions=POSITIONS)
    keep(results, sample, "simclr", "rdm", rdm=values, positions=POSITIONS[::-1])
    assert "of every two methods" not in build(results)
