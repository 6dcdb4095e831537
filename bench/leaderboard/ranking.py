"""The order of a group's rows, and which of them share a rank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.leaderboard.groups import Group, Row
from bench.leaderboard.statistics import half_width, ranks, separated
from bench.record import read_predictions

PAIRED = "top1"  # the metric that is a mean over pictures of predicted == true


@dataclass(frozen=True)
class Place:
    """A row's result: the mean over seeds, its interval, and its rank if it has one."""

    row: Row
    mean: float | None
    half_width: float | None
    rank: int | None
    paired: bool  # the rank rests on predictions, not on the intervals


def primary(row: Row) -> pd.Series[float]:
    """The primary metric of a row's good seeds."""
    return pd.Series(
        [entry.record.metrics[entry.record.metric.name] for entry in row.ok], dtype="float64"
    )


def places(group: Group, results: Path) -> list[Place]:
    """The rows of `group`, best first; rows without a number come last.

    Args:
        group: the rows to order.
        results: the results folder, for the predictions.
    """
    values = {row.label: primary(row) for row in group.rows}
    sign = -1 if group.metric.higher_is_better else 1

    def position(row: Row) -> tuple[bool, float, str]:
        empty = values[row.label].empty
        return empty, 0.0 if empty else sign * float(values[row.label].mean()), row.label

    ordered = sorted(group.rows, key=position)
    ranked = [row for row in ordered if row.ranked]
    correct = _correct(ranked, results) if group.metric.name == PAIRED else {}
    unpaired: set[str] = set()

    def tied(first: int, other: int) -> bool:
        one, two = ranked[first].label, ranked[other].label
        if one in correct and two in correct:
            return not separated(correct[one] - correct[two])
        unpaired.add(two)
        return _overlap(values[one], values[two])

    rank_of = dict(zip([row.label for row in ranked], ranks(len(ranked), tied), strict=True))
    return [
        Place(
            row,
            None if values[row.label].empty else float(values[row.label].mean()),
            half_width(values[row.label]),
            rank_of.get(row.label),
            row.label not in unpaired,
        )
        for row in ordered
    ]


def _correct(rows: list[Row], results: Path) -> Mapping[str, NDArray[np.float64]]:
    """Each row's share of seeds that got a picture right, `[N_test]`, where all seeds stored it."""
    found: dict[str, NDArray[np.float64]] = {}
    truth: NDArray[np.uint16] | None = None
    for row in rows:
        shares = []
        for entry in row.ok:
            try:
                stored = read_predictions(results / entry.path, entry.record)
            except BenchError:
                stored = None  # the page says so: the rank falls back on the intervals
            if stored is None:
                break
            predicted, label = stored
            truth = label if truth is None else truth
            if predicted.shape != label.shape or not np.array_equal(label, truth):
                break
            shares.append(predicted == label)
        else:
            found[row.label] = np.mean(shares, axis=0, dtype=np.float64)
    return found


def _overlap(one: pd.Series[float], two: pd.Series[float]) -> bool:
    """Whether two intervals over seeds overlap; a single seed could be anywhere."""
    reach = [half_width(values) for values in (one, two)]
    if reach[0] is None or reach[1] is None:
        return True
    return bool(abs(one.mean() - two.mean()) <= reach[0] + reach[1])
